"""A document runs as `python` would run it, block by block, and no block takes the rest along."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tracer.docgen.blocks import Document, parse_script, read_document
from tracer.docgen.child import BlockRun, Failure, Job, Output, readable_text
from tracer.docgen.run import DocumentRun, run_document
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
        parts = [run.trace_of(number) for number in range(len(broken.code))]
        events = [[event.kind for event in part.events] for part in parts]
        passes = [list(part.passes) for part in parts]
        sites = (getattr(event, "site", None) for event in run.trace.events)
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


def test_a_block_that_ends_the_process_says_so_and_the_rest_is_not_run(run, broken):
    line = broken.code[6].line
    message = "the process ended in this block: exit status 3"
    assert run.blocks[6] == BlockRun(6, (), Failure("", message, line, message), False)
    assert len(run.blocks) == 7
    assert run.problem == ""


def test_what_was_recorded_before_the_process_ended_is_kept_and_belongs_to_its_block(ran):
    assert [len(found) for found in ran.passes] == [0, 0, 0, 0, 1, 0, 0, 0]
    assert "accumulate" in ran.events[4]
    assert all("mark" not in found for found in ran.events)


def test_nothing_of_ours_is_among_the_places_in_the_trace(ran, broken):
    assert ran.files == {str(broken.path)}


def test_sources_are_found_though_a_block_is_no_python(ran):
    assert ran.passes[4][0].site.expression == "(x * 3).sum().backward()"


def test_a_block_that_is_no_python_is_blanked_for_those_who_read_the_source(broken):
    blocks = tuple((block.line, block.text) for block in broken.code)
    text = readable_text(Job("broken.py", "/", broken.text, blocks, "/"))
    assert text.count("\n") == broken.text.count("\n")
    assert "begins here" not in text
    assert text.split("\n")[lines_with(broken, "use()") - 1] == "def use():"
    compile(text, "broken.py", "exec")


def test_a_document_may_leave_early_without_failing(tmp_path):
    with run_document(document("leaves", tmp_path)) as ran:
        assert [(run.ended, run.failure) for run in ran.blocks] == [(True, None)] * 2
        assert ran.problem == ""


def test_a_document_that_cannot_be_run_says_why_in_one_line(monkeypatch):
    failing = ("-c", "raise SystemExit('no such thing')")
    monkeypatch.setattr("tracer.docgen.run._PROCESS", failing)
    with run_document(parse_script(DOCUMENTS / "gone.py", "x = 1\n")) as ran:
        assert ran.problem == "gone.py could not be run (exit status 1): no such thing"
        assert ran.blocks == ()
