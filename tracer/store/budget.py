"""A trace that grows and a number of bytes in; whether what comes next still fits out."""

from __future__ import annotations

import sqlite3
from pathlib import Path

_SLACK = 98_304
"""The index of the log (32 kB), the journal of a moment at the end, and pages half full."""
_STEP = 64


class Budget:
    """Keeps a trace's file and the log beside it within a number of bytes.

    The log holds what was written since the last checkpoint, which comes after each transaction: so
    the file must leave room for one more. A reader can keep the log from being emptied for a while.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: Path | None, *, most: int, flush_bytes: int
    ) -> None:
        self._connection = connection
        self._log = None if path is None else path.with_name(f"{path.name}-wal")
        self._most = most
        self._flush_bytes = flush_bytes
        self._page: int = self._ask("page_size")

    def shortage(self, coming: int) -> int:
        """How many bytes too many the files would take with so many more; negative: how few."""
        free = self._page * self._ask("freelist_count")
        size = self._page * self._ask("page_count") + max(coming - free, 0)
        return size + self._log_size() + max(coming, self._flush_bytes) + _SLACK - self._most

    def empty_log(self) -> None:
        """Move what the log holds into the file, unless a reader still needs it where it is."""
        if self._log is not None:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    @property
    def log_is_held(self) -> bool:
        """Whether a reader still needs what the log holds."""
        return self._log_size() > 0

    def shrink(self, wanted: int) -> None:
        """Give free pages back to the disk, as far as so many bytes."""
        while wanted > 0 and self._ask("freelist_count"):
            self._connection.execute(f"PRAGMA incremental_vacuum({_STEP})").fetchall()
            self.empty_log()
            wanted -= _STEP * self._page

    def _log_size(self) -> int:
        try:
            return 0 if self._log is None else self._log.stat().st_size
        except FileNotFoundError:
            return 0

    def _ask(self, name: str) -> int:
        number: int = self._connection.execute(f"PRAGMA {name}").fetchone()[0]
        return number
