"""Which `nn.Module` is running: path from the outermost module, class and call number."""

from __future__ import annotations

import re
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

import torch

from tracer.capture.variables import Scope
from tracer.records.graph import ModuleRef

if TYPE_CHECKING:
    from tracer.capture.session import Session

_CALLEE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*(?=\()")
_MOST_REFS = 50_000
"""Calls that are told apart: a program that never runs backward makes more without end."""


class _ThreadState(threading.local):
    """The modules that are running in one thread, the outermost first."""

    def __init__(self) -> None:
        self.stack: list[ModuleRef] = []
        self.paths: dict[int, str] = {}
        self.root = ""
        self.outermost: weakref.ref[torch.nn.Module] | None = None


class Modules:
    """Follows the calls of modules; `before` and `after` are called around `Module.__call__`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._local = _ThreadState()
        self._paths: weakref.WeakKeyDictionary[torch.nn.Module, dict[int, str]] = (
            weakref.WeakKeyDictionary()
        )
        self._calls: dict[tuple[str, str, bool], int] = {}
        self._refs: dict[tuple[str, str, int, int], ModuleRef] = {}
        self._first: dict[tuple[str, str], ModuleRef] = {}
        self._known: weakref.WeakKeyDictionary[torch.nn.Module, str] = weakref.WeakKeyDictionary()
        # What outermost modules are named, by the text that user code called them by.
        self._roots: weakref.WeakKeyDictionary[torch.nn.Module, dict[str, str]] = (
            weakref.WeakKeyDictionary()
        )
        self._by_id: dict[int, ModuleRef] = {}

    def before(self, args: tuple[Any, ...], kwargs: Any) -> ModuleRef | None:
        """A module is called: it is the current one from here on."""
        session = self._session
        if session.mode.paused or not args:
            return None
        try:
            with torch._C.DisableTorchFunction():
                ref = self._enter(args[0])
        except Exception as error:
            session.recorder.fault(error)
            return None
        self._local.stack.append(ref)
        self._show(ref)
        return ref

    def after(self, ref: ModuleRef | None, result: object, error: BaseException | None) -> None:
        """A module returned or raised: the one that called it is current again."""
        if ref is None:
            return
        self._local.stack.pop()
        self._show(self._local.stack[-1] if self._local.stack else None)

    def _show(self, ref: ModuleRef | None) -> None:
        session = self._session
        if ref is None:
            session.mode.set_module(0, 0)
        else:
            path = session.recorder.writer.string(ref.path)
            session.mode.set_module(ref.id, session.watched.path(path, ref.path))

    def _enter(self, module: torch.nn.Module) -> ModuleRef:
        cls = type(module).__name__
        if not self._local.stack:
            self._local.root = self._root_name(module)
            self._local.outermost = weakref.ref(module)
            self._local.paths = self._paths_below(module)
        path = self._local.paths.get(id(module))
        if path is None:
            path = f"{self._local.stack[-1].path if self._local.stack else self._local.root}.{cls}"
        elif path:
            path = f"{self._local.root}.{path}"
        else:
            path = self._local.root
        self._known[module] = path
        # An evaluation before a pass is no part of what it leads to.
        key = path, cls, torch.is_grad_enabled()
        call = self._calls[key] = self._calls.get(key, 0) + 1
        parent = self._local.stack[-1] if self._local.stack else None
        within = 0 if parent is None else parent.id
        ref = self._refs.get((path, cls, call, within))
        if ref is None and len(self._refs) >= _MOST_REFS:
            call = self._calls[key] = 1
            ref = self._first.get((path, cls))
        if ref is None:
            ref = ModuleRef(len(self._refs) + 1, path, cls, call, parent)
            self._refs[path, cls, call, within] = self._by_id[ref.id] = ref
            self._first.setdefault((path, cls), ref)
            self._session.recorder.writer.put(ref)
        return ref

    def _root_name(self, module: torch.nn.Module) -> str:
        """The name by which user code called the outermost module (`model` in `model(x)`), or the
        one that lasts (`layers.0`) where that is a loop's variable or no name at all."""
        session = self._session
        site = session.recorder.site(session.mode.here())
        found = _CALLEE.match(site.expression) if site is not None else None
        called = found.group() if found else ""
        names = self._roots.setdefault(module, {})
        if called not in names:
            names[called] = session.names.module_name(module, called, sys._getframe())
        return names[called] or type(module).__name__

    def _paths_below(self, root: torch.nn.Module) -> dict[int, str]:
        paths = self._paths.get(root)
        if paths is None:
            modules = list(root.named_modules())
            paths = {id(module): name for name, module in modules}
            self._paths[root] = paths
            self._session.births.note_parameters(modules, self._local.root)
        return paths

    def path_of(self, module: torch.nn.Module) -> str:
        """The path that a module was last called by, or its class."""
        return self._known.get(module, type(module).__name__)

    def running_scope(self) -> Scope | None:
        """The outermost module that is running, as a variable of the name it was called by."""
        held = self._local.outermost
        outermost = held() if held is not None and self._local.stack else None
        return None if outermost is None else Scope({self._local.root: outermost}, frozenset())

    def ref(self, module_id: int) -> ModuleRef | None:
        """The module of that id."""
        return self._by_id.get(module_id)

    def current_path(self) -> str:
        """The path of the module that is running, empty outside of any."""
        return self._local.stack[-1].path if self._local.stack else ""

    def round_ends(self) -> None:
        """Count calls anew: what follows leads to another backward pass."""
        if not self._local.stack:
            self._calls.clear()
