"""What the variable TRACER says in; the job of recording this process, as `tracer run` has, out.

TRACER=1 python train.py
TRACER="every=10 max_bytes=100MB output=first.trace" python train.py
TRACER="library_frames follow" python train.py
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from tracer.api import recording_process
from tracer.cli.launch import Job, default_output
from tracer.errors import OptionError
from tracer.records.limits import OPTIONS

_ON = ("1", "on", "yes", "true")
_FLAGS = ("torchviz", "library_frames", "follow", "quiet")
_WITH_VALUE = "WX"
_OWN = ("tracer", "torch")


def switched_job(said: str, folder: Path) -> Job | None:
    """The job for this process, which was started in `folder`; None for one not to be recorded.

    Those are code without a script (`-c`, as multiprocessing starts its workers, and a prompt) and
    what PyTorch and we start ourselves. Raises OptionError for words that are none.
    """
    words = read_words(said)
    started = script_of(sys.orig_argv)
    if started is None or _is_ours(*started[:2]):
        return None
    target, is_module, count = started
    output = words.pop("output", "")
    shown = _free(_of_rank(Path(output) if output else default_output(target, is_module=is_module)))
    torchviz, library_frames, follow, quiet = (bool(words.pop(flag, "")) for flag in _FLAGS)
    return Job(
        script=target, words=count, output=str(folder / shown), shown=str(shown), limits=words,
        follow={} if follow else None, torchviz=torchviz, library_frames=library_frames,
        quiet=quiet, switched=True,
    )  # fmt: skip


def read_words(said: str) -> dict[str, str]:
    """Read `every=10 quiet` by name. Raises OptionError for what is no word of ours."""
    if said.lower() in _ON:
        return {}
    words: dict[str, str] = {}
    for word in shlex.split(said):
        name, equals, value = word.partition("=")
        if not equals and name in _FLAGS:
            value = "1"
        elif not equals or name not in (*OPTIONS, "output"):
            known = ", ".join((*(f"{option}=…" for option in (*OPTIONS, "output")), *_FLAGS))
            raise OptionError(f"TRACER={said}: {word} is none of {known}, nor TRACER=1")
        words[name] = value
    return words


def script_of(command: Sequence[str]) -> tuple[str, bool, int] | None:
    """The script or module in Python's command line, whether it is a module, and how many words it
    and its arguments are; None where there is neither."""
    at = 1
    while at < len(command):
        word = command[at]
        if word == "-":
            return None
        if not word.startswith("-"):
            return word, False, len(command) - at
        for place, letter in enumerate(word[1:], 1):
            rest = word[place + 1 :]
            if letter == "m":
                target = rest or "".join(command[at + 1 : at + 2])
                return target, True, len(command) - at - (not rest)
            if letter == "c":
                return None
            if letter in _WITH_VALUE or word == "--check-hash-based-pycs":
                at += not rest or word.startswith("--")
                break
        at += 1
    return None


def _is_ours(target: str, is_module: bool) -> bool:
    """Whether it is a program of PyTorch's or our own, whose work is no training of the user's."""
    if is_module:
        return target.partition(".")[0] in _OWN
    path = os.path.realpath(target)
    folders = (os.path.dirname(str(sys.modules[name].__file__)) for name in _OWN)
    return any(path.startswith(folder + os.sep) for folder in folders)


def _of_rank(path: Path) -> Path:
    """`train.rank3.trace` where this is one process of several that were started as one."""
    rank = os.environ.get("RANK", "")
    several = os.environ.get("WORLD_SIZE", "1") != "1"
    return path.with_suffix(f".rank{rank}{path.suffix}") if rank.isdecimal() and several else path


def _free(path: Path) -> Path:
    """Another name where a process that still runs is recording there."""
    taken = recording_process(path)
    return path.with_suffix(f".{os.getpid()}{path.suffix}") if taken is not None else path
