"""A file name as it was typed in; the trace it names, or an error that says what to do, out."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path

from tracer import api
from tracer.errors import TraceFileError

SQLITE = b"SQLite format 3\0"


def open_trace(path: Path) -> api.Trace:
    """Load a trace. Raise `TraceFileError` where it is missing, with the name that may be meant."""
    if not path.exists() and suggest(path):
        raise TraceFileError(f"there is no file {path}{suggest(path)}")
    return api.load(path)


def check_output(path: Path) -> None:
    """Raise `TraceFileError` where a trace cannot be written to `path`, before anything has run."""
    if path.is_dir():
        raise TraceFileError(f"{path} is a folder: name a file in it with -o")
    check_folder(path)
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise TraceFileError(f"{path} cannot be written: choose another place with -o")
    if path.is_file() and not _may_overwrite(path):
        raise TraceFileError(f"{path} exists and is no trace: choose another name with -o")


def check_folder(path: Path) -> None:
    """Raise `TraceFileError` where the folder that `path` is to lie in does not exist."""
    if not path.absolute().parent.is_dir():
        raise TraceFileError(f"no folder {path.parent} to write {path.name} to: make it first")


def suggest(path: Path) -> str:
    """Return ` (did you mean train.py?)` where the folder has a name like it, else nothing."""
    folder = path.parent
    if not folder.is_dir():
        return ""
    near = get_close_matches(path.name, sorted(entry.name for entry in folder.iterdir()), n=1)
    return f" (did you mean {folder / near[0]}?)" if near else ""


def _may_overwrite(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(SQLITE)) in (SQLITE, b"")
