"""Read by Python as it starts, to record what it runs: watch for torch, and begin once it is in.

`sitecustomize` reads it under `tracer run`, and a line in a .pth file where TRACER is set. Torch is
not imported here: scripts set variables that torch reads when it is imported, and those that never
import it should not wait for it. Of the modules that Python itself has no need of, only `atexit` is
imported before the script has imported torch.
"""

import atexit
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

    from tracer.cli.recording import Recording


class TorchWatch:
    """A finder that finds what the others find, and starts recording once `torch` is imported.

    `method` of Recording begins with `job`, and returns None where nothing is to be recorded;
    `farewell` is what to say in the end of a script that never imports it.
    """

    def __init__(self, method: str, job: str, farewell: str) -> None:
        self.method = method
        self.job = job
        self.farewell = farewell
        self.pid = os.getpid()
        self.recording: Recording | None = None

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """Return the other finders' spec of `torch`, with its loader watched; None for all else."""
        if name != "torch" or os.getpid() != self.pid:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                self.watch(spec.loader)
                return spec
        return None

    def watch(self, loader: "Any") -> None:
        """Start recording when the loader has executed the module."""

        def exec_module(module: "ModuleType") -> None:
            del loader.exec_module
            loader.exec_module(module)
            if self in sys.meta_path:
                self.start()

        loader.exec_module = look_like_importlib(exec_module)

    def start(self) -> None:
        """Start recording; where that fails, say so and let the script run without."""
        sys.meta_path.remove(self)
        try:
            self.recording = getattr(import_recording(), self.method)(self.job)
        except Exception as error:
            self.farewell = ""
            say(f"tracer: nothing is recorded: {type(error).__name__}: {error}\n")

    def stop(self) -> None:
        """Stop recording and say what there is; a forked child that ends here keeps quiet."""
        if os.getpid() != self.pid:
            return
        interrupted = getattr(sys, "last_type", None) is KeyboardInterrupt
        say(self.recording.end() if self.recording else self.farewell)
        if interrupted:
            die_by_the_signal()


def look_like_importlib(function: "Any") -> "Callable[[ModuleType], None]":
    """Return the function under importlib's file name.

    So Python's tracebacks and warnings leave its frame out, as they do for the rest of an import.
    """
    code = function.__code__.replace(co_filename="<frozen importlib._bootstrap>")
    renamed: Callable[[ModuleType], None] = type(function)(
        code, function.__globals__, closure=function.__closure__
    )
    return renamed


def import_recording() -> "type[Recording]":
    """Import our package, unless the script's own `tracer` stands before it on `sys.path`."""
    import importlib.util

    package = os.path.dirname(os.path.dirname(HERE))
    added = [entry for entry in (os.path.dirname(package),) if entry not in sys.path]
    sys.path += added
    try:
        spec = importlib.util.find_spec("tracer")
        if spec is None or os.path.dirname(str(spec.origin)) != package:
            raise ImportError(f"the script has a module named tracer: {spec and spec.origin}")
        from tracer.cli.recording import Recording
    finally:
        for entry in added:
            sys.path.remove(entry)
    return Recording


def say(text: str) -> None:
    """Write to the standard error that Python started with, after what the script printed."""
    for stream, words in ((sys.stdout, ""), (sys.__stderr__, text)):
        if text and stream is not None:
            try:
                stream.write(words)
                stream.flush()
            except (OSError, ValueError):  # closed: Python says so itself where it matters
                pass


def die_by_the_signal() -> None:
    """Make Python end by SIGINT, as it does after a KeyboardInterrupt that the script let pass.

    It forgets that when a string is executed later, as happens where a dataclass or a named tuple
    is made; a string that raises the same reminds it (`run_eval_code_obj` in pythonrun.c).
    """
    try:  # noqa: SIM105 (contextlib may not have been imported)
        exec("raise KeyboardInterrupt")
    except KeyboardInterrupt:
        pass


def begin(watch: TorchWatch) -> None:
    """Watch until the process ends."""
    sys.meta_path.insert(0, watch)
    atexit.register(watch.stop)  # the first to be registered runs last
    if "torch" in sys.modules:
        watch.start()


def switch() -> None:
    """Record as TRACER says, unless `tracer run` does already, or it says no.

    A site-packages that is listed twice has its .pth files read twice.
    """
    said = os.environ["TRACER"]
    is_on = said.lower() not in ("0", "off", "no", "false") and "TRACER_RUN" not in os.environ
    if is_on and not any(type(finder).__name__ == "TorchWatch" for finder in sys.meta_path):
        begin(TorchWatch("begin_switched", "\0".join((os.getcwd(), said)), ""))


HERE = os.path.dirname(os.path.abspath(__file__))
