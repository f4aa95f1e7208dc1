"""`tracer draw`: its options become one record of wishes, and a picture is whole or not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.builders import vector_jacobian
from tests.transforms import graphs
from tests.transforms.graphs import traced
from tracer import View, api
from tracer.cli.program import tracer
from tracer.records import TraceRecord
from tracer.render.picture import Picture


def invoke(*arguments: str) -> Result:
    """Run `tracer draw run.trace` in this process."""
    return CliRunner().invoke(tracer, ["draw", "run.trace", *arguments], catch_exceptions=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a `run.trace` that loads as a hand-made transformer."""
    return stand_in(traced(graphs.transformer(12)), tmp_path, monkeypatch)


def stand_in(record: TraceRecord, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (folder / "run.trace").touch()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(api, "load", lambda path: api.Trace(record))
    return folder


@pytest.mark.parametrize(
    ("options", "view"),
    [
        ("", View()),
        ("--budget 12", View(budget=12)),
        ("--depth 0", View(depth=0)),
        ("--expand h.3 --expand h.4", View(expand=("h.3", "h.4"))),
        ("--no-fold", View(fold=False)),
        ("--show views,saved --show views", View(show=frozenset(["views", "saved"]))),
        ("--focus h.3 --radius 0", View(focus="h.3", radius=0)),
        ("--path loss wte.weight", View(path=("loss", "wte.weight"))),
        ("--upstream h.3", View(upstream="h.3")),
        ("--downstream h.3", View(downstream="h.3")),
        ("--color zeros --direction lr", View(color="zeros", direction="LR")),
    ],
)
def test_the_options_become_one_record(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: str, view: View
) -> None:
    asked: list[Any] = []

    def draw(_: api.Trace, path: Path, wishes: View, **more: Any) -> Picture:
        asked.append((wishes, more["time_limit"]))
        return Picture(b"", "dot")

    monkeypatch.setattr(api.Trace, "draw", draw)
    result = invoke("-o", "run.svg", *options.split())
    assert result.output == "run.svg: pass 1 of 1, drawn by dot\n"
    assert asked == [(view, 10.0)]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--focus h.3.mpl", "nothing in this graph is called 'h.3.mpl'; did you mean h.3.mlp"),
        ("--expand h.33", "nothing in this graph is called 'h.33'; did you mean"),
        ("--path h.3 h.3", "h.3 and h.3 overlap; name two places apart to see a path"),
        ("--show view", "cannot show 'view'; did you mean views?"),
        ("--color tme", "cannot color by 'tme'; did you mean time?"),
        ("--focus h.1 --upstream h.2", "a picture shows one part: choose one of focus, path"),
    ],
)
def test_what_means_nothing_gets_one_line_that_helps(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: str, says: str
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["tracer", "draw", "run.trace", "-o", "run.svg", *options.split()]
    )
    from tracer.cli import program

    said: list[str] = []
    monkeypatch.setattr(program.click, "echo", lambda text, **_: said.append(text))
    with pytest.raises(SystemExit) as caught:
        program.run()
    assert (caught.value.code, len(said)) == (1, 1)
    assert said[0].startswith(f"tracer: {says}")
    assert not list(folder.glob("*.svg"))


def test_a_large_graph_comes_folded_and_says_so(folder: Path) -> None:
    assert invoke("-o", "g.dot").exit_code == 0
    text = Path("g.dot").read_text("utf-8")
    assert "493 nodes folded into 22 boxes; ×12 stands for 12 alike" in text


def test_mermaid_is_written_for_readmes(folder: Path) -> None:
    assert invoke("-o", "g.mmd").output == "g.mmd: pass 1 of 1\n"
    assert "flowchart TD" in Path("g.mmd").read_text("utf-8")


def slow_dot(folder: Path) -> dict[str, str]:
    """An environment whose `dot` reads its input, says that it has begun, and takes its time."""
    program = folder / "dot"
    program.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, sys, time\n"
        "sys.stdin.buffer.read()\n"
        "pathlib.Path('begun').touch()\n"
        "time.sleep(60)\n"
    )
    program.chmod(0o755)
    return os.environ | {"PATH": str(folder)}


SAVE = """
import sys
from tests.builders import vector_jacobian
from tracer import api
from tracer.cli import program
api.load = lambda path: api.Trace(vector_jacobian())
sys.argv = ["tracer", "draw", "run.trace", "-o", "run.svg"]
program.run()
"""


def test_an_interrupt_leaves_the_picture_that_was_there(tmp_path: Path) -> None:
    (tmp_path / "run.trace").touch()
    (tmp_path / "run.svg").write_text("the old one")
    root = str(Path(__file__).parents[2])
    drawing = subprocess.Popen(
        [sys.executable, "-c", SAVE], cwd=tmp_path, text=True, start_new_session=True,
        env=slow_dot(tmp_path) | {"PYTHONPATH": root},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(drawing.pid, signal.SIGINT)
    _, errors = drawing.communicate(timeout=30)
    assert (drawing.returncode, errors) == (
        130,
        "\n",
    )
    assert (tmp_path / "run.svg").read_text() == "the old one"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "begun", "dot", "run.svg", "run.trace"
    ]  # fmt: skip


def test_a_picture_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(vector_jacobian(), tmp_path, monkeypatch)

    def full(path: Path, data: bytes) -> int:
        path.touch()
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        invoke("-o", "g.svg")
    assert [path.name for path in tmp_path.iterdir()] == ["run.trace"]
