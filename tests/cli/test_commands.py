"""The commands that read a trace, on hand-made ones: what they print, write and refuse."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from tests.builders import hooks, vector_jacobian
from tests.cli.conftest import Prompt
from tracer import api
from tracer.cli import program
from tracer.cli.program import COMMANDS, tracer
from tracer.records import TraceRecord


def invoke(*arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(tracer, arguments, catch_exceptions=False)


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that `api.load` answers for with the hand-made trace of the second example."""
    return stand_in(hooks(), tmp_path, monkeypatch)


def stand_in(record: TraceRecord, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make `folder` the current one, with a `run.trace` that loads as `record`; return its path."""
    (folder / "run.trace").touch()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(api, "load", lambda path: api.Trace(record))
    return folder / "run.trace"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_listed_as_it_describes_itself(name: str) -> None:
    command = tracer.get_command(click.Context(tracer), name)
    assert command is not None
    assert COMMANDS[name] == command.get_short_help_str(limit=200)
    assert f"{name} " in invoke("--help").output


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS), ["docs", "build"]])
def test_every_help_has_an_example(words: list[str]) -> None:
    help_text = invoke(*words, "--help").output
    assert "Example" in help_text
    assert f"\n  {' '.join(['tracer', *words])} " in help_text or "\n    tracer " in help_text


def test_a_mistyped_command_gets_the_one_that_is_like_it() -> None:
    result = invoke("tmeline")
    assert result.exit_code == 2
    assert "Error: no command `tmeline`. Did you mean `tracer timeline`?" in result.output


def test_a_command_unlike_any_gets_the_list() -> None:
    assert "`tracer --help` lists them." in invoke("frobnicate").output


def test_the_version_is_the_installed_one() -> None:
    assert invoke("--version").output.startswith("tracer 0.")


def test_show_prints_the_table(trace: Path) -> None:
    result = invoke("show", str(trace))
    assert result.exit_code == 0
    assert "v.backward" in result.output


def test_timeline_prints_the_lines_of_all_passes_or_one(trace: Path) -> None:
    every, first = invoke("timeline", "run.trace"), invoke("timeline", "run.trace", "--pass", "1")
    assert every.output == api.Trace(hooks()).timeline() + "\n"
    assert first.output == api.Trace(hooks()).timeline(pass_id=1) + "\n"


def test_timeline_writes_json_lines_to_a_file(trace: Path) -> None:
    result = invoke("timeline", "run.trace", "--format", "jsonl", "-o", "run.jsonl")
    assert result.output == ""
    lines = list(api.Trace(hooks()).timeline_lines(form="jsonl"))
    assert Path("run.jsonl").read_text(encoding="utf-8").splitlines() == lines


@pytest.mark.parametrize(
    ("name", "form"), [("t.jsonl", "jsonl"), ("t.csv", "csv"), ("t.JSON", "chrome"), ("t", "text")]
)
def test_timeline_writes_the_format_that_the_name_asks_for(
    trace: Path, name: str, form: str
) -> None:
    assert invoke("timeline", "run.trace", "-o", name).exit_code == 0
    lines = list(api.Trace(hooks()).timeline_lines(form=form))
    assert Path(name).read_text(encoding="utf-8").splitlines() == lines


def test_timeline_picks_events_by_kind_name_and_module(trace: Path) -> None:
    result = invoke("timeline", "run.trace", "--kind", "accumulate,hook", "--name", "v")
    assert [line.split()[2] for line in result.output.splitlines()[1:]] == [
        "tensor", "accumulate", "tensor", "accumulate",
    ]  # fmt: skip


def test_draw_without_a_file_prints_lines_of_text_and_writes_nothing(trace: Path) -> None:
    result = invoke("draw", "run.trace", "--pass", "1")
    assert result.output.startswith("v.backward(torch.tensor([1.0, 1.0, 2.0]))   hooks.py:7")
    assert "▲ hook: grad * grad" in result.output
    assert os.listdir() == ["run.trace"]


@pytest.mark.parametrize(
    ("name", "magic"), [("g.svg", b"<?xml"), ("g.PNG", b"\x89PNG"), ("g.pdf", b"%PDF")]
)
def test_draw_writes_the_format_that_the_name_asks_for(
    trace: Path, name: str, magic: bytes
) -> None:
    assert invoke("draw", "run.trace", "-o", name, "--pass", "1").exit_code == 0
    assert Path(name).read_bytes().startswith(magic)


def test_draw_takes_the_resolution_of_a_png(trace: Path) -> None:
    invoke("draw", "run.trace", "-o", "small.png", "--dpi", "50")
    invoke("draw", "run.trace", "-o", "large.png", "--dpi", "200")
    assert Path("large.png").stat().st_size > Path("small.png").stat().st_size


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["timeline", "run.trace", "--format", "yaml"], "'yaml' is not one of"),
        (
            ["timeline", "run.trace", "--kind", "nodes"],
            "'nodes' is none: there are accumulate, cut",
        ),
        (["timeline", "run.trace", "--pass", "x"], "'x' is no pass: 3, 3-7 or all."),
        (["draw", "run.trace", "--dpi", "3"], "3 is not in the range"),
        (["draw", "run.trace", "--dpi", "90"], "--dpi is for a picture: name its file with -o"),
        (["draw", "run.trace", "--like", "torchviz"], "--like is for a picture"),
        (["draw"], "Missing argument 'FILE'"),
    ],
)
def test_misuse_is_status_2(trace: Path, arguments: list[str], error: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert error in result.output


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ["draw", "run.trace", "--pass", "7"],
            "there is no pass 7 in this trace: it has passes 1 to 2",
        ),
        (["timeline", "run.trace", "--pass", "0"], "there is no pass 0"),
        (
            ["timeline", "run.trace", "--name", "vv"],
            "no event of this trace matches --name vv (did you mean v?)",
        ),
        (["timeline", "run.trace", "--since", "epoch 1"], "there is no mark 'epoch 1'"),
        (
            ["draw", "run.trace", "-o", "g.gif"],
            "cannot draw to 'g.gif': end its name in one of .svg",
        ),
        (["draw", "run.trace", "-o", "no/g.svg"], "no folder no to write g.svg to"),
        (["show", "rnu.trace"], "there is no file rnu.trace (did you mean run.trace?)"),
    ],
)
def test_a_refusal_is_one_line_and_status_1(
    trace: Path,
    arguments: list[str],
    error: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["tracer", *arguments])
    with pytest.raises(SystemExit) as ended:
        program.run()
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"tracer: {error}")


def test_a_pass_that_is_not_there_leaves_no_file(trace: Path) -> None:
    for command in (["timeline", "-o", "x"], ["draw", "-o", "x.svg"]):
        with pytest.raises(Exception, match="there is no pass 9"):
            invoke(*command, "run.trace", "--pass", "9")
    assert sorted(os.listdir()) == ["run.trace"]


def test_names_in_any_script_survive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(vector_jacobian(), tmp_path, monkeypatch)
    assert (
        invoke("draw", "run.trace", "-o", "梯度.svg").output
        == "梯度.svg: pass 1 of 1, drawn by pygraphviz\n"
    )


MISSING = "tracer: there is no file x.trace: record one with `tracer run script.py`\n"


def test_a_missing_trace_says_how_to_make_one(prompt: Prompt) -> None:
    for command in ("show", "draw", "timeline"):
        result = prompt.tracer(command, "x.trace")
        assert (result.status, result.out, result.err) == (1, "", MISSING)


def test_a_file_that_is_no_trace_is_refused(prompt: Prompt) -> None:
    prompt.write("notes.txt", "not a trace")
    result = prompt.tracer("show", "notes.txt")
    assert result.status == 1
    assert result.err.startswith("tracer: notes.txt is not a trace")


def test_what_the_system_refuses_is_one_line(
    trace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("g.dot").symlink_to("g.dot")
    monkeypatch.setattr(sys, "argv", ["tracer", "timeline", "run.trace", "-o", "g.dot"])
    with pytest.raises(SystemExit) as ended:
        program.run()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "tracer: g.dot: Too many levels of symbolic links\n"


def test_a_reader_that_goes_away_ends_it_quietly(prompt: Prompt) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITE_MUCH], cwd=prompt.folder, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, b"")


WRITE_MUCH = """
import os, sys
from tracer import api
from tracer.cli import program

class Much:
    def timeline_lines(self, *_, **__):
        return ("a line" for _ in range(100_000))

reader, writer = os.pipe()
os.dup2(writer, 1)
os.close(reader)
open("run.trace", "w").close()
api.load = lambda path: Much()
sys.argv = ["tracer", "timeline", "run.trace"]
program.run()
"""

LIST_MODULES = """
import sys
sys.argv = ["tracer", {arguments}]
try:
    from tracer.cli import main
    main()
finally:
    print("MODULES", *sys.modules, file=sys.stderr)
"""


LIST_MODULES_OF_CLICK = """
import sys, click
try:
    click.command()(lambda: None)(["--help"])
finally:
    print("MODULES", *sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        ("'--help'", {"torch", "graphviz", "sqlite3", "rich"}),
        ("'show', 'x.trace'", {"torch", "graphviz", "pygraphviz", "jinja2"}),
        ("'timeline', 'x.trace'", {"torch", "graphviz", "pygraphviz", "rich", "jinja2"}),
        ("'draw', 'x.trace'", {"torch", "jinja2"}),
    ],
)
def test_reading_imports_only_what_it_needs(
    prompt: Prompt, arguments: str, unwanted: set[str]
) -> None:
    result = prompt.python("-c", LIST_MODULES.format(arguments=arguments))
    loaded = set(result.err.partition("MODULES")[2].split())
    assert "click" in loaded
    assert loaded & unwanted == set()


def test_help_imports_click_and_nothing_else(prompt: Prompt) -> None:
    result = prompt.python("-c", LIST_MODULES.format(arguments="'--help'"))
    loaded = set(result.err.partition("MODULES")[2].split())
    alone = prompt.python("-c", LIST_MODULES_OF_CLICK)
    others = set(alone.err.partition("MODULES")[2].split())
    assert loaded - others == {"tracer", "tracer.cli", "tracer.cli.program", "tracer.errors"}
