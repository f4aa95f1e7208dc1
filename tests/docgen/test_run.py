"""A document runs as `python` would run it, block by block, and no block takes the rest along."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tracer.docgen.blocks import Document
from tracer.docgen.child import readable_text
from tracer.docgen.fences import parse_markdown
from tracer.docgen.job import BlockRun, Failure, Job, JobBlock, Output
from tracer.docgen.run import DocumentRun, run_document, stretches
from tracer.docgen.scripts import parse_script
from tracer.docgen.sources import read_document
from tracer.records import Pass

DOCUMENTS = Path(__file__).parent / "documents"


def document(name: str, folder: Path) -> Document:
    """A document that is kept as text, since it is no Python, as a script in a folder."""
    path = folder / f"{name}.py"
    path.write_text((DOCUMENTS / f"{name}.txt").read_text("utf-8"), "utf-8")
    return read_document(path)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Document:
    return document("broken", tmp_path_factory.mktemp("documents"))


@dataclass(frozen=True)
class Ran:
    """A run, and what was in its trace while that was there.

    `events` are kinds and `passes` passes, both by block; `files` are those of all places.
    """

    run: DocumentRun
    events: list[list[str]]
    passes: list[list[Pass]]
    files: set[str]


@pytest.fixture(scope="module")
def ran(broken: Document) -> Ran:
    """The document with broken blocks, run."""
    with run_document(broken) as run:
        parts = [run.trace_of(block) for block in run.blocks]
        events = [[event.kind for event in part.events] for part in parts]
        passes = [list(part.passes) for part in parts]
        sites = (getattr(event, "site", None) for one in run.traces for event in one.events)
        return Ran(run, events, passes, {site.file for site in sites if site is not None})


@pytest.fixture(scope="module")
def run(ran: Ran) -> DocumentRun:
    return ran.run


def lines_with(document: Document, text: str) -> int:
    lines = document.text.split("\n")
    return next(number for number, line in enumerate(lines, start=1) if text in line)


def test_output_is_kept_by_stream_and_in_order(run):
    assert run.blocks[1].outputs == (
        Output("stdout", "printed <script>alert('output')</script>\n"),
        Output("stderr", "to stderr\n"),
        Output("stdout", "printed again\nfrom a <i>process</i>\n"),
    )


def test_a_syntax_error_is_shown_at_its_line(run, broken):
    line = lines_with(broken, 'text = "begins')
    failure = run.blocks[2].failure
    assert (failure.type, failure.line) == ("SyntaxError", line)
    assert failure.message.startswith("unterminated string literal")
    assert failure.text.startswith(f'  File "broken.py", line {line}\n    text = "begins here\n')


def test_an_error_is_shown_at_the_innermost_line_of_the_document(run, broken):
    call, line = lines_with(broken, "use()") + 4, lines_with(broken, "return never_defined")
    failure = run.blocks[3].failure
    assert (failure.type, failure.line) == ("NameError", line)
    assert failure.text.split("\n")[:5] == [
        "Traceback (most recent call last):",
        f'  File "broken.py", line {call}, in <module>',
        "    use()",
        f'  File "broken.py", line {line}, in use',
        "    return never_defined",
    ]


def test_later_blocks_go_on_as_main(run):
    assert run.blocks[4].failure is None
    assert run.blocks[4].outputs == (
        Output("stdout", "tensor([3., 3.]) __main__ ['broken.py'] broken.py\n"),
    )


def test_a_cause_is_part_of_the_traceback(run):
    failure = run.blocks[5].failure
    assert (failure.type, failure.message) == ("RuntimeError", "because of <i>it</i>")
    assert "KeyError: 'key'" in failure.text
    assert "direct cause" in failure.text
    assert "child.py" not in failure.text


def test_a_block_that_ends_the_process_says_so_and_those_below_it_go_on(run, broken):
    line = broken.code[6].line
    message = "the process ended in this block: exit status 3"
    note = (
        "The blocks below it ran in a new process, in which those above it that had ended "
        "were run again."
    )
    assert run.blocks[6] == BlockRun(6, (), Failure("", message, line, message), note=note)
    assert run.blocks[7].outputs == (Output("stdout", "still here: tensor([3., 3.])\n"),)
    assert run.problems == ()


def test_what_was_recorded_before_the_process_ended_is_kept_and_belongs_to_its_block(ran):
    assert [len(found) for found in ran.passes] == [0, 0, 0, 0, 1, 0, 0, 1]
    assert [one.id for one in ran.passes[7]] == [2]
    assert "accumulate" in ran.events[4]
    assert all("mark" not in found for found in ran.events)


def test_nothing_of_ours_is_among_the_places_in_the_trace(ran, broken):
    assert ran.files == {str(broken.path)}


def test_sources_are_found_though_a_block_is_no_python(ran):
    assert ran.passes[4][0].site.expression == "(x * 3).sum().backward()"


def test_a_block_that_is_no_python_is_blanked_for_those_who_read_the_source(broken):
    blocks = tuple(JobBlock(n, block.line, block.text) for n, block in enumerate(broken.code))
    text = readable_text(Job("broken.py", "/", broken.text, blocks, "/"))
    assert text.count("\n") == broken.text.count("\n")
    assert "begins here" not in text
    assert text.split("\n")[lines_with(broken, "use()") - 1] == "def use():"
    compile(text, "broken.py", "exec")


def test_a_document_may_leave_early_without_failing(tmp_path):
    with run_document(document("leaves", tmp_path)) as ran:
        assert [(run.ended, run.failure) for run in ran.blocks] == [(True, None)] * 2
        assert ran.problems == ()


def test_a_document_that_cannot_be_run_says_why_in_one_line(monkeypatch):
    failing = ("-c", "raise SystemExit('no such thing')")
    monkeypatch.setattr("tracer.docgen.run._PROCESS", failing)
    with run_document(parse_script(DOCUMENTS / "gone.py", "x = 1\n")) as ran:
        assert ran.problems == ("gone.py could not be run (exit status 1): no such thing",)
        assert ran.blocks == ()


HARD = """
```python tracer setup
import time
names = ["kept"]
```

```python
n = 0
while True:
    n += 1
```

```python
names.append(n > 0)


def spin():
    while True:
        try:
            while True:
                n
        except BaseException:
            pass


spin()
```

```python
import ctypes


def crash():
    ctypes.string_at(0)


crash()
```

```python
print(names)
```

```python tracer fresh
names
```

```python tracer skip
names.append("never")
```
"""


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[BlockRun]]:
    """Blocks that cannot be stopped, and more: without torch, so that processes start at once."""
    path = tmp_path_factory.mktemp("hard") / "hard.md"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tracer.docgen.run.GRACE", 1.0)
        with run_document(parse_markdown(path, HARD), timeout=0.5) as ran:
            yield list(ran.blocks)


def test_an_endless_loop_is_stopped_where_it_runs_and_its_process_goes_on(hard):
    failure = hard[1].failure
    assert (failure.type, failure.message) == ("Timeout", "ran longer than 0.5 s and was stopped")
    assert failure.line in (9, 10)
    assert failure.text.endswith("Timeout: ran longer than 0.5 s and was stopped\n")
    assert "child.py" not in failure.text
    assert hard[1].note == ""


def test_a_loop_that_will_not_be_stopped_costs_its_process(hard):
    failure = hard[2].failure
    assert failure.message == ("ran longer than 0.5 s and could not be stopped: its process ended")
    assert 17 <= failure.line <= 22
    assert "new process" in hard[2].note


def test_a_crash_is_shown_at_its_line(hard):
    failure = hard[3].failure
    assert failure.message == "the process ended in this block: SIGSEGV"
    assert failure.line == 34


def test_names_come_back_after_a_crash_without_those_of_blocks_that_died(hard):
    assert hard[4].outputs == (Output("stdout", "['kept']\n"),)


def test_a_fresh_block_knows_nothing_of_those_above(hard):
    assert hard[5].failure.type == "NameError"


def test_a_block_marked_skip_is_not_run(hard):
    assert [run.block for run in hard] == [0, 1, 2, 3, 4, 5]


def test_blocks_share_a_process_down_to_a_fresh_one():
    code = parse_markdown(Path("hard.md"), HARD).code
    assert stretches(code) == [(0, 1, 2, 3, 4), (5,)]


def test_expressions_at_prompts_print_what_they_are():
    text = "```pycon\n>>> x = 3\n>>> x\n3\n>>> for n in range(2):\n...     n\n```\n"
    with run_document(parse_markdown(DOCUMENTS / "prompt.md", text)) as ran:
        assert ran.blocks[0].outputs == (Output("stdout", "3\n0\n1\n"),)


def test_giving_up_ends_the_block_that_runs(tmp_path):
    path = tmp_path / "endless.md"
    document = parse_markdown(path, "```python\nwhile True:\n    pass\n```\n")
    with pytest.raises(KeyboardInterrupt), run_document(document, given_up=lambda: True):
        pass
