"""What a recording left out in; what to say of it, and how to have it recorded, out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_ADVICE = {
    "every=": "record them all: leave --every out",
    "only=": "record them too: leave --only out",
    "keep to last": "keep more: a greater --last",
    "keep to max_bytes": "keep more: a greater --max-bytes",
    "max_bytes left no room": "keep more: a greater --max-bytes",
    "another program had locked it": "close what else has the trace open for writing",
    "which line made their nodes": "run backward sooner, or record a shorter part",
}
"""How to get what was left out, by words of its reason."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that is not in a trace: why, how often, and what would bring it in (maybe '')."""

    reason: str
    count: int
    advice: str

    @property
    def text(self) -> str:
        """The gap in one line."""
        advice = f" ({self.advice})" if self.advice else ""
        return f"{self.count:,} × {self.reason}{advice}"


def gaps_of(dropped: Mapping[str, int]) -> Iterator[Gap]:
    """What a trace's `dropped` says is missing from it."""
    for reason, count in dropped.items():
        advice = (text for words, text in _ADVICE.items() if words in reason)
        yield Gap(reason, count, next(advice, ""))
