"""Words like `module:encoder` in; which nodes, leaves and kinds of event they mean out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from tracer.errors import OptionError
from tracer.records.events import EVENT_KINDS

KINDS = tuple(kind.kind for kind in EVENT_KINDS)
ALWAYS = frozenset(("pass_begin", "pass_end", "mark", "pause", "dropped"))
"""Kinds that say what the others are about, or that something is missing."""


@dataclass(frozen=True, slots=True)
class Only:
    """What a recording is restricted to; what is not restricted is recorded in full.

    `kinds` are the kinds of event (besides ALWAYS); `names` and `modules` are shell patterns, and
    a node or leaf is watched that matches one of them. The graph itself is kept whole.
    """

    names: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """The words that say so."""
        return (
            *(f"name:{name}" for name in self.names),
            *(f"module:{module}" for module in self.modules),
            *(f"kind:{kind}" for kind in self.kinds),
        )

    @property
    def places(self) -> bool:
        """Whether it is restricted to some nodes and leaves."""
        return bool(self.names or self.modules)

    def wants_kind(self, kind: str) -> bool:
        """Whether events of this kind are recorded."""
        return not self.kinds or kind in self.kinds or kind in ALWAYS

    def wants(self, names: Iterable[str], module: str) -> bool:
        """Whether a node or leaf with these names, made in the module of this path, is watched."""
        if not self.places or (self.modules and self.wants_module(module)):
            return True
        return bool(self.names) and any(_matches(name, self.names) for name in names)

    def wants_leaf(self, name: str) -> bool:
        """Whether a leaf is watched; `encoder.weight` lies in the module `encoder`."""
        return self.wants((name,), name.rpartition(".")[0])

    def wants_module(self, path: str) -> bool:
        """Whether a module, or one that it lies in, is among those asked for (or none is)."""
        if not self.modules:
            return True
        parts = path.split(".") if path else []
        return any(_matches(".".join(parts[: end + 1]), self.modules) for end in range(len(parts)))


ALL = Only()


def _matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a dotted name, with or without the variable that it begins with, is asked for."""
    inner = name.partition(".")[2]
    return any(
        fnmatchcase(name, pattern) or (inner and fnmatchcase(inner, pattern))
        for pattern in patterns
    )


def read_only(words: str | Sequence[str]) -> Only:
    """Read what a recording is restricted to. Raises OptionError for a word that says nothing."""
    texts = [words] if isinstance(words, str) else list(words)
    found: dict[str, list[str]] = {"name": [], "module": [], "kind": []}
    for word in " ".join(texts).replace(",", " ").split():
        sort, _, pattern = word.partition(":")
        if sort not in found or not pattern:
            raise OptionError(
                f"only={word}: say name:{word}, module:{word} or kind:{word}, to record only what "
                "is called so, what is made in that module, or that kind of event"
            )
        if sort == "kind" and pattern not in KINDS:
            near = get_close_matches(pattern, KINDS, n=1)
            meant = f" (did you mean {near[0]}?)" if near else f": they are {', '.join(KINDS)}"
            raise OptionError(f"only={word}: there is no kind of event {pattern}{meant}")
        found[sort].append(pattern)
    return Only(tuple(found["name"]), tuple(found["module"]), tuple(found["kind"]))
