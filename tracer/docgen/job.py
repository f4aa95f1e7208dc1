"""What the process of a document is asked to do, and what it tells of each block: plain records."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class JobBlock:
    """One block of code: its number in the document, its first line, what to run.

    `echo` says which expressions print their value (`last`, `each`, or none). One that runs `again`
    only brings back the names of a process that is gone.
    """

    number: int
    line: int
    source: str
    echo: str = ""
    again: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """What to run: `name` is the document's file name.

    A block has `timeout` seconds, and `grace` more to end when these are up (0: any time).
    `place` is an empty folder for the trace, the results and what bypasses `sys.stdout`.
    """

    name: str
    folder: str
    text: str
    blocks: tuple[JobBlock, ...]
    place: str
    timeout: float = 0.0
    grace: float = 5.0

    @property
    def trace(self) -> Path:
        """The trace file."""
        return Path(self.place, "document.trace")

    @property
    def results(self) -> Path:
        """The file of results, a line each."""
        return Path(self.place, "results.jsonl")

    @property
    def last_words(self) -> Path:
        """The file that a dying process writes the places to where its threads are."""
        return Path(self.place, "last_words.txt")

    @property
    def modules(self) -> Path:
        """The file that lists the modules beside the document that it imported, a line each."""
        return Path(self.place, "modules.txt")

    def stream(self, name: str) -> Path:
        """The file that descriptor 1 (`stdout`) or 2 (`stderr`) of the process leads to."""
        return Path(self.place, name)

    def to_text(self) -> str:
        """Return the job as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Job:
        """Read back what `to_text` wrote."""
        fields = json.loads(text)
        blocks = tuple(JobBlock(**block) for block in fields.pop("blocks"))
        return cls(**fields, blocks=blocks)


@dataclass(frozen=True, slots=True)
class Output:
    """Text that a block wrote; `stream` is `stdout` or `stderr`."""

    stream: str
    text: str


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception that ended a block: `line` is the document's, `text` the traceback in full."""

    type: str
    message: str
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class BlockRun:
    """What a block did; `ended` is False for one that has begun and not been heard of since.

    `trace` says which of the document's traces it is in: there is one for each process. `note` says
    what became of the blocks below one that took its process along.
    """

    block: int
    outputs: tuple[Output, ...] = ()
    failure: Failure | None = None
    ended: bool = False
    again: bool = False
    trace: int = 0
    note: str = ""
