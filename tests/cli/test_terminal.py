"""What a terminal gets: colours and a pager there, plain text elsewhere, and a quiet end."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Prompt
from tracer.cli import terminal

SCRIPT = """
import sys
from tracer.cli import terminal
print("color", terminal.wants_color(), flush=True)
terminal.print_lines(f"line {number}" for number in range(int(sys.argv[1])))
"""


def on_terminal(prompt: Prompt, *arguments: str, **env: str) -> str:
    """What a terminal of 80 columns shows of a Python command's output."""
    ours, theirs = pty.openpty()
    changed = {**os.environ, "TERM": "xterm", "COLUMNS": "80", **env}
    process = subprocess.Popen(
        [sys.executable, *arguments], stdin=theirs, stdout=theirs, stderr=theirs,
        cwd=prompt.folder, env=changed, close_fds=True,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:  # the other side has closed, as Linux says it
        pass
    process.wait(timeout=60)
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


def test_a_terminal_gets_colours_and_the_pager(prompt: Prompt) -> None:
    prompt.write("show.py", SCRIPT)
    shown = on_terminal(prompt, "show.py", "3", PAGER="sed 's/^/paged /'")
    assert shown == "color True\npaged line 0\npaged line 1\npaged line 2\n"


@pytest.mark.parametrize("pager", ["", "cat"])
def test_no_pager_is_a_pager_too(prompt: Prompt, pager: str) -> None:
    prompt.write("show.py", SCRIPT)
    shown = on_terminal(prompt, "show.py", "2", PAGER=pager, NO_COLOR="1")
    assert shown == "color False\nline 0\nline 1\n"


def test_a_pager_that_stops_reading_ends_it_quietly(prompt: Prompt) -> None:
    prompt.write("show.py", SCRIPT)
    shown = on_terminal(prompt, "show.py", "200000", PAGER="head -n 1")
    assert shown == "color True\nline 0\n"


def test_our_own_pager_has_the_last_word(prompt: Prompt) -> None:
    prompt.write("show.py", SCRIPT)
    shown = on_terminal(prompt, "show.py", "1", PAGER="false", TRACER_PAGER="cat -n")
    assert shown.split() == ["color", "True", "1", "line", "0"]


def test_a_pipe_gets_neither(prompt: Prompt) -> None:
    prompt.write("show.py", SCRIPT)
    ran = prompt.python("show.py", "2", env={"PAGER": "false"})
    assert (ran.out, ran.err) == ("color False\nline 0\nline 1\n", "")


def test_what_raises_before_the_first_line_prints_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def lines():
        raise ValueError("no")
        yield ""

    with pytest.raises(ValueError, match="no"):
        terminal.print_lines(lines())
    assert capsys.readouterr().out == ""


def test_what_raises_later_has_printed_what_came_before(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def lines() -> Iterator[str]:
        yield from "abcde"
        raise ValueError("the rest is damaged")

    with pytest.raises(ValueError, match="damaged"):
        terminal.print_lines(lines())
    assert capsys.readouterr().out == "a\nb\nc\nd\ne\n"


def test_many_lines_are_written_by_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting(io.StringIO):
        writes = 0

        def write(self, text: str) -> int:
            self.writes += 1
            return super().write(text)

    out = Counting()
    monkeypatch.setattr(sys, "stdout", out)
    assert terminal.print_lines(f"line {number}" for number in range(20_000))
    assert out.getvalue() == "".join(f"line {number}\n" for number in range(20_000))
    assert out.writes < 40


def test_nothing_printed_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert terminal.print_lines([]) is False
    assert terminal.print_lines(["one"]) is True
    assert capsys.readouterr().out == "one\n"


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False), ({}, False)],
)
def test_variables_overrule_the_terminal(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], wanted: bool
) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert terminal.wants_color() is wanted


def test_a_timeline_on_a_terminal_is_coloured_and_as_wide(prompt: Prompt, tmp_path: Path) -> None:
    prompt.write(
        "show.py",
        """
        import sys
        from tracer import api
        from tracer.cli import program
        from tests.builders import hooks
        api.load = lambda path: api.Trace(hooks())
        open("run.trace", "w").close()
        sys.argv = ["tracer", "timeline", "run.trace", "--pass", "1"]
        program.run()
        """,
    )
    root = str(Path(__file__).parent.parent.parent)
    shown = on_terminal(prompt, "show.py", PAGER="cat", PYTHONPATH=root)
    assert "\x1b[33m" in shown
    assert "\x1b[1mpass 1" in shown
