"""A connection in; its transactions committed, in a thread where the disk keeps one waiting."""

from __future__ import annotations

import _thread
import os
import sqlite3
import time
import weakref

_SLOW_NS = 20_000_000
"""A commit of a quarter of a megabyte to a disk that keeps up takes a fiftieth of this."""
_LOOK_S = 0.001


class Commits:
    """Commits the transactions of one connection, one at a time.

    The disk is waited for in a commit and nowhere else: until then, what is inserted lies in
    SQLite's pages. Where the last commit was slow, the next one runs in a thread that lasts as long
    as it does, so that nobody waits for it; on a disk that keeps up, no thread is made.

    The thread makes that one call and no object: no garbage is collected in it, and so none of the
    program's finalizers run there. It is none of those that `threading` lists. A fork waits for it,
    as a child would have SQLite's locks as they were, and not the thread that would release them.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._busy = _thread.allocate_lock()
        self._failed: list[Exception] = []
        self._took_ns = 0
        _all[:] = [ref for ref in _all if ref() is not None]
        _all.append(weakref.ref(self))

    @property
    def under_way(self) -> bool:
        """Whether a thread is committing now: the connection must not be used."""
        return self._busy.locked()

    def commit(self, *, wait: bool) -> None:
        """Commit, or, without `wait` and where the disk is slow, see to it that this begins.

        Raises sqlite3.Error for a commit that failed here.
        """
        if wait or self._took_ns < _SLOW_NS or not self._begin_thread():
            began = time.monotonic_ns()
            self._connection.commit()
            self._took_ns = time.monotonic_ns() - began

    def _begin_thread(self) -> bool:
        try:
            self._busy.acquire()
        except BaseException:  # a signal
            if self._busy.locked():
                self._busy.release()
            raise
        try:
            _thread.start_new_thread(self._run, ())
        except RuntimeError:  # no more threads: the interpreter is about to end
            self._busy.release()
            return False
        return True

    def _run(self) -> None:
        try:
            began = time.monotonic_ns()
            self._connection.commit()
            self._took_ns = time.monotonic_ns() - began
        except Exception as error:
            self._failed.append(error)
        finally:
            self._busy.release()

    def wait(self) -> None:
        """Wait until no commit is under way."""
        while self._busy.locked():  # acquired, it would stay so after a signal at a bad moment
            time.sleep(_LOOK_S)

    def finish(self) -> None:
        """See that all that was to be committed is. Raises sqlite3.Error where it cannot be."""
        self.wait()
        if self._failed:
            raise self._failed.pop()
        if self._connection.in_transaction:  # the file was locked when it was tried
            self.commit(wait=True)


_all: list[weakref.ref[Commits]] = []


def _wait_for_all() -> None:
    for commits in [ref() for ref in _all]:
        if commits is not None:
            commits.wait()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_wait_for_all)
