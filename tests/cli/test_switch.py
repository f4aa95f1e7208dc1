"""`TRACER=1 python train.py`: what is recorded, as `tracer run` would, and what is left alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import venv
from pathlib import Path

import pytest

from tests.cli.conftest import Prompt, Ran
from tracer import api
from tracer.cli.switch import read_words, script_of
from tracer.errors import OptionError
from tracer.records import Accumulate, TraceRecord

ROOT = Path(__file__).parent.parent.parent
SWITCH = ROOT / "autograd_tracer.pth"
TRAIN = """
    import sys
    import torch
    weight = torch.ones(2, requires_grad=True)
    for _ in range(5):
        (weight * 2).sum().backward()
    print(sys.argv)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python that the project is installed for, with its .pth file, as by pip."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    others = [entry for entry in sys.path if entry.endswith("site-packages")]
    (packages / "others.pth").write_text("\n".join([str(ROOT), *others]), encoding="utf-8")
    shutil.copy(SWITCH, packages)
    return str(folder / "bin" / "python")


def run(python: str, prompt: Prompt, *arguments: str, **env: str) -> Ran:
    """Run that Python with the arguments and these variables."""
    done = subprocess.run(
        [python, *arguments],
        capture_output=True,
        text=True,
        cwd=prompt.folder,
        env={**os.environ, **env},
        timeout=120,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def traces(prompt: Prompt) -> list[str]:
    """Return the names of the traces that lie there."""
    return sorted(path.name for path in prompt.folder.glob("*.trace*"))


def test_a_script_is_recorded_as_by_tracer_run(python: str, prompt: Prompt) -> None:
    prompt.write("train.py", TRAIN)
    assert run(python, prompt, "train.py", "-x", "y", TRACER="1") == Ran(
        0,
        "['train.py', '-x', 'y']\n",
        "tracer: train.trace: 5 passes over 1 graph: 2 nodes, 1 leaf\n"
        "  tracer show train.trace\n"
        "  tracer draw train.trace -o train.svg\n"
        "  tracer timeline train.trace\n",
    )
    assert traces(prompt) == ["train.trace"]
    assert api.load(prompt.folder / "train.trace").record.run.argv == ("train.py", "-x", "y")


def test_words_say_how_and_where_to(python: str, prompt: Prompt) -> None:
    prompt.write("package/train.py", TRAIN)
    said = "every=2 last=2 quiet output='a b.trace'"
    result = run(python, prompt, "-m", "package.train", TRACER=said)
    assert result.err == ""
    record = api.load(prompt.folder / "a b.trace").record
    assert [one.id for one in record.passes] == [3, 5]
    assert record.run.limits == "every=2 last=2"


def test_everything_a_recording_can_be_told_has_its_word(python: str, prompt: Prompt) -> None:
    prompt.write("train.py", TRAIN)
    result = run(python, prompt, "train.py", TRACER="quiet torchviz library_frames follow")
    assert result.err.startswith(" pass·#")
    assert result.err.count("pass ends") == 5
    assert "tracer show" not in result.err


def load(prompt: Prompt) -> TraceRecord:
    """Read the trace of `train.py`."""
    return api.load(prompt.folder / "train.trace").record


@pytest.mark.parametrize(
    ("said", "kinds", "read"),
    [
        ("detail=structure", {"accumulate", "forward", "node", "pass_begin", "pass_end"}, None),
        (
            "detail=values:1 only=kind:accumulate every=2 last=2",
            {"accumulate", "pass_begin", "pass_end"},
            None,
        ),
    ],
)
def test_levels_are_the_same_by_every_door(
    python: str, prompt: Prompt, said: str, kinds: set[str], read: float | None
) -> None:
    prompt.write("train.py", TRAIN)
    words = dict(word.split("=") for word in said.split())
    run(python, prompt, "train.py", TRACER=said)
    switched = load(prompt)
    options = [part for name, value in words.items() for part in (f"--{name}", value)]
    run(python, prompt, "-m", "tracer", "run", *options, "train.py")
    ran = load(prompt)
    with api.trace(**words) as trace:  # type: ignore[arg-type]
        exec(compile(textwrap.dedent(TRAIN), "train.py", "exec"), {})
    for record in (switched, ran, trace.record):
        assert {event.kind for event in record.events} == kinds
        added = [e.incoming for e in record.events if isinstance(e, Accumulate)]
        assert {one.values[0] if one.values else None for one in added if one} <= {read}
    assert switched.run.limits == ran.run.limits == trace.record.run.limits
    assert switched.dropped == ran.dropped == trace.record.dropped


@pytest.mark.parametrize("said", ["0", "off", "No", ""])
def test_it_can_be_switched_off(python: str, prompt: Prompt, said: str) -> None:
    prompt.write("script.py", "import sys; print([type(one).__name__ for one in sys.meta_path])")
    assert "TorchWatch" not in run(python, prompt, "script.py", TRACER=said).out
    assert "TorchWatch" in run(python, prompt, "script.py", TRACER="1").out


def test_a_wrong_word_is_said_and_the_script_runs(python: str, prompt: Prompt) -> None:
    prompt.write("train.py", TRAIN)
    result = run(python, prompt, "train.py", TRACER="every=0")
    assert (result.status, result.out) == (0, "['train.py']\n")
    assert result.err.startswith("tracer: nothing is recorded: OptionError: every=0: N must be")
    assert traces(prompt) == []


def test_nothing_is_kept_of_what_trains_nothing(python: str, prompt: Prompt) -> None:
    prompt.write("other.py", "import torch")
    result = run(python, prompt, "other.py", TRACER="1")
    assert result.err == "tracer: other.py: no backward pass ran, so no trace is kept\n"
    assert traces(prompt) == []


def test_what_is_no_script_is_left_alone(python: str, prompt: Prompt) -> None:
    code = "import torch; torch.ones(1, requires_grad=True).sum().backward()"
    assert run(python, prompt, "-c", code, TRACER="1") == Ran(0, "", "")
    assert traces(prompt) == []


def test_each_process_has_a_trace_of_its_own(python: str, prompt: Prompt) -> None:
    prompt.write("train.py", TRAIN)
    prompt.write(
        "start.py",
        """
        import os, subprocess, sys
        import torch
        torch.ones(1, requires_grad=True).sum().backward()
        for rank in range(2):
            env = {**os.environ, "RANK": str(rank), "WORLD_SIZE": "2"}
            subprocess.run([sys.executable, "train.py"], env=env, check=True)
        subprocess.run([sys.executable, "start.py"] if len(sys.argv) == 2 else ["true"], check=True)
        """,
    )
    run(python, prompt, "start.py", TRACER="quiet")
    assert traces(prompt) == ["start.trace", "train.rank0.trace", "train.rank1.trace"]
    run(python, prompt, "start.py", "again", TRACER="quiet")
    names = traces(prompt)
    assert len(names) == 4
    assert all(api.load(prompt.folder / name).record.complete for name in names)


def test_tracer_run_goes_before_the_switch(python: str, prompt: Prompt) -> None:
    prompt.write("train.py", TRAIN)
    result = run(python, prompt, "-m", "tracer", "run", "--last", "1", "train.py", TRACER="1")
    assert result.err.startswith("tracer: train.trace: 1 pass over 1 graph")
    assert traces(prompt) == ["train.trace"]


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("python train.py a -m b", ("train.py", False, 4)),
        ("python -u -W ignore -X dev train.py", ("train.py", False, 1)),
        ("python -uWignore -Xdev train.py a", ("train.py", False, 2)),
        ("python --check-hash-based-pycs never train.py", ("train.py", False, 1)),
        ("python -m package.train --epochs 3", ("package.train", True, 3)),
        ("python -Im package.train x", ("package.train", True, 2)),
        ("python -mpackage.train x", ("package.train", True, 2)),
        ("python -c pass train.py", None),
        ("python - train.py", None),
        ("python", None),
    ],
)
def test_the_script_is_found_among_pythons_own_options(
    command: str, found: tuple[str, bool, int] | None
) -> None:
    assert script_of(command.split()) == found


def test_words_are_checked() -> None:
    assert read_words("1") == read_words("on") == {}
    assert read_words("every=2 quiet 'output=a b'") == {
        "every": "2", "quiet": "1", "output": "a b",
    }  # fmt: skip
    for wrong in ("2", "fast", "evry=2", "quiet=yes"):
        with pytest.raises(OptionError, match=f"^TRACER={wrong}: {wrong} is none of every=…"):
            read_words(wrong)
