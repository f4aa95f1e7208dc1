"""Short words for numbers, tensors, sums and nodes."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import replace

import pytest

from tests.builders import chain, full, no_grad, perceptron, spread, vector, vector_jacobian
from tracer.records import Gradient, Site, TensorMeta, words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5.0, "5"), (0.0123, "0.0123"), (0.30000001192092896, "0.3"), (1.2e-05, "1.2e-05"),
        (-19800.0, "-19800"), (15840.3, "15840"), (123456.7, "1.23e+05"), (0.0, "0"), (-0.0, "0"),
        (math.nan, "nan"), (math.inf, "inf"), (True, "True"), (7, "7"), (1 - 2j, "1-2j"),
        (9999.7, "10000"),
    ],
)  # fmt: skip
def test_a_number_is_short(value: complex, text: str) -> None:
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("seen", "text"),
    [
        (None, "None"),
        (full(1.0, (3, 2)), "1"),
        (full(4.0, (1,)), "4"),
        (vector(1.0, 1.0, 1.0), "[1, 1, 1]"),
        (full(2.0, (5,)), "2"),
        (vector(0.5, -1.25, shape=(2, 1)), "[[0.5], [-1.25]]"),
        (vector(*(0.123456 + i for i in range(9))), "‖g‖=14.6"),
        (spread(0.62, (100, 1)), "‖g‖=0.62"),
        (vector(math.nan, 1.0), "[nan, 1]"),
        (Gradient(TensorMeta((300,)), nans=3, infs=0), "3 NaN of 300"),
        (Gradient(TensorMeta((300,)), nans=1, infs=2), "1 NaN and 2 Inf of 300"),
        (Gradient(TensorMeta((2,)), unread="on cuda"), "not read (on cuda)"),
        (Gradient(TensorMeta((2,))), "?"),
        (Gradient(TensorMeta((0,)), values=()), "[]"),
    ],
)
def test_a_tensor_says_its_values_or_its_norm(seen: Gradient | None, text: str) -> None:
    assert words.tensor(seen) == text


def test_accumulation_says_before_incoming_and_after() -> None:
    before, incoming, after = vector(1.0, 1.0, 4.0), vector(1.0, 1.0, 1.0), vector(2.0, 2.0, 5.0)
    assert words.accumulation(before, incoming, after) == "[1, 1, 4] + [1, 1, 1] → [2, 2, 5]"
    assert words.accumulation(None, incoming, incoming) == "None → [1, 1, 1]"


def test_metadata_is_spelled_as_pytorch_users_write_it() -> None:
    assert words.meta(TensorMeta((3, 2))) == "(3,2) f32"
    assert words.meta(TensorMeta((3,), "bfloat16", "cuda:0")) == "(3,) bf16 cuda:0"
    assert words.meta(TensorMeta((), "float64", "cpu", "sparse_coo")) == "() f64 sparse_coo"
    assert words.meta(None) == "undefined"


def test_statistics_leave_nothing_out() -> None:
    assert words.statistics(vector(3.0, 0.0, 4.0)) == (
        "(3,) float32: norm 5, min 0, max 4, mean 2.333, zeros 1, NaN 0, Inf 0, values [3, 0, 4]"
    )


def test_a_long_text_keeps_both_its_ends_on_one_line() -> None:
    assert (
        words.shorten("first = some_function(of,\n    many_arguments)", 24)
        == "first = some_fu…guments)"
    )
    assert words.shorten("short", 24) == "short"


def test_what_a_terminal_would_obey_becomes_visible() -> None:
    assert words.one_line("a\x1b[31mb\x00\u202ec\ud800") == "a�[31mb��c�"
    assert words.one_line("f(x,\n    y)\tz") == "f(x, y) z"


def test_a_chinese_character_takes_two_columns() -> None:
    assert words.width("变量x") == 5
    assert words.padded("变量", 6) == "变量  "


def test_an_operation_is_called_by_its_source() -> None:
    graph = vector_jacobian().graphs[1]
    assert tuple(words.Titles(graph)) == (
        "y = x1 + x2",
        "x1 = m1 * m2",
        "x2 = x1 * m3",
        "m1",
        "m2",
        "m3",
    )


def test_a_variable_bound_elsewhere_is_named_before_the_expression() -> None:
    graph = no_grad().graphs[1]
    assert words.Titles(graph)[0] == "l = ((prediction - y) ** 2 / 2).mean()"


def test_nodes_of_one_expression_say_what_each_does() -> None:
    titles = words.Titles(perceptron(1).graphs[1])
    assert titles[1:4] == (
        "torch.relu(self.linear(x))", "Addmm · self.linear(x)", "T · self.linear(x)",
    )  # fmt: skip


def test_turns_of_a_loop_are_not_nodes_of_one_expression() -> None:
    assert tuple(words.Titles(chain(2).graphs[1])) == ("x = x * a", "x = x * a", "a")


def test_an_operation_without_source_is_called_by_its_name() -> None:
    node = replace(vector_jacobian().graphs[1].nodes[0], site=None, variables=(), op="")
    assert words.node_title(node) == "Add"


def test_a_place_names_the_file_only_where_it_is_another() -> None:
    site = Site(1, "/home/me/model.py", 7)
    assert words.place(site, beside="/home/me/model.py") == "line 7"
    assert words.place(site, beside="/home/me/train.py") == "model.py:7"
    assert words.place(None, beside="") == ""


def test_a_function_is_named_only_where_it_is_another() -> None:
    call = Site(1, "train.py", 9, "main")
    assert words.function(Site(2, "train.py", 3, "main"), beside=call) == ""
    assert words.function(Site(2, "train.py", 3, "main.<locals>.Net.forward"), beside=call) == (
        " in Net.forward"
    )


def test_counts_are_in_english() -> None:
    assert words.counts(6, 3) == "3 nodes, 3 leaves"
    assert words.counts(1, 1) == "1 leaf"
    assert words.count(2, "pass") == "2 passes"


def test_the_short_way_to_a_width_is_right_for_every_character() -> None:
    for code in range(0x20, 0x3000):
        char = chr(code)
        wide = unicodedata.east_asian_width(char) in "WF"
        assert words.width(char) == (0 if unicodedata.combining(char) else 1 + wide), hex(code)
    assert words.width("‖g‖=12.5 → 权重") == 15


def test_nodes_alike_share_a_title_with_the_turns_that_all_of_them_were_in() -> None:
    graph = chain(3).graphs[1]
    turns = [(("epoch", "1"), ("t", str(node.id))) for node in graph.nodes]
    nodes = [
        node if node.is_leaf else replace(node, loops=told)
        for node, told in zip(graph.nodes, turns, strict=True)
    ]
    titles = words.Titles(replace(graph, nodes=tuple(nodes)))
    assert titles.shared([0]) == titles[0] == "x[epoch=1, t=0] = x * a"
    assert titles.shared([0, 1, 2]) == "x[epoch=1] = x * a"


def test_what_a_call_of_zero_grad_wrote_is_told_by_that_name() -> None:
    by_call = Site(1, "train.py", 9, "main", "self.optimizer.zero_grad(set_to_none=False)")
    by_hand = replace(by_call, expression="w.grad.zero_()")
    assert words.writer("zero_", by_call) == "zero_grad"
    assert words.writer("zero_", by_hand) == "zero_"
    assert words.writer(".grad =", None) == ".grad ="
