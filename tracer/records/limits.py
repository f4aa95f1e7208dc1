"""What is asked of a recording, as words, in; the limits that it keeps to, checked once, out.

The words are the same in a call (`tracer.trace(every=10)`), on the command line
(`tracer run --every 10`) and in the environment (`TRACER="every=10"`).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from tracer.errors import OptionError
from tracer.records.selection import ALL, Only, read_only

DETAILS = ("structure", "statistics", "values")
FEW = 16
"""Tensors of so many elements or fewer are kept whole beside statistics."""
MANY = 1000
"""And for `detail="values"`, unless it says another number."""
LEAST_BYTES = 1_000_000
_MOST_ELEMENTS = 1 << 24
_UNITS = " KMGT"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Limits:
    """What of a run is recorded; the default is all of it. Made and checked by `limits`.

    Of the passes from each backward call, the first and every `every`-th after it; of these the
    `last` ones stay (0: all), and as many as `max_bytes` hold (0: no bound). `only` says which
    nodes, leaves and kinds of event.
    `detail` is what is kept of a tensor: `structure` reads none, `statistics` and `values` also
    keep whole those of `elements` or fewer.
    """

    every: int = 1
    only: Only = ALL
    last: int = 0
    max_bytes: int = 0
    detail: str = "statistics"
    elements: int = FEW

    @property
    def words(self) -> str:
        """What differs from the default, as one would type it: `every=10 max_bytes=5000000`."""
        said = {
            "every": self.every if self.every != 1 else "",
            "only": ",".join(self.only.words),
            "last": self.last or "",
            "max_bytes": self.max_bytes or "",
            "detail": self.detail if self.detail != "statistics" else "",
        }
        if self.detail == "values" and self.elements != MANY:
            said["detail"] = f"values:{self.elements}"
        return shlex.join(f"{name}={value}" for name, value in said.items() if value != "")


ALL_THERE_IS = Limits()


def limits(
    *,
    every: int | str = 1,
    only: str | Sequence[str] = (),
    last: int | str | None = None,
    max_bytes: int | str | None = None,
    detail: str = "statistics",
) -> Limits:
    """Check what was asked for. Raises OptionError, in one line, for what cannot be done."""
    level, elements = _detail(detail)
    return Limits(
        every=_count("every", every, "record every N-th pass"),
        only=read_only(only),
        last=0 if last is None else _count("last", last, "keep the last N passes"),
        max_bytes=0 if max_bytes is None else _bytes(max_bytes),
        detail=level,
        elements=elements,
    )


OPTIONS = ("every", "only", "last", "max_bytes", "detail")


def limits_of(words: Mapping[str, str]) -> Limits:
    """Check what was asked for by name. Raises OptionError, for a name that is no option too."""
    for name in words:
        if name not in OPTIONS:
            raise OptionError(f"there is no option {name}{_meant(name, OPTIONS)}")
    return limits(**words)


def _count(name: str, value: int | str, meaning: str) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if number < 1 or isinstance(value, (bool, float)):
        raise OptionError(f"{name}={value}: N must be a whole number from 1 ({meaning})")
    return number


def _bytes(value: int | str) -> int:
    found = _SIZE.fullmatch(str(value).strip())
    if found is None or isinstance(value, bool):
        raise OptionError(f"max_bytes={value}: say a number of bytes, as 50000000, 50MB or 1.5GB")
    number, unit, binary = found.groups()
    size = float(number) * (1024 if binary else 1000) ** _UNITS.index(unit.upper() or " ")
    if size < LEAST_BYTES:
        raise OptionError(f"max_bytes={value}: a trace needs 1 MB at least")
    return int(size)


def _detail(value: str) -> tuple[str, int]:
    level, colon, number = str(value).partition(":")
    if level not in DETAILS or (colon and level != "values"):
        raise OptionError(
            f"detail={value}: it is structure, statistics or values{_meant(level, DETAILS)}; "
            "values:N keeps tensors of up to N elements whole"
        )
    if level != "values":
        return level, 0 if level == "structure" else FEW
    if colon and not (number.isdecimal() and int(number) <= _MOST_ELEMENTS):
        raise OptionError(f"detail={value}: N must be a whole number up to {_MOST_ELEMENTS:,}")
    return level, int(number) if colon else MANY


def _meant(word: str, known: Sequence[str]) -> str:
    near = get_close_matches(word, known, n=1)
    return f" (did you mean {near[0]}?)" if near and near[0] != word else ""
