"""Which `nn.Module` is running: path from the outermost module, class and call number."""

from __future__ import annotations

import re
import sys
import weakref
from typing import TYPE_CHECKING

import torch

from tracer.capture.core import ModeCore, ModuleCall, ModulePath, ModuleStack
from tracer.capture.references import Known
from tracer.capture.variables import Scope
from tracer.records.graph import ModuleRef

if TYPE_CHECKING:
    from tracer.capture.session import Session

_CALLEE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*(?=\()")
_MOST_REFS = 50_000
"""Calls that are told apart: a program that never runs backward makes more without end."""
_MOST_KEPT = 256
"""Outermost modules whose paths are kept: a program may make another for each call."""


class Below(dict[int, tuple["weakref.ref[torch.nn.Module]", ModulePath]]):
    """The paths of what was called below an outermost module, by identity, as the core has them."""

    def __init__(self, module: torch.nn.Module, root: str, names: dict[int, str]) -> None:
        super().__init__()
        self.module = weakref.ref(module)
        self.root = root
        self.names = names

    def path_of(self, module: torch.nn.Module) -> str | None:
        """The path of a module, None where it was not called."""
        ref, path = self.get(id(module), (None, None))
        return path.path if path is not None and ref is not None and ref() is module else None


class Modules:
    """Follows the calls of modules: what is called for the first time, in Python."""

    stack: ModuleStack

    def __init__(self, session: Session) -> None:
        self._session = session
        self._names: Known[torch.nn.Module, dict[int, str]] = Known()
        self._outermost: dict[tuple[int, str], Below] = {}
        self._paths: dict[tuple[str, str], ModulePath] = {}
        self._others: Known[torch.nn.Module, str] = Known()
        # What outermost modules are named, by the text that user code called them by.
        self._roots: Known[torch.nn.Module, dict[str, str]] = Known()
        self._calls: dict[tuple[ModulePath, int, int], ModuleCall] = {}
        self._refs: dict[int, ModuleRef] = {}

    def follow(self, mode: ModeCore) -> None:
        """Have `mode` told which module runs."""
        self.stack = ModuleStack(mode, self._find, self._count)

    def _find(
        self, module: torch.nn.Module, caller: ModuleCall | None, below: Below | None, site: int
    ) -> tuple[ModulePath, Below]:
        """The path of a module that was not called from there before, or that others are below."""
        with torch._C.DisableTorchFunction():
            cls = type(module).__name__
            if caller is None or below is None:
                below = self._below(module, self._root_name(module, site))
            name = below.names.get(id(module))
            if name is None:  # which module calls it may differ
                path = self._path(f"{caller.path if caller else below.root}.{cls}", cls)
                self._others[module] = path.path
            else:
                path = self._path(f"{below.root}.{name}" if name else below.root, cls)
                below[id(module)] = weakref.ref(module), path
            return path, below

    def _path(self, path: str, cls: str) -> ModulePath:
        known = self._paths.get((path, cls))
        if known is None:
            known = self._paths[path, cls] = ModulePath(path, cls)
        return known

    def _count(self, path: ModulePath, number: int, caller: ModuleCall | None) -> ModuleCall:
        """What stands for the call of that number of a path, by that caller; or where too many
        calls are told apart for the first."""
        within = caller.id if caller is not None else 0
        call = self._calls.get((path, number, within))
        if call is None and len(self._refs) >= _MOST_REFS:
            number, call = 1, path.calls[0] if path.calls else None
        if call is None:
            call = self._calls[path, number, within] = self._new_call(path, number, within)
        path.calls[number - 1 : number] = [call]
        return call

    def _new_call(self, path: ModulePath, number: int, within: int) -> ModuleCall:
        writer = self._session.recorder.writer
        parent = self._refs.get(within)
        ref = ModuleRef(len(self._refs) + 1, path.path, path.cls, number, parent)
        self._refs[ref.id] = ref
        writer.put(ref)
        path_id = self._session.watched.path(writer.string(ref.path), ref.path)
        return ModuleCall(ref.id, number, within, path_id, ref.path)

    def _root_name(self, module: torch.nn.Module, site_id: int) -> str:
        """The name by which user code called the outermost module (`model` in `model(x)`), or the
        one that lasts (`layers.0`) where that is a loop's variable or no name at all."""
        session = self._session
        site = session.recorder.site(site_id)
        found = _CALLEE.match(site.expression) if site is not None else None
        called = found.group() if found else ""
        names = self._roots.get(module)
        if names is None:
            names = self._roots[module] = {}
        if called not in names:
            names[called] = session.names.module_name(module, called, sys._getframe())
        return names[called] or type(module).__name__

    def _below(self, module: torch.nn.Module, root: str) -> Below:
        """The paths below an outermost module; the one that was called last is the last kept."""
        below = self._outermost.pop((id(module), root), None)
        if below is None or below.module() is not module:
            below = Below(module, root, self._names_below(module, root))
            if len(self._outermost) >= _MOST_KEPT:
                del self._outermost[next(iter(self._outermost))]
        self._outermost[id(module), root] = below
        return below

    def _names_below(self, outermost: torch.nn.Module, root: str) -> dict[int, str]:
        names = self._names.get(outermost)
        if names is None:
            modules = list(outermost.named_modules())
            names = self._names[outermost] = {id(module): name for name, module in modules}
            self._session.births.note_parameters(modules, root)
        return names

    def path_of(self, module: torch.nn.Module) -> str:
        """The path that a module was last called by, or its class."""
        found = (below.path_of(module) for below in reversed(self._outermost.values()))
        named = next((path for path in found if path is not None), None)
        return named or self._others.get(module) or type(module).__name__

    def running_scope(self) -> Scope | None:
        """The outermost module that is running, as a variable of the name it was called by."""
        below = self.stack.below()
        outermost = below.module() if below is not None else None
        return None if outermost is None else Scope({below.root: outermost}, frozenset())

    def ref(self, module_id: int) -> ModuleRef | None:
        """The module of that id."""
        return self._refs.get(module_id)

    def current_path(self) -> str:
        """The path of the module that is running, empty outside of any."""
        call = self.stack.current()
        return call.path if call is not None else ""
