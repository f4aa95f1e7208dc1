"""`tracer run` with torch: what it records, what it says in the end, and what it leaves alone."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.builders import hooks
from tests.cli.conftest import Prompt, Ran
from tracer import api
from tracer.cli.farewell import describe_trace
from tracer.records import Pass, TraceRecord

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def passes_in(path: Path) -> list[Pass]:
    """Return the passes of a trace file."""
    return list(api.load(path).passes)


def test_an_example_is_recorded_and_the_next_commands_are_named(prompt: Prompt) -> None:
    (script,) = EXAMPLES.glob("*hooks.py")
    plain = prompt.python(str(script))
    assert prompt.tracer("run", str(script), "--its-own", "argument") == Ran(
        plain.status,
        plain.out,
        plain.err + f"tracer: {script.stem}.trace: 2 passes over 1 graph: 1 leaf\n"
        f"  tracer show {script.stem}.trace\n"
        f"  tracer draw {script.stem}.trace -o {script.stem}.svg\n"
        f"  tracer timeline {script.stem}.trace\n",
    )
    record = api.load(prompt.folder / f"{script.stem}.trace").record
    assert record.run.argv == (str(script), "--its-own", "argument")
    assert record.run.outcome == ""
    assert record.complete


def test_a_failed_script_leaves_what_ran_before(prompt: Prompt) -> None:
    prompt.write(
        "script.py",
        """
        import torch
        weight = torch.ones(2, requires_grad=True)
        weight.sum().backward()
        raise ValueError("after the first pass")
        """,
    )
    plain = prompt.python("script.py")
    assert prompt.tracer("run", "--quiet", "-o", "kept.trace", "script.py") == plain
    assert len(passes_in(prompt.folder / "kept.trace")) == 1
    assert "after the first pass" in api.load(prompt.folder / "kept.trace").record.run.outcome


def test_an_interrupt_ends_a_recorded_script_by_the_signal(prompt: Prompt) -> None:
    prompt.write(
        "script.py",
        """
        import signal, torch
        weight = torch.ones(2, requires_grad=True)
        weight.sum().backward()
        signal.raise_signal(signal.SIGINT)
        """,
    )
    plain = prompt.python("script.py")
    assert plain.status == -signal.SIGINT
    assert prompt.tracer("run", "--quiet", "script.py") == plain
    assert len(passes_in(prompt.folder / "script.trace")) == 1


def test_a_killed_script_leaves_a_trace_that_opens(prompt: Prompt) -> None:
    prompt.write(
        "script.py",
        """
        import os, signal, torch
        weight = torch.ones(2, requires_grad=True)
        for _ in range(3):
            weight.sum().backward()
        os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    assert prompt.tracer("run", "script.py").status == -signal.SIGKILL
    assert not api.load(prompt.folder / "script.trace").record.complete


def test_atexit_and_threads_are_still_recorded_after_the_script(prompt: Prompt) -> None:
    prompt.write(
        "package/train.py",
        """
        import atexit, sys, threading, time
        import torch
        weight = torch.ones(2, requires_grad=True)
        def late():
            time.sleep(0.1)
            weight.sum().backward()
        threading.Thread(target=late).start()
        atexit.register(late)
        print("end of the script")
        sys.exit(3)
        """,
    )
    result = prompt.tracer("run", "-m", "package.train")
    assert (result.status, result.out) == (3, "end of the script\n")
    assert result.err.startswith("tracer: train.trace: 2 passes over 1 graph: 1 node, 1 leaf\n")


def test_variables_that_torch_reads_when_imported_hold(prompt: Prompt) -> None:
    prompt.write(
        "script.py",
        """
        import os
        os.environ["OMP_NUM_THREADS"] = "1"
        import torch
        print(torch.get_num_threads(), type(torch.__spec__.loader), vars(torch.__loader__).keys())
        """,
    )
    plain = prompt.python("script.py", env={"OMP_NUM_THREADS": None})
    assert prompt.tracer("run", "--quiet", "script.py", env={"OMP_NUM_THREADS": None}) == plain
    assert plain.out.startswith("1 ")


def test_worker_processes_write_nothing_into_the_trace(prompt: Prompt) -> None:
    prompt.write(
        "script.py",
        """
        import multiprocessing, os, sys
        import torch
        def work(_=None):
            torch.ones(2, requires_grad=True).sum().backward()
            return "worked"
        class Rows(torch.utils.data.Dataset):
            def __len__(self):
                return 4
            def __getitem__(self, number):
                work()
                return torch.tensor(float(number), requires_grad=True).detach()
        if __name__ == "__main__":
            work()
            loader = torch.utils.data.DataLoader(Rows(), batch_size=2, num_workers=2)
            print(sum(batch.sum().item() for batch in loader))
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(pool.map(work, [0]))
            sys.stdout.flush()
            if os.fork() == 0:
                work()
                sys.exit()
            os.wait()
        """,
    )
    result = prompt.tracer("run", "script.py")
    assert (result.status, result.out) == (0, "6.0\n['worked']\n")
    assert result.err.count("tracer: ") == 1
    assert len(passes_in(prompt.folder / "script.trace")) == 1


def test_a_module_of_the_scripts_named_tracer_is_left_alone(prompt: Prompt) -> None:
    prompt.write("tracer.py", "print('mine')\n")
    prompt.write("script.py", "import torch, tracer\n")
    aside = Prompt(prompt.folder.parent)  # where `python -m tracer` finds our own
    result = aside.tracer("run", f"{prompt.folder.name}/script.py")
    assert (result.status, result.out) == (0, "mine\n")
    assert "nothing is recorded: ImportError: the script has a module named tracer" in result.err


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("-", "a script on standard input cannot be traced: save it to a file first"),
        ("absent.py", "there is no script absent.py"),
        ("scritp.py", "there is no script scritp.py (did you mean script.py?)"),
        ("no/script.py", "there is no script no/script.py"),
        ("empty", "empty is a folder without a __main__.py: name a script in it"),
    ],
)
def test_what_cannot_be_run_is_one_line_and_status_2(
    prompt: Prompt, script: str, error: str
) -> None:
    prompt.write("script.py", "")
    prompt.write("empty/readme", "")
    assert prompt.tracer("run", script) == Ran(2, "", f"tracer: {error}\n")


@pytest.mark.parametrize(
    ("output", "error"),
    [
        ("script.py", "script.py exists and is no trace: choose another name with -o"),
        ("empty", "empty is a folder: name a file in it with -o"),
        ("no/x.trace", "no folder no to write x.trace to: make it first"),
    ],
)
def test_nothing_runs_where_the_trace_cannot_be_written(
    prompt: Prompt, output: str, error: str
) -> None:
    prompt.write("script.py", "print('ran')")
    prompt.write("empty/readme", "")
    assert prompt.tracer("run", "-o", output, "script.py") == Ran(1, "", f"tracer: {error}\n")


def test_a_script_is_needed(prompt: Prompt) -> None:
    result = prompt.tracer("run")
    assert result.status == 2
    assert "Missing argument 'SCRIPT'" in result.err


def test_what_was_left_out_is_counted() -> None:
    record = replace(hooks(), dropped={"over the budget": 1200})
    assert describe_trace("my run.trace", record).splitlines()[1:3] == [
        "  left out: 1,200 × over the budget",
        "  tracer show 'my run.trace'",
    ]


def test_a_script_without_a_pass_is_told_so() -> None:
    assert describe_trace("x.trace", TraceRecord()).startswith("tracer: x.trace: no backward pass")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--every", "0"), "every=0: N must be a whole number from 1 (record every N-th pass)"),
        (("--last", "x"), "last=x: N must be a whole number from 1 (keep the last N passes)"),
        (("--max-bytes", "9"), "max_bytes=9: a trace needs 1 MB at least"),
        (
            ("--only", "name:a", "--only", "kind:nod"),
            "only=kind:nod: there is no kind of event nod (did you mean node?)",
        ),
    ],
)
def test_options_are_checked_before_anything_runs(
    prompt: Prompt, options: tuple[str, ...], error: str
) -> None:
    prompt.write("script.py", "print('ran')")
    assert prompt.tracer("run", *options, "script.py") == Ran(2, "", f"tracer: {error}\n")


def test_what_options_leave_out_is_said_in_the_end_and_shown(prompt: Prompt) -> None:
    prompt.write(
        "script.py",
        """
        import torch
        weight = torch.ones(20, requires_grad=True)
        for _ in range(5):
            (weight * 2).sum().backward()
        """,
    )
    options = ("--every", "2", "--only", "kind:accumulate", "--only", "kind:node")
    result = prompt.tracer("run", *options, "--detail", "values", "script.py")
    assert "left out: 2 × passes that every=2 leaves out" in result.err
    shown = prompt.tracer("show", "script.trace").out
    assert "recorded with every=2 only=kind:accumulate,kind:node detail=values" in shown
    assert "passes that every=2 leaves out" in shown
    said = "not recorded: 2 × passes that every=2 leaves out (record them all: leave --every out)"
    assert said in prompt.tracer("timeline", "script.trace").out
    assert said in prompt.tracer("draw", "script.trace", "-o", "script.dot").err
    assert said in prompt.tracer("draw", "script.trace").err
    record = api.load(prompt.folder / "script.trace").record
    assert [one.id for one in record.passes] == [1, 3, 5]
    (last,) = record.events.select(pass_id=5, kinds=("accumulate",))
    assert last.incoming.values == (2.0,) * 20  # type: ignore[attr-defined]
