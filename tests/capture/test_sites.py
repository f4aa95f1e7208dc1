"""From a running frame to the user's own words for what runs there."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType

import pytest

from tests.capture.probes import (
    HAS_POSITIONS,
    SCRIPT,
    Holder,
    Seen,
    loop_values,
    run_code,
    run_file,
)
from tracer.capture.sites import SiteTable
from tracer.records.graph import Site

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str], Seen]:
    """Run source from a file, with probes named x, w, y and h, and give what was seen."""

    def execute(source: str) -> Seen:
        file = tmp_path / "snippet.py"
        file.write_text(source, encoding="utf-8")
        return run_file(file)

    return execute


def said(site: Site) -> tuple[str, tuple[str, ...]]:
    return site.expression, site.targets


STATEMENTS = [
    ("z = x * w", "x * w", ("z",)),
    ("z = x.relu()", "x.relu()", ("z",)),
    ("z = -x", "-x", ("z",)),
    ("z = x[0]", "x[0]", ("z",)),
    ("z = x.data", "x.data", ("z",)),
    ("z: object = x @ w", "x @ w", ("z",)),
    ("a = b = x * w", "x * w", ("a",)),
    ("self.h = x * w", "x * w", ("self.h",)),
    ("a = [0]; a[0] = x * w", "x * w", ("a[0]",)),
    ("(z := x * w)", "x * w", ("z",)),
    ("y += x", "y += x", ("y",)),
    ("h[0] = 1", "h[0] = 1", ("h",)),
    ("h[1:2] = 1", "h[1:2] = 1", ("h",)),
    ("h.data = 1", "h.data = 1", ()),
    ("x.relu()", "x.relu()", ()),
    ("def f():\n    return x @ w\nf()", "x @ w", ()),
    ("f = lambda: x @ w\nf()", "x @ w", ()),
    ("z = [x * w for _ in 'a']", "x * w", ("z[…]",)),
    ("z = {_: x * w for _ in 'a'}", "x * w", ("z[…]",)),
    ("z = list(x * w for _ in 'a')", "x * w", ()),
    ("z = [0, x * w]", "x * w", ("z[1]",)),
    ("z = [*'ab', x * w]", "x * w", ()),
    ("z = {'a': 1, 'b': x * w}", "x * w", ("z['b']",)),
    ("z = {**{}, 'b': x * w}", "x * w", ("z['b']",)),
    ("z = 0, [x * w]", "x * w", ("z[1][0]",)),
    ("[z, v] = [0, x * w]", "x * w", ()),
    ("z = []; z.append(x * w)", "x * w", ()),
    ("z = []\nfor _ in 'a': z.append(x * w)", "x * w", ("z[…]",)),
    ("z = id(x < w)", "x < w", ()),
    ("z = str(x.relu())", "x.relu()", ()),
    ("for a in x: pass", "for a in x", ()),
    ("z = f'{id(x + w)}'", "x + w", ()),
    ("z = (\n  x  # left\n  * w  # right\n)", "x * w", ("z",)),
    ("z = x \\\n    .relu()", "x.relu()", ("z",)),
    ("z = x.relu(\n    'a  b',\n    (0,\n    ),\n    k=1,\n)", "x.relu('a  b', (0,), k=1)", ("z",)),
    ("z = '名前' and x.relu(dim='形')", "x.relu(dim='形')", ()),
]


@pytest.mark.parametrize(("source", "expression", "targets"), STATEMENTS)
def test_a_site_says_what_ran_and_what_it_was_bound_to(
    run: Callable[[str], Seen], source: str, expression: str, targets: tuple[str, ...]
) -> None:
    assert said(run(source).last) == (expression, targets)


def test_unpacking_targets_are_named_one_by_one(run: Callable[[str], Seen]) -> None:
    site = run("a, [b, *self.c] = pair(x)").last
    assert said(site) == ("pair(x)", ("a", "b", "self.c"))


def test_of_two_values_assigned_together_each_has_its_own_target(
    run: Callable[[str], Seen],
) -> None:
    seen = run("a, self.b = x * w, x.relu()")
    assert [site.text for site in seen.sites] == ["a = x * w", "self.b = x.relu()"]


def test_an_assignment_in_place_reads_as_it_is_written(run: Callable[[str], Seen]) -> None:
    seen = run("y += x\nh[0] = 1\nh.data = 1\n")
    assert [site.text for site in seen.sites] == ["y += x", "h[0] = 1", "h.data = 1"]


def test_the_parts_of_one_statement_are_sites_of_their_own(run: Callable[[str], Seen]) -> None:
    seen = run("z = x.relu() * w + x.relu()")
    assert [(site.id, *said(site)) for site in seen.sites] == [
        (1, "x.relu()", ()),
        (2, "x.relu() * w", ()),
        (3, "x.relu()", ()),
        (4, "x.relu() * w + x.relu()", ("z",)),
    ]
    assert {site.statement for site in seen.sites} == {"z = x.relu() * w + x.relu()"}


def test_a_with_block_is_entered_and_left_at_its_head(run: Callable[[str], Seen]) -> None:
    seen = run("with x.relu() as k:\n    pass\n")
    assert [(site.line, site.expression) for site in seen.sites] == [
        (1, "x.relu()"),
        (1, "with x.relu() as k"),
        (1, "with x.relu() as k"),
    ]
    assert seen.last.statement == "with x.relu() as k:"


def test_a_condition_reads_as_its_statement(run: Callable[[str], Seen]) -> None:
    seen = run("if x:\n    pass\nwhile x:\n    break\nassert x\n")
    assert [site.expression for site in seen.sites] == ["if x", "while x", "assert x"]


def test_formatting_reads_as_the_whole_f_string(run: Callable[[str], Seen]) -> None:
    assert run("z = f'loss {x:.3f}'").last.expression == "f'loss {x:.3f}'"


@pytest.mark.parametrize(
    ("source", "expression"),
    [
        ("a, b = x", "a, b = x"),
        ("z = x and 1", "x and 1"),
        ("z = 1 if x else 2", "1 if x else 2"),
        ("z = [a for a in x]", "[a for a in x]"),
        ("z = x < w < y", "x < w < y"),
        ("z = [f'{x:.3f}' for _ in 'a']", "f'{x:.3f}'"),
        ("z = id(f'{x.relu():>{w.sum()}}')", "f'{x.relu():>{w.sum()}}'"),
    ],
)
def test_what_runs_without_a_call_or_an_operator_is_found(
    run: Callable[[str], Seen], source: str, expression: str
) -> None:
    assert run(source).last.expression == expression


def test_a_decorator_reads_as_it_is_written(run: Callable[[str], Seen]) -> None:
    seen = run("@x\ndef f():\n    pass\n")
    assert seen.last.expression == ("@x" if HAS_POSITIONS else "def f()")


def test_a_line_is_that_of_the_operation(run: Callable[[str], Seen]) -> None:
    seen = run("z = (x\n     .relu()\n     .sum())\n")
    assert [(site.line, site.text) for site in seen.sites] == [
        (2, "x.relu()"),
        (3, "z = x.relu().sum()"),
    ]


def test_a_function_has_its_qualified_name(run: Callable[[str], Seen]) -> None:
    seen = run(
        "class Net:\n    def forward(self):\n        return (lambda: x * w)()\n"
        "Net().forward()\nx * w\n"
    )
    inner = "Net.forward.<locals>.<lambda>" if HAS_POSITIONS else "<lambda>"
    assert [site.function for site in seen.sites] == [inner, "<module>"]


def test_of_a_statement_with_a_body_only_the_head_is_given(run: Callable[[str], Seen]) -> None:
    seen = run("def f(a=x * w,  # here\n      b=2):  # there: and there\n    return a\n")
    assert seen.last.statement == "def f(a=x * w, b=2):"


def test_a_long_expression_loses_its_middle(run: Callable[[str], Seen]) -> None:
    text = run(f"z = x.relu({', '.join(map(str, range(100)))})").last.expression
    assert text == (
        "x.relu(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 1 … "
        "5, 86, 87, 88, 89, 90, 91, 92, 93, 94, 95, 96, 97, 98, 99)"
    )


def test_the_same_place_is_the_same_site_however_often_it_runs(run: Callable[[str], Seen]) -> None:
    seen = run("for i in range(3):\n    try:\n        x * w\n    finally:\n        x.relu()\n")
    assert [site.id for site in seen.sites] == [1, 2] * 3


def test_code_compiled_anew_is_at_the_same_site() -> None:
    seen = Seen()
    for _ in range(3):
        run_code(compile("x * 2", "<string>", "exec"), seen)
    assert [site.id for site in seen.sites] == [1, 1, 1]


def test_lookup_by_position_gives_the_site_of_the_frame() -> None:
    table = SiteTable(script=SCRIPT)
    code, lasti, line = position()
    site = table.lookup(code, lasti, line)
    assert site.statement == "return frame.f_code, frame.f_lasti, frame.f_lineno"
    assert site.line == line
    assert table.lookup(code, lasti, None) is site


def position() -> tuple[CodeType, int, int]:
    frame = sys._getframe()
    return frame.f_code, frame.f_lasti, frame.f_lineno


def test_a_line_that_python_does_not_know_is_the_first_of_its_code() -> None:
    code = compile("x = 1", "<made up>", "exec").replace(co_firstlineno=7)
    assert SiteTable(script=SCRIPT).lookup(code, 0, None) == Site(1, "<made up>", 7)


# ---- the values of loop variables


def test_the_values_that_loops_stand_at_are_read_outermost_first(
    run: Callable[[str], Seen],
) -> None:
    seen = run(
        "for epoch in range(2):\n    for t, (name, value) in [(0.5, ('a', x))]:\n"
        "        while True:\n            y * w\n            break\n    y + w\ny * w\n"
    )
    inner = (("t", "0.5"), ("name", "'a'"))
    assert seen.loops == [
        (("epoch", "0"), *inner),
        (("epoch", "0"),),
        (("epoch", "1"), *inner),
        (("epoch", "1"),),
        (),
    ]


def test_the_values_of_a_function_and_of_a_comprehension_are_read(
    run: Callable[[str], Seen],
) -> None:
    seen = run(
        "def f():\n    for t in range(1, 3):\n        x * w\n"
        "    return [x * w for u in 'ab' for v in (True, 2**70)]\nf()\n"
    )
    assert seen.loops == [
        (("t", "1"),),
        (("t", "2"),),
        (("u", "'a'"), ("v", "True")),
        (("u", "'a'"),),
        (("u", "'b'"), ("v", "True")),
        (("u", "'b'"),),
    ]


# ---- harmless


def test_no_value_of_the_users_is_kept() -> None:
    gc.disable()
    try:
        gone, values = compute_in_a_loop(SiteTable(script=SCRIPT))
        assert gone() is None
    finally:
        gc.enable()
    assert values == (("number", "0"),)


def compute_in_a_loop(table: SiteTable) -> tuple[weakref.ref[Holder], object]:
    value, values = Holder(), None
    for number in range(1):  # noqa: B007
        site = table.site_of(sys._getframe())
        values = loop_values(table, sys._getframe(), site) if site else None
    return weakref.ref(value), values


def test_a_site_found_by_many_threads_at_once_is_one_site(run: Callable[[str], Seen]) -> None:
    seen = run(
        "import threading\ngate = threading.Barrier(8)\n"
        "def work():\n    gate.wait()\n    for _ in range(50):\n        x * w; x + w; -x\n"
        "threads = [threading.Thread(target=work) for _ in range(8)]\n"
        "for thread in threads: thread.start()\nfor thread in threads: thread.join()\n"
    )
    assert len(seen.sites) == 8 * 50 * 3
    assert {site.id for site in seen.sites} == {1, 2, 3}


def output_of(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_child_forked_while_a_site_is_looked_up_can_look_up_its_own() -> None:
    assert (
        output_of(
            "import os, sys, threading\n"
            "from tracer.capture import sites\n"
            "held, done = threading.Event(), threading.Event()\n"
            "def hold():\n    with sites._lock:\n        held.set(); done.wait()\n"
            "thread = threading.Thread(target=hold); thread.start(); held.wait()\n"
            "child = os.fork()\n"
            "if not child:\n"
            "    os._exit(0 if sites.SiteTable().site_of(sys._getframe()) else 1)\n"
            "status = os.waitpid(child, 0)[1]; done.set(); thread.join(); print(status)\n"
        )
        == "0\n"
    )


def test_finding_sites_needs_no_torch() -> None:
    assert output_of("import sys, tracer.capture.sites; print('torch' in sys.modules)") == "False\n"


def test_a_known_place_costs_a_few_plain_calls() -> None:
    table, frame = SiteTable(script=SCRIPT), sys._getframe()
    table.site_of(frame)
    plain = min(timed(nothing, frame) for _ in range(20))
    assert min(timed(table.site_of, frame) for _ in range(20)) < 10 * plain


def nothing(frame: FrameType) -> None:
    return None


def timed(call: Callable[[FrameType], object], frame: FrameType) -> int:
    begin = time.perf_counter_ns()
    for _ in range(500):
        call(frame)
    return time.perf_counter_ns() - begin
