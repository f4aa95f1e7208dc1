"""In-place writes to what nodes keep for backward: which operation did it, where, noticed or not.

PyTorch counts a tensor's writes in its version and refuses to run a node whose saved tensor has
another version than when it was saved. Writes through `.data` are not counted: the node then
computes from what was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from tracer.capture.readings import address_of, runs_own_code
from tracer.capture.saved import held_tensors
from tracer.records.events import SavedWrite

if TYPE_CHECKING:
    from tracer.capture.live_pass import LivePass
    from tracer.capture.session import Session

_REFUSED = re.compile(
    r"modified by an inplace operation.* is at version (\d+); expected version (\d+) instead"
)
_MOST_HANDLES = 4096
MOST_WRITES = 4096
"""How many writes the mode remembers."""


class _Written(NamedTuple):
    """A write that the mode noted: `version` is what it made it, `how` a string id."""

    seq: int
    address: int
    version: int
    how: int
    site: int


class SavedWrites:
    """Tells which writes changed what the nodes of a pass had kept."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.handles: dict[int, None] = {}
        self._texts: dict[int, str] = {}

    def id_of(self, how: str) -> int:
        """The string id by which the mode knows a way to write."""
        number = self._session.recorder.writer.string(how)
        self._texts[number] = how
        return number

    def handle_taken(self, data: Tensor) -> None:
        """Know that what is written through `x.data` counts as no version of `x`."""
        address = address_of(data)
        if not address:  # it has no elements of its own to write to
            return
        if len(self.handles) >= _MOST_HANDLES:
            del self.handles[next(iter(self.handles))]
        self.handles[address] = None

    def pass_begins(self, live: LivePass) -> None:
        """Enter writes through `.data` since the nodes of the pass kept what they read."""
        if not self.handles:
            return
        oldest = self._made_at(min(live.walk.sequence_nrs))
        writes = [write for write in self._writes(oldest) if write.address in self.handles]
        if not writes:
            return
        for number, sequence_nr in enumerate(live.walk.sequence_nrs):
            made = self._made_at(sequence_nr)
            later = [write for write in writes if write.seq > made]
            for attribute, write in self._into(live, number, later):
                self._enter(live, number, attribute, write, None)

    def pass_raised(self, live: LivePass, error: BaseException) -> None:
        """Enter the writes that PyTorch refuses to run a node for."""
        refused = _REFUSED.search(str(error))
        if refused is None or live.failed_at is None:
            return
        now, expected = int(refused[1]), int(refused[2])
        made = self._made_at(live.walk.sequence_nrs[live.failed_at])
        writes = [write for write in self._writes(made) if expected < write.version <= now]
        for attribute, write in self._into(live, live.failed_at, writes):
            self._enter(live, live.failed_at, attribute, write, write.version)

    def _writes(self, since: int) -> list[_Written]:
        """The writes since then; where there were too many, the newest, and it is said."""
        writes = [_Written(*write) for write in self._session.mode.writes(since)]
        if since and len(writes) == MOST_WRITES:
            why = "writes too long ago to say whether they changed what a node had kept"
            self._session.recorder.writer.dropped(why)
        return writes

    def _made_at(self, sequence_nr: int) -> int:
        """The order number of the operation that made a node; 0 where that is not known."""
        made = self._session.made_by(sequence_nr)
        return made[4] if made is not None else 0

    def _into(
        self, live: LivePass, number: int, writes: list[_Written]
    ) -> Iterator[tuple[str, _Written]]:
        """The writes into the memory of what a node keeps, with the name it keeps it under."""
        if not writes:
            return
        for attribute, held in held_tensors(live.walk.fns[number]):
            begin, end = _memory_of(held)
            for write in writes:
                if begin <= write.address < end:
                    yield attribute, write

    def _enter(
        self, live: LivePass, node: int, attribute: str, write: _Written, version: int | None
    ) -> None:
        recorder = self._session.recorder
        recorder.emit(
            SavedWrite(
                **{**recorder.stamp(), "pass_id": live.state.id},
                node=node,
                attribute=attribute,
                how=self._texts.get(write.how, ""),
                version=version,
                site=recorder.site(write.site),
            )
        )


def _memory_of(held: Any) -> tuple[int, int]:
    """The addresses of a tensor's storage: where it begins, and where it has ended."""
    if not isinstance(held, Tensor) or held.layout is not torch.strided or runs_own_code(held):
        return 0, 0
    try:
        storage = held.untyped_storage()
        return storage.data_ptr(), storage.data_ptr() + storage.nbytes()
    except RuntimeError:  # wrappers have none
        return 0, 0
