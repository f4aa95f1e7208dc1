"""Stand-ins for tensors that report the frame of whoever computes with them, for tests of sites."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from tracer.capture.loops import stand_of
from tracer.capture.sites import SiteTable
from tracer.capture.variables import read_locals
from tracer.records.graph import Site

HAS_POSITIONS = sys.version_info >= (3, 11)
SCRIPT = str(Path(__file__).parent / "script.py")


class Seen:
    """A table, and what it gave for each operation on the probes that a snippet computed with."""

    def __init__(self, **options: Any) -> None:
        self.table = SiteTable(**{"script": SCRIPT} | options)
        self.sites: list[Site] = []
        self.loops: list[tuple[tuple[str, str], ...]] = []

    def note(self, frame: FrameType) -> None:
        site = self.table.site_of(frame)
        assert site is not None
        self.sites.append(site)
        self.loops.append(loop_values(self.table, frame, site))

    @property
    def last(self) -> Site:
        return self.sites[-1]


def loop_values(table: SiteTable, frame: FrameType, site: Site) -> tuple[tuple[str, str], ...]:
    """The numbers and texts that the loops around a site stand at, outermost loop first."""
    found = table.user_frame(frame)
    assert found is not None
    stands = [stand_of(loop, read_locals(found)) for loop in table.loops_around(site)]
    return tuple(value for stand in stands for value in stand.values)


class Probe:
    """Stands in for a tensor: reports the frame of whoever computes with it."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    def _note(self, *_: Any, **__: Any) -> Probe:
        self.seen.note(sys._getframe(1))
        return self

    def _note_setting(self, *_: Any) -> None:
        self.seen.note(sys._getframe(1))

    relu = sum = __add__ = __radd__ = __iadd__ = __mul__ = __matmul__ = __neg__ = _note
    __getitem__ = __lt__ = __call__ = __enter__ = _note
    __setitem__ = __exit__ = _note_setting
    data = property(_note, _note_setting)

    def __iter__(self) -> Iterator[int]:
        self.seen.note(sys._getframe(1))
        return iter((1, 2))

    def __format__(self, spec: str) -> str:
        self.seen.note(sys._getframe(1))
        return "1.0"

    def __bool__(self) -> bool:
        self.seen.note(sys._getframe(1))
        return True


class Holder:
    """An object with attributes."""


def pair(probe: Probe) -> tuple[int, list[int]]:
    """Report the caller and give something to unpack."""
    probe.seen.note(sys._getframe(1))
    return 1, [2, 3]


def run_file(file: Path, **options: Any) -> Seen:
    """Run a file with probes named x, w, y and h, and give what was seen."""
    seen = Seen(**options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = compile(file.read_bytes(), str(file), "exec")
    run_code(code, seen, self=Holder(), pair=pair)
    return seen


def run_code(code: Any, seen: Seen, **names: Any) -> None:
    """Run code with probes named x, w, y and h that report to `seen`."""
    exec(code, {name: Probe(seen) for name in "xwyh"} | names)
