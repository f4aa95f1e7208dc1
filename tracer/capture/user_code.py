"""A code object or file name comes in; whether the user wrote it, or a library did, goes out."""

from __future__ import annotations

import os
import sys
import sysconfig
from types import CodeType

TRACER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

_INSTALLED = ("site-packages", "dist-packages")
_STANDARD = (
    os.path.dirname(os.__file__),
    sysconfig.get_path("stdlib"),
    sysconfig.get_path("platstdlib"),
)
_PLUMBING = ("contextlib.py", "functools.py", "runpy.py", "threading.py")
_GENERATED = (
    "<frozen ",
    "<eval_with_key>",
    "<attrs generated",
    "<__array_function__",
    "<decorator-gen",
    "<lambdifygenerated",
    "<unknown>",
)


class UserCode:
    """Tells the user's code from PyTorch's, `tracer`'s, the standard library's and packages'.

    `show_library` counts installed packages and the standard library (but not its plumbing) as the
    user's too. A package that holds the running script (`script`, by default the file of
    `__main__`) is the user's wherever it is installed.
    """

    def __init__(self, *, show_library: bool = False, script: str | None = None) -> None:
        self._show_library = show_library
        self._own = _own_place(script if script is not None else _main_file())
        self._wrote: dict[str, bool] = {}

    def __call__(self, code: CodeType) -> bool:
        """Tell whether the user wrote this code."""
        return self.wrote(code.co_filename) and not _is_made_by_dataclass(code)

    def wrote(self, filename: str) -> bool:
        """Tell whether the user wrote this file; names like `<string>` count as the user's."""
        if filename.startswith("<"):  # there is no end of such names: they are not remembered
            return not filename.startswith(_GENERATED)
        known = self._wrote.get(filename)
        if known is None:
            known = self._wrote[filename] = self._wrote_file(filename)
        return known

    def _wrote_file(self, filename: str) -> bool:
        path = os.path.abspath(filename)
        if _is_within(path, TRACER) or _is_pytorch(path) or _is_launcher(path):
            return False
        if self._own and _is_within(path, self._own):
            return True
        library = _library_root(path)
        if library is None:
            return True
        return self._show_library and not _is_plumbing(path, library)


def _own_place(script: str) -> str:
    """Find what belongs to a script that lives among libraries: its package, or the file alone."""
    path = os.path.abspath(script) if script else ""
    library = _library_root(path) if path else None
    if library is None:
        return ""
    package, inner, _ = path[len(library) + 1 :].partition(os.sep)
    return os.path.join(library, package) if inner else path


def _main_file() -> str:
    name = vars(sys.modules["__main__"]).get("__file__") if "__main__" in sys.modules else None
    return name if isinstance(name, str) else ""


def _library_root(path: str) -> str | None:
    """The folder of libraries that a path lies in, None where it lies in none."""
    parts = path.split(os.sep)
    for name in _INSTALLED:
        if name in parts:
            last = len(parts) - 1 - parts[::-1].index(name)
            return os.sep.join(parts[: last + 1])
    return next((root for root in _STANDARD if root and _is_within(path, root)), None)


def _is_plumbing(path: str, library: str) -> bool:
    return library in _STANDARD and os.path.relpath(path, library) in _PLUMBING


def _is_pytorch(path: str) -> bool:
    """Tell PyTorch's files, and those it writes when it compiles, without importing it."""
    if f"{os.sep}torchinductor_" in path:
        return True
    torch = sys.modules.get("torch")
    places = vars(torch).get("__path__") if torch is not None else None
    return any(_is_within(path, os.path.abspath(place)) for place in places or ())


def _is_launcher(path: str) -> bool:
    """Tell the small scripts that installers write for commands (`bin/pytest`, `bin/torchrun`)."""
    if path.endswith(".py") and not path.endswith("__main__.py"):
        return False
    scripts = sysconfig.get_path("scripts")
    return bool(scripts) and _is_within(path, scripts)


def _is_within(path: str, root: str) -> bool:
    return path == root or path.startswith(root + os.sep)


def _is_made_by_dataclass(code: CodeType) -> bool:
    """Tell the methods that `dataclass` writes, whose file name is that of any `exec`."""
    if code.co_filename != "<string>" or not code.co_name.startswith("__"):
        return False
    return "__create_fn__" in getattr(code, "co_qualname", "__create_fn__")
