"""The summary of a trace: what ran, passes by graph, leaves, hooks, cuts, and what is missing."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from tests.builders import branching, hooks, no_grad, sgd, vector_jacobian
from tests.render.test_pass_lines import alternating
from tracer.records import EventList, Outcome, Pause, Run, SavedWrite, Site, TraceRecord
from tracer.render import left_at_the_end, table
from tracer.render.table import summary


def printed(trace: TraceRecord, width: int = 160) -> str:
    """The summary as a terminal of that width shows it, without trailing spaces."""
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(summary(trace))
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


@pytest.mark.parametrize(
    ("name", "trace"),
    [
        ("vector_jacobian_summary.txt", vector_jacobian()),
        ("hooks_summary.txt", hooks()),
        ("no_grad_summary.txt", no_grad(3)),
        ("sgd_summary.txt", sgd()),
    ],
)
def test_the_summaries_of_the_examples(
    golden: Callable[[str, str], None], name: str, trace: TraceRecord
) -> None:
    golden(name, printed(trace))


def test_two_hundred_passes_of_one_graph_are_a_row() -> None:
    text = printed(sgd())
    assert "1–200  loss.backward()  sgd.py:9  3 nodes, 1 leaf  0.015 ms each" in text
    assert "200 passes · 1 graph · 1 leaf · 2,200 events" in text


def test_few_leaves_over_many_passes_are_plotted() -> None:
    text = printed(sgd())
    assert "b.grad  ▁▆▇█" in text
    assert "-19800 → -0.003052" in text


def test_hooks_say_what_they_did_and_whether_they_still_stand() -> None:
    assert (
        "grad * grad  tensor hook on v  ran 2×, changed 1  added line 5  removed line 11"
        in printed(hooks())
    )


def test_a_failed_pass_stands_apart_and_says_how() -> None:
    trace = sgd(3)
    failed = replace(trace.passes[1], outcome=Outcome("RuntimeError", "no"))
    text = printed(replace(trace, passes=(trace.passes[0], failed, trace.passes[2])))
    assert "pass 2 failed\n  RuntimeError: no\n" in text
    assert text.count("loss.backward()") == 3
    assert "raised RuntimeError" in text


def test_a_failure_names_the_node_and_the_forward_line() -> None:
    trace = vector_jacobian()
    failed = replace(trace.passes[0], outcome=Outcome("ValueError", "no such luck", 2))
    run = replace(trace.run, outcome="ValueError: no such luck")
    text = printed(replace(trace, run=run, passes=(failed,)))
    assert "ended with ValueError\n" in text
    assert "pass 1 failed at x2 = x1 * m3 (vector_jacobian.py:7)" in text
    assert "  ValueError: no such luck\n" in text


def test_a_failure_names_the_line_that_wrote_to_what_a_node_had_kept() -> None:
    trace = vector_jacobian()
    failed = replace(trace.passes[0], outcome=Outcome("RuntimeError", "modified in place", 2))
    site = Site(71, "vector_jacobian.py", 9, expression="x1 += 1", statement="x1 += 1")
    write = SavedWrite(
        seq=901, pass_id=1, node=2, attribute="_saved_self", how="add_", version=1, site=site
    )
    events = EventList((*trace.events, write))
    text = printed(replace(trace, passes=(failed,), events=events))
    line = "  x1 += 1 (vector_jacobian.py:9) wrote to what x2 = x1 * m3 had kept for backward\n"
    assert line in text


def test_passes_by_turns_are_a_row_each() -> None:
    text = printed(alternating(20))
    assert "1–19 (10)  loss.backward()" in text
    assert "2–20 (10)  generator_loss.backward()" in text


def test_pauses_are_told_with_their_place_and_length() -> None:
    site = Site(1, "hooks.py", 4, expression="tracer.pause()")
    pauses = [
        Pause(seq=number, t_ns=number * 1_000_000, resumed=number % 2 == 0, site=site)
        for number in range(1, 5)
    ]
    text = printed(replace(hooks(), events=EventList(tuple(pauses))))
    assert "paused\n  line 4  2×  2 ms in all\n" in text


def test_what_was_left_out_comes_with_how_to_get_it() -> None:
    dropped = {"passes that every=10 leaves out": 90}
    text = printed(replace(hooks(), dropped=dropped))
    assert "passes that every=10 leaves out  90  record them all: leave --every out" in text


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal_and_no_word_is_broken(width: int) -> None:
    for trace in (vector_jacobian(), hooks(), no_grad(3), sgd(), branching(40)):
        assert max(map(len, printed(trace, width).splitlines())) <= width
    leaves = printed(vector_jacobian(), 40).partition("leaves\n")[2]
    assert leaves.startswith("  m1  (3,2) f32  .grad 10  from 1 pass\n")


def test_leaves_made_anew_under_one_name_are_a_row() -> None:
    trace = hooks()
    again = {number: replace(trace.leaves[1], id=number) for number in (1, 2, 3)}
    text = printed(replace(trace, leaves=again))
    assert "  v ×3  (3,) f32  = [2, 2, 2]  .grad None  from 2 passes\n" in text


def test_what_is_missing_is_said() -> None:
    trace = replace(hooks(), dropped={"over budget": 1200}, complete=False)
    text = printed(trace)
    assert "over budget  1,200" in text
    assert "the recording was cut short: it ends at its last write" in text


def test_long_lists_are_cut_and_counted() -> None:
    assert "… and 16 more" in printed(branching(40))


def test_a_summary_of_too_many_events_says_how_far_it_read(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = printed(no_grad())
    for module in (table, left_at_the_end):
        monkeypatch.setattr(module, "FIRST_EVENTS", 2)
        monkeypatch.setattr(module, "LAST_EVENTS", 4)
    text = printed(no_grad())
    read = "what the first 2 and the last 4 events say: ≥ there may be more"
    assert f"of leaves, hooks and cuts, {read}" in text
    assert [line for line in text.splitlines() if ".grad" in line] == [
        line.replace("from ", "from ≥").replace("written ", "written ≥")
        for line in whole.splitlines()
        if ".grad" in line
    ]


def test_of_too_many_events_no_grad_is_said_to_be_none_that_was_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trace = no_grad()
    other = replace(trace.leaves[1], id=99, name="other")
    trace = replace(trace, leaves={**trace.leaves, 99: other})
    assert "  other  (" in printed(trace)
    assert ".grad not among" not in printed(trace)
    for module in (table, left_at_the_end):
        monkeypatch.setattr(module, "FIRST_EVENTS", 2)
        monkeypatch.setattr(module, "LAST_EVENTS", 4)
    row, why = (line for line in printed(trace).splitlines() if "other" in line)
    assert ".grad not among what was read" in row
    assert why.split(maxsplit=1) == ["other", "not reached from the root of any pass"]


def test_an_empty_trace_has_a_summary() -> None:
    assert printed(TraceRecord()) == "a recording\n\n0 passes · 0 graphs · 0 leaves · 0 events\n"


def test_names_are_shown_and_not_obeyed() -> None:
    trace = hooks()
    leaf = replace(trace.leaves[1], name="[bold]v[/] \x1b[2J")
    trace = replace(trace, leaves={1: leaf}, run=Run("[red]x[/red]", ("[red]x[/red]",)))
    text = printed(trace)
    assert "[bold]v[/] �[2J" in text
    assert text.startswith("[red]x[/red]\n")


def test_a_trace_without_events_still_lists_its_leaves() -> None:
    assert ".grad None  from 0 passes" in printed(replace(hooks(), events=EventList()))
