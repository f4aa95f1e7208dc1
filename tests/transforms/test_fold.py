"""Folding shows any graph in few boxes, by modules, functions, lines and iterations."""

from __future__ import annotations

import pytest

from tests.transforms import graphs
from tests.transforms.graphs import Tape
from tracer.errors import NotInTraceError, TracerError
from tracer.records import Graph
from tracer.records.view import View
from tracer.transforms.fold import fold
from tracer.transforms.folding import Folding, Group


def outline(folding: Folding) -> list[str]:
    """Write the groups, one a line: depth by dots, label, class, repeats, nodes of a closed one."""
    depth: dict[int | None, int] = {None: -1}
    lines = []
    for group in folding.groups:
        depth[group.id] = depth[group.parent] + 1
        times = f"×{group.repeat}" if group.repeat > 1 else ""
        size = f"[{len(group.members)}]" if group.is_box else ""
        words = (". " * depth[group.id] + group.label, group.cls, times, size)
        lines.append(" ".join(filter(None, words)))
    return lines


def named(folding: Folding, name: str) -> Group:
    """Find the one group of that full name."""
    (group,) = [group for group in folding.groups if group.name == name]
    return group


# ---- what is shown by default


def test_a_graph_within_the_budget_has_a_box_for_each_operation_with_its_parameters() -> None:
    folding = fold(graphs.mlp(3))
    assert outline(folding) == [
        "loss = y.sum() [1]",
        "model Sequential",
        ". 5 ReLU [1]",
        ". 4 Linear [4]",
        ". 3 ReLU [1]",
        ". 2 Linear [4]",
        ". 1 ReLU [1]",
        ". 0 Linear [4]",
        "x [1]",
    ]  # fmt: skip


def test_equal_blocks_are_laid_on_one_another() -> None:
    folding = fold(graphs.transformer(12), View(budget=12))
    assert outline(folding) == [
        "loss = cross_entropy(logits, targets) [3]",
        "model GPT",
        ". lm_head Linear [2]",
        ". transformer Decoder",
        ". . ln_f LayerNorm [3]",
        ". . h.0–11 Block ×12",
        ". . . Add [12]",
        ". . . mlp MLP [108]",
        ". . . ln_2 LayerNorm [36]",
        ". . . Add [12]",
        ". . . attn Attention [276]",
        ". . . ln_1 LayerNorm [36]",
        ". . wpe Embedding [3]",
        ". . wte Embedding [1]",
        ". transformer.wte.weight [1]",
    ]


def test_a_smaller_budget_closes_what_hides_least() -> None:
    folding = fold(graphs.transformer(12), View(budget=7))
    assert outline(folding) == [
        "loss = cross_entropy(logits, targets) [3]",
        "model GPT",
        ". lm_head Linear [2]",
        ". transformer Decoder",
        ". . ln_f LayerNorm [3]",
        ". . h.0–11 Block ×12 [480]",
        ". . wpe Embedding [3]",
        ". . wte Embedding [1]",
        ". transformer.wte.weight [1]",
    ]


def test_a_block_of_another_shape_stays_apart() -> None:
    folding = fold(graphs.transformer(12, wider=4), View(budget=12))
    blocks = [group for group in folding.groups if group.cls == "Block"]
    assert [(block.label, block.repeat) for block in blocks] == [
        ("5–11", 7), ("4", 1), ("0–3", 4)
    ]  # fmt: skip


def test_neighbours_that_repeat_together_are_one_sequence() -> None:
    assert outline(fold(graphs.mlp(100), View(budget=4))) == [
        "loss = y.sum() [1]",
        "model Sequential",
        ". 0–199 Linear → ReLU ×100",
        ". . 199 ReLU [100]",
        ". . 198 Linear [400]",
        "x [1]",
    ]


def test_small_modules_with_names_of_their_own_stay_apart() -> None:
    tape = Tape()
    value = tape.leaf("x")
    for part in ("q_proj", "k_proj", "v_proj", "fc.0", "fc.1", "fc.2"):
        value = graphs.linear(tape, f"net.{part}", value)
    folding = fold(tape.graph(value), View(budget=6))
    assert outline(folding) == [
        "net",
        ". fc.0–2 Linear ×3 [12]",
        ". v_proj Linear [4]", ". k_proj Linear [4]", ". q_proj Linear [4]",
        "x [1]",
    ]  # fmt: skip


def test_a_loop_folds_by_iteration_then_function_then_line() -> None:
    assert outline(fold(graphs.lstm(200), View(budget=9))) == [
        "net.py:12 ×200",
        ". loss = loss + h.pow(2).sum() [600]",
        ". step()",
        ". . h = o.sigmoid() * c.tanh() [600]",
        ". . c = f.sigmoid() * c + i.sigmoid() * g.tanh() [1200]",
        ". . gates = h @ w + b [600]",
        "b [1]", "w [1]", "loss [1]", "c [1]", "h [1]",
    ]  # fmt: skip


def test_a_function_called_in_turns_with_nothing_else_names_its_loop() -> None:
    tape = Tape()
    value = tape.leaf("x")
    for _ in range(30):
        tape.at(3, "y = x.exp()", "grow")
        tape.at(4, "return y.sin() * y", "grow")
        value = tape.op("Mul", tape.op("Sin", value), value)
        tape.at(8, "return y + 1", "shift")
        value = tape.op("Add", value)
    folding = fold(tape.graph(value), View(budget=2))
    assert outline(folding) == ["grow(), shift() ×30 [90]", "x [1]"]


def test_loops_nest() -> None:
    tape = Tape()
    value = tape.leaf("x")
    for _ in range(5):
        for _ in range(20):
            tape.at(3, "x = x.sin()")
            value = tape.op("Sin", value)
            tape.at(4, "x = x.exp()")
            value = tape.op("Exp", value)
        tape.at(5, "x = x + 1")
        value = tape.op("Add", value)
    assert outline(fold(tape.graph(value), View(budget=4))) == [
        "net.py:5 ×5",
        ". x = x + 1 [5]",
        ". net.py:3–4 ×20",
        ". . x = x.exp() [100]", ". . x = x.sin() [100]",
        "x [1]",
    ]  # fmt: skip


def test_a_module_called_over_and_over_folds_by_call() -> None:
    assert outline(fold(graphs.recurrent_module(100))) == [
        "cell Cell",
        ". calls ×100",
        ". . h = cell(h) [100]",
        ". . proj Linear [200]",
        ". proj.weight [1]",
        "h [1]",
    ]


def test_operations_of_which_nothing_is_known_fold_where_they_repeat() -> None:
    assert outline(fold(graphs.bare(300, "Mul", "Add", "Sin"))) == [
        "Mul → Add → Sin ×100",
        ". Sin [100]", ". Add [100]", ". Mul [100]",
        "leaf without a name [1]",
    ]  # fmt: skip


def test_operations_with_nothing_in_common_fold_into_parts() -> None:
    names = [f"Op{number % 37}x{number % 53}" for number in range(1_000)]
    folding = fold(graphs.bare(1_000, *names), View(budget=20))
    assert len(folding.boxes) <= 20
    assert folding.boxes[0].label == "Op23x47 … Op0x45"


def test_many_equal_leaves_of_one_operation_are_one_box() -> None:
    assert outline(fold(graphs.stacked(300))) == ["Stack [1]", "p[0]–p[299] ×300 [300]"]


def test_two_nets_that_run_in_turn_stay_two() -> None:
    assert outline(fold(graphs.two_nets(40), View(budget=5))) == [
        "Mul [1]",
        "right.0–39 Linear ×40 [160]", "left.0–39 Linear ×40 [160]",
        "y [1]", "x [1]",
    ]  # fmt: skip


def test_a_module_that_is_left_and_entered_again_is_split_rather_than_knotted() -> None:
    tape = Tape()
    value = tape.leaf("x")
    with tape.module("a", "A"):
        value = tape.op("Exp", tape.op("Sin", value))
    with tape.module("b", "B"):
        value = tape.op("Cos", tape.op("Tan", value))
    with tape.module("a", "A"):
        value = tape.op("Log", tape.op("Abs", value))
    folding = fold(tape.graph(value), View(budget=4))
    assert outline(folding) == ["a A [2]", "b B [2]", "a A [2]", "x [1]"]


# ---- where leaves stand


def test_a_parameter_stands_in_its_module_and_an_input_outside() -> None:
    folding = fold(graphs.mlp(2), View(show=frozenset({"accumulate"})))
    places = {
        group.label: folding.groups[group.parent].name if group.parent is not None else ""
        for group in folding.boxes
        if group.label in ("x", "weight")
    }
    assert places == {"x": "", "weight": "model.0"}


def test_a_tied_weight_stands_around_all_that_use_it() -> None:
    folding = fold(graphs.transformer(2))
    (tied,) = [group for group in folding.boxes if group.label.endswith("wte.weight")]
    assert folding.groups[tied.parent or 0].name == "model"


def test_the_state_that_a_loop_begins_with_stands_outside_of_it() -> None:
    folding = fold(graphs.wide(100))
    outside = [group.label for group in folding.groups if group.parent is None and group.is_box]
    assert outside == ["total"]


# ---- options


def test_depth_opens_that_many_levels_and_no_more() -> None:
    shallow = fold(graphs.resnet(), View(depth=0))
    assert outline(shallow) == [
        "loss = criterion(net(images), labels) [2]", "net ResNet [337]", "images [1]"
    ]  # fmt: skip
    deeper = fold(graphs.resnet(), View(depth=1))
    assert [group.label for group in deeper.boxes] == [
        "loss = criterion(net(images), labels)", "loss = criterion(net(images), labels)",
        "fc", "avgpool", "layer4", "layer3", "layer2", "layer1", "maxpool", "relu", "bn1", "conv1",
        "images",
    ]  # fmt: skip


def test_expand_opens_one_of_many_equal_blocks() -> None:
    options = View(budget=8, expand=("h.3",))
    folding = fold(graphs.transformer(12), options)
    blocks = [group for group in folding.groups if group.cls == "Block"]
    assert [(block.label, block.repeat, block.is_box) for block in blocks] == [
        ("h.4–11", 8, True), ("h.3", 1, False), ("h.0–2", 3, True)
    ]  # fmt: skip


def test_expand_takes_a_line_and_a_function() -> None:
    graph = graphs.lstm(50)
    closed = fold(graph, View(budget=2))
    assert outline(closed) == ["net.py:12 ×50 [750]", "h … b [5]"]
    by_function = fold(graph, View(budget=2, expand=("step()",)))
    assert len(named(by_function, "step()").children) == 3
    by_line = fold(graph, View(budget=2, expand=("net.py:6",)))
    assert len(named(by_line, "net.py:6").children) == 3


def test_expand_of_an_unknown_name_says_what_comes_close() -> None:
    with pytest.raises(NotInTraceError, match=r"called 'h\.33'; did you mean"):
        fold(graphs.transformer(12), View(expand=("h.33",)))


def test_without_folding_every_node_has_a_box() -> None:
    graph = graphs.transformer(12)
    folding = fold(graph, View(budget=10, fold=False))
    assert [group.members for group in folding.boxes if len(group.members) != 1] == []
    assert len(folding.boxes) == len(graph.nodes)
    assert {group.repeat for group in folding.groups} == {1}


def test_views_have_boxes_when_they_are_to_be_shown() -> None:
    folding = fold(graphs.mlp(2), View(show=frozenset({"views"})))
    assert len(folding.boxes) == len(graphs.mlp(2).nodes)


def test_a_budget_of_one_is_one_box() -> None:
    folding = fold(graphs.transformer(3), View(budget=1))
    assert [len(group.members) for group in folding.boxes] == [len(graphs.transformer(3).nodes)]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"budget": 0}, "a picture of 0 boxes is empty; give a budget of 1 or more"),
        ({"depth": -1}, "depth -1 is below the outermost level; give 0 or more"),
        ({"show": frozenset({"all"})}, "cannot show 'all'; choose from views, accumulate, saved"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(TracerError) as caught:
        View(**options)  # type: ignore[arg-type]
    assert str(caught.value) == says


# ---- what joins the boxes


def test_edges_between_boxes_know_their_members_and_which_go_round() -> None:
    folding = fold(graphs.bare(300, "Mul", "Add", "Sin"))
    labels = [group.label for group in folding.groups]
    assert [
        (labels[edge.source], labels[edge.target], len(edge.members), edge.carried)
        for edge in folding.edges
    ] == [
        ("Sin", "Add", 100, False),
        ("Add", "Mul", 100, False),
        ("Mul", "Sin", 99, True),
        ("Mul", "leaf without a name", 1, False),
    ]


def test_blocks_of_a_repeated_group_are_alike_node_for_node() -> None:
    graph = graphs.transformer(12)
    folding = fold(graph, View(budget=8))
    (block,) = [group for group in folding.boxes if group.cls == "Block"]
    first, *others = [[graph.nodes[node].name for node in nodes] for nodes in block.blocks]
    assert len(others) == 11
    assert all(other == first for other in others)
    assert sorted(node for nodes in block.blocks for node in nodes) == list(block.members)


def test_an_empty_graph_has_no_boxes() -> None:
    assert fold(Graph(1, (), (), ())) == Folding((), (), {})


def test_three_equal_blocks_are_one_whatever_their_names() -> None:
    tape = Tape()
    value = tape.leaf("x")
    for name in ("stem", "body", "tail"):
        value = graphs.block(tape, f"net.{name}", value, 32)
    folding = fold(tape.graph(value), View(budget=8))
    assert [(group.label, group.repeat) for group in folding.groups if group.cls == "Block"] == [
        ("net.stem–tail", 3)
    ]


def test_two_equal_nets_with_names_of_their_own_stay_two() -> None:
    tape = Tape()
    value = tape.leaf("x")
    for name in ("actor", "critic"):
        value = graphs.block(tape, f"net.{name}", value, 32)
    folding = fold(tape.graph(value), View(budget=4))
    assert [(group.label, group.repeat) for group in folding.groups if group.cls == "Block"] == [
        ("critic", 1), ("actor", 1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "graph",
    [graphs.chain(8_000), graphs.bare(8_000, "Mul"), graphs.mlp(1_500), graphs.two_nets(1_000)],
    ids=["chain", "bare", "mlp", "two nets"],
)
def test_depth_of_a_graph_is_no_limit(graph: Graph) -> None:
    folding = fold(graph)
    assert len(folding.boxes) < 12
    assert sum(len(group.members) for group in folding.boxes) == len(graph.nodes)


def test_the_first_turn_of_a_sum_that_begins_with_a_number_is_like_the_others() -> None:
    tape = Tape()
    leaf = tape.leaf("w")
    total = None
    for _ in range(40):
        tape.at(3, "total = total + w.sin()")
        term = tape.op("Sin", leaf)
        total = tape.op("Add", term) if total is None else tape.op("Add", total, term)
    assert total is not None
    assert outline(fold(tape.graph(total))) == [
        "total = total + w.sin() ×40",
        ". total = total + w.sin() [40]", ". total = total + w.sin() [40]",
        "w [1]",
    ]  # fmt: skip


def test_operations_that_one_call_made_do_not_repeat_one_another() -> None:
    tape = Tape()
    value = tape.leaf("h")
    for _ in range(30):
        tape.at(3, "h = cell(h)")
        value = tape.op("Mul", tape.op("Sigmoid", tape.op("Sigmoid", value)))
    assert outline(fold(tape.graph(value))) == [
        "h = cell(h) ×30",
        ". h = cell(h) [30]", ". h = cell(h) [30]", ". h = cell(h) [30]",
        "h [1]",
    ]  # fmt: skip


def test_a_call_that_made_very_many_operations_folds_where_they_repeat() -> None:
    tape = Tape()
    value = tape.leaf("x")
    tape.at(3, "y = lstm(x)")
    for _ in range(100):
        value = tape.op("Tanh", tape.op("Addmm", tape.op("Mul", value)))
    assert outline(fold(tape.graph(value), View(budget=5))) == [
        "Mul → Addmm → Tanh ×100",
        ". y = lstm(x) [100]", ". y = lstm(x) [100]", ". y = lstm(x) [100]",
        "x [1]",
    ]  # fmt: skip
