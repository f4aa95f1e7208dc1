"""A script or module with its arguments in; Python itself, about to run it and to record, out.

The script is not run inside the `tracer` command: that turns into `python script.py args…`, in the
same process, and a `sitecustomize` on PYTHONPATH makes that Python record. So what an interpreter
does around a script (`__main__`, `sys.path`, tracebacks, exit status, signals, threads, `atexit`)
is done by the interpreter, and no frame of ours lies under the script.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipimport
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from getopt import getopt
from pathlib import Path
from typing import NoReturn

from tracer.cli.farewell import describe_nothing
from tracer.cli.files import suggest
from tracer.errors import ScriptError

BOOT = Path(__file__).parent / "boot"
PYTHON_OPTIONS = "bBc:dEiIm:OPqRsSuvW:xX:"
PYTHON_OPTIONS_LEFT_OUT = ("-m", "-c", "-x", "-E", "-I", "-S")
"""What named this command instead of the script, and what would keep Python from recording."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to record: `output` is the trace's absolute path, `shown` the path as it was typed.

    `limits` are the options of the recording by name, as they were typed; `follow` are the fields
    of the selection of events to print as they happen, None for none. `words` is how many words
    of Python's command line are the script and its arguments; the words themselves may be too long
    for a variable. `switched` is a job that the variable TRACER asked for: of a process that many
    others may be like, so that a trace without passes is not worth a file.
    """

    script: str
    words: int
    output: str
    shown: str
    limits: Mapping[str, str] = field(default_factory=dict)
    follow: Mapping[str, tuple[str, ...]] | None = None
    follow_to: str | None = None
    torchviz: bool = False
    library_frames: bool = False
    quiet: bool = False
    switched: bool = False

    def to_text(self) -> str:
        """Return the job as a line for the environment."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Job:
        """Read back what `to_text` wrote."""
        return cls(**json.loads(text))


def check_script(script: str) -> None:
    """Raise `ScriptError` for what `python` could not start: missing, unreadable, no `__main__`."""
    if script == "-":
        raise ScriptError("a script on standard input cannot be traced: save it to a file first")
    path = Path(script)
    if not path.exists():
        raise ScriptError(f"there is no script {script}{suggest(path)}")
    if path.is_dir():
        if not any((path / name).exists() for name in ("__main__.py", "__main__.pyc")):
            raise ScriptError(f"{script} is a folder without a __main__.py: name a script in it")
    elif not os.access(path, os.R_OK):
        raise ScriptError(f"{script} cannot be read: check its permissions")
    elif _is_archive(path) and not _has_main(path):
        raise ScriptError(f"{script} is an archive without a __main__.py")


def _is_archive(path: Path) -> bool:
    try:
        zipimport.zipimporter(str(path))
    except zipimport.ZipImportError:
        return False
    return True


def _has_main(path: Path) -> bool:
    return zipimport.zipimporter(str(path)).find_spec("__main__") is not None


def default_output(target: str, *, is_module: bool) -> Path:
    """Return `script.trace` for `dir/script.py`, `name.trace` for the module `package.name`."""
    if is_module:
        return Path(f"{target.rpartition('.')[2]}.trace")
    return Path(f"{Path(target).resolve().stem}.trace")


def command_line(target: str, arguments: tuple[str, ...], *, is_module: bool) -> list[str]:
    """Return the `python` command that runs the target with this interpreter and its options."""
    return [sys.executable, *_options(), *(["-m"] if is_module else []), target, *arguments]


def _options() -> list[str]:
    """Return the options that this Python was started with and that say how a script runs."""
    given, _ = getopt(sys.orig_argv[1:], PYTHON_OPTIONS, ["check-hash-based-pycs="])
    kept = [option for option in given if option[0] not in PYTHON_OPTIONS_LEFT_OUT]
    return [word for option in kept for word in option if word]


def environment(job: Job, before: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that makes Python record `job`, and put what it changes back."""
    farewell = "" if job.quiet else describe_nothing(job.script, job.shown)
    after = {**before, "TRACER_RUN": job.to_text(), "TRACER_RUN_FAREWELL": farewell}
    if "PYTHONPATH" in before:
        after["TRACER_RUN_PYTHONPATH"] = before["PYTHONPATH"]
    after["PYTHONPATH"] = os.pathsep.join(filter(None, [str(BOOT), before.get("PYTHONPATH")]))
    return after


def become(command: list[str], variables: dict[str, str]) -> NoReturn:
    """Turn this process into `command`; on Windows, which cannot, exit as it does when it has."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name != "nt":
        os.execve(command[0], command, variables)
    process = subprocess.Popen(command, env=variables)
    while True:
        try:
            sys.exit(process.wait())
        except KeyboardInterrupt:
            continue  # the script has had it too, and decides
