"""What a node can belong to: modules, functions, lines of source, loops and their iterations."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum

from tracer.records import words
from tracer.records.graph import ModuleRef, Site

Path = tuple[int, ...]


class GroupKind(str, Enum):
    """What holds the members of a group together."""

    NODE = "node"
    MODULE = "module"
    FUNCTION = "function"
    LINE = "line"
    LOOP = "loop"
    ITERATION = "iteration"
    SEQUENCE = "sequence"
    PART = "part"


@dataclass(frozen=True, slots=True)
class Level:
    """One thing that nodes can belong to.

    `name` is what a user calls it by: a module's path, `step()`, `file:line`; `label` is what a
    picture says. `together` names several of them, where that is not their own names: iterations.
    """

    kind: GroupKind
    name: str = ""
    label: str = ""
    cls: str = ""
    together: str = ""


@dataclass(slots=True)
class LevelBook:
    """Levels by number, each held once however often it is met."""

    levels: list[Level] = field(default_factory=list)
    _numbers: dict[Hashable, int] = field(default_factory=dict)

    def number(self, key: Hashable, level: Level) -> int:
        """Find the number of the level with this key, adding it on first sight."""
        found = self._numbers.setdefault(key, len(self.levels))
        if found == len(self.levels):
            self.levels.append(level)
        return found

    def of_module(self, module: ModuleRef | None, classes: dict[str, str]) -> Path:
        """Number the modules around a node, outermost first."""
        if module is None or not module.path:
            return ()
        parts = module.path.split(".")
        paths = [".".join(parts[: length + 1]) for length in range(len(parts))]
        return tuple(
            self.number(path, Level(GroupKind.MODULE, path, path, classes.get(path, "")))
            for path in paths
        )

    def of_site(self, site: Site | None) -> Path:
        """Number the function and line of a node; the body of a file or lambda is no function."""
        if site is None:
            return ()
        function = site.function.rsplit(".", 1)[-1]
        levels = []
        if not function.startswith("<"):
            level = Level(GroupKind.FUNCTION, f"{function}()", f"{function}()")
            levels.append(self.number((site.file, site.function), level))
        name = words.file_line(site)
        level = Level(GroupKind.LINE, name, site.statement or site.text or name)
        levels.append(self.number((site.file, site.line), level))
        return tuple(levels)
