"""A path in, an open connection to the trace in that file out, or one line that says why not."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import stat
import tempfile
from contextlib import closing, suppress
from pathlib import Path

from tracer.errors import TraceFileError
from tracer.store.columns import Row
from tracer.store.schema import APPLICATION_ID, DDL, SCHEMA_VERSION, insert_into, tables

_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100
_LOGS = ("-wal", "-journal")
_BESIDE = (*_LOGS, "-shm")
_PRAGMAS = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
_GUARDS = (
    "PRAGMA trusted_schema = OFF",
    "PRAGMA query_only = ON",
    "PRAGMA cell_size_check = ON",
)
_NO_TRACE = "record one with `tracer run script.py`"


class Connection(sqlite3.Connection):
    """A connection that closes itself when nobody holds it any more, without a word.

    And without a frame of Python's, in which a Ctrl-C would be raised that nobody passes on.
    """

    __del__ = sqlite3.Connection.close


def is_trace(path: Path) -> bool:
    """Whether the file's header is that of a trace."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    return header.startswith(_MAGIC) and header[68:72] == APPLICATION_ID.to_bytes(4, "big")


def _connect(database: str | Path, *, patience_s: float = 5.0) -> sqlite3.Connection:
    return sqlite3.connect(
        database, isolation_level=None, check_same_thread=False, uri=True, factory=Connection,
        timeout=patience_s,
    )  # fmt: skip


# ---- writing


def create_file(path: Path, run: Row, *, shrinks: bool = False) -> sqlite3.Connection:
    """Make a trace at `path` that says what ran, in place of a trace that is there, and open it.

    Until the new one is whole, the old one stays. A file that `shrinks` can give back the room of
    what is deleted. Raises TraceFileError where the file can't be made, or what is there is no
    trace.
    """
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        _refuse_other_files(path)
        _write_first(fresh, run, shrinks)
        for suffix in _BESIDE:
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        os.replace(fresh, path)
        return _open_for_writing(path)
    except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)


def recording_process(path: Path) -> int | None:
    """The process that records to this file, if one of this machine does now and is another."""
    if os.name == "nt":  # where asking for a process's state by signal 0 would end it
        return None
    try:
        with closing(open_file(path)) as connection:
            row = connection.execute("SELECT complete, host, pid FROM trace").fetchone()
        complete, host, pid = row
        if complete or host != socket.gethostname() or pid == os.getpid():
            return None
        os.kill(int(pid), 0)
    except PermissionError:  # it runs, as another user
        return int(pid)
    except (OSError, sqlite3.Error, TraceFileError, TypeError, ValueError):
        return None
    return int(pid)


def _refuse_other_files(path: Path) -> None:
    if not path.exists():
        return
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise TraceFileError(f"{path} is no file that a trace could replace: choose another name")
    if status.st_size and not is_trace(path):
        raise TraceFileError(f"{path} exists and is not a trace: choose another name")
    process = recording_process(path)
    if process is not None:
        raise TraceFileError(f"process {process} is recording to {path}: choose another name")


def _write_first(path: Path, run: Row, shrinks: bool) -> None:
    path.unlink(missing_ok=True)
    path.touch(exist_ok=False)  # says why it can't, where SQLite does not
    with closing(_connect(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        if shrinks:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        _begin(connection, run)


def _begin(connection: sqlite3.Connection, run: Row) -> None:
    connection.executescript(f"BEGIN; {_PRAGMAS} {DDL} COMMIT;")
    connection.execute(insert_into("trace"), run)


def _open_for_writing(path: Path) -> sqlite3.Connection:
    connection = _connect(path, patience_s=0)
    connection.execute("PRAGMA journal_mode = WAL")
    # A process that dies loses nothing that was committed; only a machine that does, could.
    connection.execute("PRAGMA synchronous = OFF")
    # What a transaction inserts stays in memory until it is committed: it waits for the disk then.
    connection.execute("PRAGMA cache_spill = OFF")
    return connection


def create_temporary(run: Row, *, shrinks: bool = False) -> sqlite3.Connection:
    """Make a trace that only its connection knows; what memory can't hold goes to disk."""
    connection = _connect("")
    if shrinks:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = MEMORY")
    _begin(connection, run)
    return connection


def close_file(connection: sqlite3.Connection) -> None:
    """Move the log into the one file and close; while it is being read, the log stays beside it."""
    try:
        connection.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error:  # busy, or no room: the log stays, and readers know to look there
        pass
    finally:
        connection.close()


def is_locked(error: sqlite3.Error) -> bool:
    """Whether another program has locked the file, so that it can be written later."""
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def cannot_write(path: Path | None, error: Exception) -> TraceFileError:
    """The error that says that a trace can't be written, and why."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return TraceFileError(f"cannot write the trace {path or '(not saved)'}: {reason}")


# ---- reading


def open_file(path: Path) -> sqlite3.Connection:
    """Open a trace for reading only, with nothing in it run.

    Raises TraceFileError for a file that is missing, no trace, too new or damaged.
    """
    try:
        if not is_trace(path):
            raise TraceFileError(f"{path} is not a trace: {_NO_TRACE}")
    except FileNotFoundError:
        raise TraceFileError(f"there is no file {path}: {_NO_TRACE}") from None
    except OSError as error:
        raise TraceFileError(f"cannot read {path}: {error.strerror}") from error
    try:
        connection = _connect_for_reading(path)
    except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
        raise damaged(path, error) from error
    try:
        check_schema(connection, str(path))
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_for_reading(path: Path) -> sqlite3.Connection:
    """Open `path`; one whose log can't be used where it lies (a read-only place), otherwise."""
    try:
        return _guarded(f"{path.absolute().as_uri()}?mode=ro")
    except sqlite3.OperationalError:
        logs = [path.with_name(path.name + suffix) for suffix in _LOGS]
        if any(log.exists() for log in logs):
            return _connect_to_copy(path, [log for log in logs if log.exists()])
        return _guarded(f"{path.absolute().as_uri()}?mode=ro&immutable=1")


def _connect_to_copy(path: Path, logs: list[Path]) -> sqlite3.Connection:
    """Put a trace and its log together in a private temporary database."""
    whole = _connect("")
    with tempfile.TemporaryDirectory() as folder:
        for part in [path, *logs]:
            shutil.copyfile(part, Path(folder) / part.name)
        with closing(_guarded((Path(folder) / path.name).as_uri())) as copy:
            copy.backup(whole)
    return _guard(whole)


def _guarded(uri: str) -> sqlite3.Connection:
    return _guard(_connect(uri))


def _guard(connection: sqlite3.Connection) -> sqlite3.Connection:
    try:
        for pragma in _GUARDS:
            connection.execute(pragma)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def check_schema(connection: sqlite3.Connection, label: str) -> None:
    """Refuse a schema that is newer than this code, or holds what could run when it is read."""
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        made = connection.execute("SELECT type, name FROM sqlite_master").fetchall()
        computed = [name for name in tables() if _has_computed_columns(connection, name)]
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise damaged(label, error) from error
    if version > SCHEMA_VERSION:
        raise TraceFileError(
            f"{label} was written by a newer tracer (file format {version}, this one reads up to "
            f"{SCHEMA_VERSION}): upgrade autograd-tracer"
        )
    if {kind for kind, _ in made} - {"table", "index"} or computed:
        raise TraceFileError(
            f"{label} is not a trace: it holds triggers, views or computed columns"
        )
    missing = tables().keys() - {name for kind, name in made if kind == "table"}
    if version < 1 or missing:
        raise damaged(label, f"no table {min(missing)}" if missing else "no version")
    for name in tables():
        _check_columns(connection, name, label)


def _check_columns(connection: sqlite3.Connection, table: str, label: str) -> None:
    try:
        there = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise damaged(label, error) from error
    for column in tables()[table]:
        if column.name not in there:
            raise damaged(label, f"no such column: {column.name}")


def _has_computed_columns(connection: sqlite3.Connection, table: str) -> bool:
    """Whether a table is virtual or has generated columns: both run code when they are read."""
    hidden = (row[6] for row in connection.execute(f"PRAGMA table_xinfo({table})"))
    kind = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    return any(hidden) or (kind is not None and "VIRTUAL" in str(kind[0])[:30].upper())


def damaged(path: Path | str, reason: Exception | str) -> TraceFileError:
    """The error that says that a trace can't be read, and where it stopped making sense."""
    text = " ".join(str(reason).split()) or type(reason).__name__
    return TraceFileError(f"{path} is damaged: {text}")
