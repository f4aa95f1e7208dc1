"""How the command ends: at once where it only read a trace, and as Python does after a script."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.store.recordings import GRAPH, LEAF, write

TELLING = """
import atexit, gc
atexit.register(lambda: print("frozen:", gc.get_freeze_count() > 0))
"""
TRACER = f"{TELLING}\nfrom tracer.cli import main\nmain()"


def ending(*arguments: str) -> str:
    """Run Python, and return the last line it writes."""
    ran = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    return ran.stdout.splitlines()[-1]


@pytest.mark.parametrize("command", ["show", "timeline"])
def test_what_a_trace_was_read_into_is_not_looked_through_at_the_end(
    tmp_path: Path, command: str
) -> None:
    trace = write(tmp_path / "a.trace", GRAPH, LEAF)
    assert ending("-c", TRACER, command, str(trace)) == "frozen: True"


def test_what_a_script_leaves_is_collected_as_ever(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(TELLING)
    assert ending("-m", "tracer", "run", "--quiet", str(script)) == "frozen: False"
