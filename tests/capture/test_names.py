"""The name a user would give a tensor, found without touching anything of the user's."""

from __future__ import annotations

import gc
import sys
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from types import FrameType, ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import tracer
from tests.capture.probes import SCRIPT
from tracer.capture import names as names_module
from tracer.capture.names import NameBook, find_names
from tracer.capture.user_code import UserCode

IS_USER = UserCode(script=SCRIPT)


def leaf() -> Tensor:
    return torch.ones(1, requires_grad=True)


def names_in(source: str, *wanted: str, **values: Any) -> list[str]:
    """Run source that calls `look()`; the names of what the `wanted` expressions give there."""
    found: list[str] = []

    def look(*tensors: Tensor) -> None:
        numbered = dict(enumerate(tensors))
        names = find_names(numbered, frame_of("<user>"), is_user=is_user)
        found.extend(names.get(number, "?") for number in numbered)

    class OnlySnippets(UserCode):
        def __call__(self, code: Any) -> bool:
            return bool(code.co_filename == "<user>")

    is_user = OnlySnippets(script=SCRIPT)
    call = f"look({', '.join(wanted)})"
    code = compile(source.replace("look()", call), "<user>", "exec")
    exec(code, {"look": look, "leaf": leaf, "torch": torch, "nn": nn} | values)
    return found


def frame_of(file: str) -> FrameType | None:
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_filename != file:
        frame = frame.f_back
    return frame


# ---- what is found


def test_a_variable_names_what_it_holds() -> None:
    assert names_in("w, b = leaf(), leaf()\nlook()", "w", "b", "leaf()") == ["w", "b", "?"]


def test_items_and_attributes_are_written_as_python_would() -> None:
    source = (
        "params = [leaf(), (leaf(), leaf())]\n"
        "weights = {'w1': leaf(), 2: leaf(), 'in\\'s': leaf()}\n"
        "self = Thing(w=leaf(), inner=Thing(v=[leaf()]))\nlook()"
    )
    wanted = [
        "params[0]",
        "params[1][1]",
        "weights['w1']",
        "weights[2]",
        'weights["in\'s"]',
        "self.w",
        "self.inner.v[0]",
    ]
    assert names_in(source, *wanted, Thing=SimpleNamespace) == wanted


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


@dataclass(slots=True)
class Slotted:
    weight: Tensor


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda t: OrderedDict(a=t), "held['a']"),
        (lambda t: defaultdict(list, a=t), "held['a']"),
        (lambda t: deque([None, t]), "held[1]"),
        (lambda t: Pair(t, t), "held.left"),
        (lambda t: Slotted(t), "held.weight"),
        (lambda t: (t,), "held[0]"),
    ],
    ids=["OrderedDict", "defaultdict", "deque", "named tuple", "slots", "tuple"],
)
def test_what_containers_hold_is_found(make: Any, name: str) -> None:
    tensor = leaf()
    assert names_in(
        "def f(held):\n    look()\nf(held())",
        "tensor()",
        tensor=lambda: tensor,
        held=lambda: make(tensor),
    ) == [name]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(1, 1), nn.ModuleDict({"out": nn.Linear(1, 1)}))
        self.register_buffer("mean", torch.zeros(1))
        self.scale = leaf()
        self.extras = [leaf()]
        self.tied = self.encoder


def test_what_a_module_holds_is_named_as_pytorch_does() -> None:
    wanted = [
        "model.encoder[0].weight",
        "model.encoder[1]['out'].bias",
        "model.mean",
        "model.scale",
        "model.extras[0]",
    ]
    assert names_in("model = Net()\nlook()", *wanted, Net=Net) == [
        "model.encoder.0.weight",
        "model.encoder.1.out.bias",
        "model.mean",
        "model.scale",
        "model.extras[0]",
    ]


def test_module_names_are_those_of_named_parameters() -> None:
    model = nn.TransformerEncoderLayer(4, 2, 8)
    names = [name for name, _ in model.named_parameters()]
    wanted = [f"model.get_parameter({name!r})" for name in names]
    assert names_in("look()", *wanted, model=model) == [f"model.{name}" for name in names]


def test_a_compiled_modules_wrapper_is_left_out() -> None:
    wrapper = nn.Module()
    wrapper._orig_mod = nn.Linear(1, 1)
    assert names_in("look()", "net._orig_mod.bias", net=wrapper) == ["net.bias"]


def test_an_optimizer_names_what_nothing_else_does() -> None:
    source = (
        "groups = [{'params': [leaf()]}, {'params': [leaf(), w]}]\n"
        "optimizer = torch.optim.SGD(groups, lr=1)\ndel groups\nlook()"
    )
    groups = "optimizer.param_groups"
    wanted = [f"{groups}[0]['params'][0]", f"{groups}[1]['params'][0]", "w"]
    assert names_in(source, *wanted, w=leaf()) == wanted


def test_a_module_that_the_user_wrote_is_looked_into() -> None:
    own, other = ModuleType("own"), ModuleType("other")
    own.__dict__.update(__file__="/home/me/own.py", w=leaf())
    other.__dict__.update(__file__="/lib/site-packages/other.py", w=leaf())
    assert names_in("look()", "own.w", "other.w", own=own, other=other) == ["own.w", "?"]


# ---- which of several names


def test_the_innermost_frame_comes_first_then_globals() -> None:
    source = "w = leaf()\ndef outer(a):\n    inner(a)\ndef inner(b):\n    look()\nouter(w)"
    assert names_in(source, "b") == ["b"]
    source = "w = leaf()\ndef outer(a):\n    inner()\ndef inner():\n    look()\nouter(w)"
    assert names_in(source, "w") == ["a"]


def test_the_first_of_two_variables_wins() -> None:
    assert names_in("w = leaf()\nv = w\nlook()", "v") == ["w"]


def test_a_variable_is_nearer_than_what_another_holds() -> None:
    assert names_in("params = [leaf()]\nw = params[0]\nlook()", "w") == ["w"]


def test_a_path_in_a_module_is_nearer_than_an_item_of_a_list() -> None:
    source = "params = []\nmodel = nn.Linear(1, 1)\nparams.extend(model.parameters())\nlook()"
    assert names_in(source, "*params") == ["model.weight", "model.bias"]


def test_a_variable_that_a_loop_left_over_names_only_what_has_no_other() -> None:
    source = (
        "model = nn.Linear(1, 1)\nparams = [leaf(), leaf()]\n"
        "def f():\n    for p in model.parameters(): pass\n"
        "    for i, (q, r) in [(1, (params[1], leaf()))]: pass\n    look()\nf()"
    )
    assert names_in(source, "p", "q", "r") == ["model.bias", "params[1]", "r"]


@pytest.mark.parametrize("name", ["_", "__", "__hidden__", "_1", "_oh"])
def test_what_a_user_would_not_say_is_no_name(name: str) -> None:
    assert names_in(f"{name} = leaf()\nlook()", name) == ["?"]


def test_a_notebooks_history_is_no_name() -> None:
    assert names_in("Out = {1: leaf()}\nlook()", "Out[1]", get_ipython=None) == ["?"]
    assert names_in("Out = {1: leaf()}\nlook()", "Out[1]") == ["Out[1]"]


def test_one_tensor_under_two_keys_has_its_name_twice() -> None:
    w = leaf()
    assert names_in("look()", "w", "w", w=w) == ["w", "w"]


# ---- harmless


class Trap:
    """Every way to ask it something ends the process."""

    def refuse(self, *_: Any) -> Any:
        raise SystemExit("user code was run")

    __getattr__ = __eq__ = __hash__ = __len__ = __iter__ = __repr__ = __bool__ = refuse  # type: ignore[assignment]
    __getitem__ = __call__ = __contains__ = refuse
    secret = property(refuse)
    __class__ = property(refuse)  # type: ignore[assignment]


class Hidden:
    """An object whose attributes are computed."""

    __dict__ = property(Trap.refuse)  # type: ignore[assignment]


class OddList(list[Any]):
    __iter__ = __len__ = __getitem__ = Trap.refuse  # type: ignore[assignment]


class OddDict(dict[Any, Any]):
    items = keys = __iter__ = __getitem__ = Trap.refuse  # type: ignore[assignment]


class OddModule(nn.Module):
    def __getattr__(self, name: str) -> Any:
        raise SystemExit("user code was run")

    @property
    def secret(self) -> Any:
        raise SystemExit("user code was run")


def test_no_code_of_the_users_is_run() -> None:
    trap = object.__new__(Trap)
    trap.__dict__["w"] = leaf()
    odd = OddModule()
    nn.Module.__setattr__(odd, "layer", nn.Linear(1, 1))
    values = {
        "trap": trap,
        "hidden": object.__new__(Hidden),
        "odd_list": OddList([leaf()]),
        "odd_dict": OddDict(a=leaf()),
        "odd": odd,
        "keys": {(1, 2): leaf(), 1.5: leaf()},
    }
    wanted = ["get()[0]", "get()[1]", "leaf()"]
    tensors = [trap.__dict__["w"], odd.__dict__["_modules"]["layer"].weight]
    assert names_in("look()", *wanted, get=lambda: tensors, **values) == [
        "trap.w",
        "odd.layer.weight",
        "?",
    ]


def test_a_structure_that_holds_itself_is_no_trap() -> None:
    loop: list[Any] = []
    loop.append(loop)
    thing = SimpleNamespace()
    thing.me = thing
    assert names_in("look()", "leaf()", loop=loop, thing=thing) == ["?"]


def test_the_search_is_bounded() -> None:
    wide = [[0] * 3000 for _ in range(3000)]
    wide[2999].append(leaf())
    deep = [[[[[leaf()]]]]]
    assert names_in("look()", "wide[2999][3000]", "deep[0][0][0][0][0]", wide=wide, deep=deep) == [
        "?",
        "?",
    ]


def test_a_deep_model_is_named_to_its_end() -> None:
    model: nn.Module = nn.Identity()
    for _ in range(2000):
        model = nn.Sequential(model)
    last: Any = model
    while isinstance(last, nn.Sequential):
        last = last[0]
    last.weight = nn.Parameter(torch.ones(1))
    assert names_in("look()", "w()", model=model, w=lambda: last.weight) == [
        "model" + ".0" * 2000 + ".weight"
    ]


class Owner:
    """An object that can be referred to weakly."""

    def __init__(self) -> None:
        self.tensor = leaf()


def test_nothing_is_kept_and_no_cycle_is_left() -> None:
    gc.collect()
    gc.disable()
    try:
        gone, name = name_and_drop()
        assert gone() is None
    finally:
        gc.enable()
    assert name == {7: "owner.tensor"}


def name_and_drop() -> tuple[weakref.ref[Owner], dict[int, str]]:
    owner = Owner()
    names = find_names({7: owner.tensor}, sys._getframe(), is_user=IS_USER)
    return weakref.ref(owner), names


# ---- the book


def names_of(book: NameBook, tensors: Iterable[Tensor]) -> list[str]:
    numbered = dict(enumerate(tensors))
    found = book.names(numbered, sys._getframe(1))
    return [found.get(number, "?") for number in numbered]


def test_a_name_once_found_stays() -> None:
    book = NameBook(IS_USER)
    w = leaf()
    assert names_of(book, [w]) == ["w"]
    v = w
    del w
    assert names_of(book, [v]) == ["w"]


def test_a_new_leaf_is_found_although_another_had_its_address() -> None:
    book, found = NameBook(IS_USER), []
    for number in range(3):
        held = SimpleNamespace(**{f"x{number}": leaf()})
        found += names_of(book, list(vars(held).values()))
        del held
    assert found == ["held.x0", "held.x1", "held.x2"]


def test_a_loop_that_makes_a_leaf_each_time_has_it_named_each_time() -> None:
    book = NameBook(IS_USER)
    assert [names_of(book, [x]) for x in (leaf(), leaf(), leaf())] == [["x"]] * 3
    found = []
    for y in (leaf(), leaf(), leaf()):
        found += names_of(book, [y])
    assert found == ["y"] * 3


def test_leaves_without_a_name_are_searched_for_ever_more_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searches = count_searches(monkeypatch)
    book = NameBook(IS_USER)
    for _ in range(100):
        assert names_of(book, [leaf()]) == ["?"]
    assert len(searches) == 6


def test_parameters_are_searched_for_whatever_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    book = NameBook(IS_USER)
    for _ in range(50):
        names_of(book, [leaf()])
    searches = count_searches(monkeypatch)
    model = [nn.Linear(1, 1)]
    assert names_of(book, model[0].parameters()) == ["model[0].weight", "model[0].bias"]
    assert names_of(book, model[0].parameters()) == ["model[0].weight", "model[0].bias"]
    assert len(searches) == 1


def count_searches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    searches: list[int] = []
    search = names_module._search

    def counted(*arguments: Any) -> dict[int, str]:
        searches.append(1)
        return search(*arguments)

    monkeypatch.setattr(names_module, "_search", counted)
    return searches


def test_a_book_keeps_no_leaf_alive() -> None:
    book = NameBook(IS_USER)
    w = leaf()
    gone = weakref.ref(w)
    assert names_of(book, [w]) == ["w"]
    del w
    assert gone() is None


def test_a_book_forgets_the_dead() -> None:
    book = NameBook(IS_USER)
    for _ in range(5000):
        book._remember({0: leaf()}, {})
    assert len(book._known) <= 1025


def test_a_passing_tensor_is_named_by_the_variable_that_holds_it() -> None:
    book = NameBook(IS_USER)
    z = leaf() * 2
    held = [leaf() * 2]
    assert book.variable_of(z, sys._getframe()) == "z"
    assert book.variable_of(held[0], sys._getframe()) == ""
    for y in held:
        assert book.variable_of(y, sys._getframe()) == "y"


class Dense(torch.nn.Module):
    """A module that looks at its parameters while it is made and while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        self.layer.weight.data.fill_(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x)
        return out


def train_after_evaluation() -> tracer.Trace:
    with tracer.trace() as trace:
        model = Dense()
        model.eval()
        for _ in range(2):
            with torch.no_grad():
                model(torch.ones(1, 2))
            model(torch.ones(1, 2)).sum().backward()
    return trace


def test_leaves_are_named_as_the_pass_sees_them_whatever_a_constructor_called_them() -> None:
    trace = train_after_evaluation()
    names = sorted(leaf.name for leaf in trace.record.leaves.values())
    assert names == ["model.layer.bias", "model.layer.weight"]


def test_an_evaluation_before_a_pass_makes_no_graph_of_its_own() -> None:
    trace = train_after_evaluation()
    assert [one.graph for one in trace.passes] == [1, 1]
    modules = [node.module for node in trace.graph.nodes if node.module is not None]
    assert {(one.path, one.call) for one in modules} == {("model.layer", 1)}


def modules_of(trace: tracer.Trace) -> dict[str, str]:
    """The modules that nodes ran in, each with those that called it, the outermost first."""
    found = {}
    for node in trace.graph.nodes:
        chain, module = [], node.module
        while module is not None:
            chain.append(f"{module.path} {module.cls}")
            module = module.parent
        if chain:
            found[chain[0]] = " > ".join(reversed(chain[1:]))
    return found


def test_a_module_knows_the_one_that_called_it() -> None:
    with tracer.trace() as trace:
        model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
        model(torch.ones(1, 2)).sum().backward()
    around = "model Sequential > model.0 Sequential"
    assert modules_of(trace) == {"model.0.0 Linear": around, "model.0.1 ReLU": around}


def test_a_module_that_a_loop_calls_has_the_name_that_lasts() -> None:
    with tracer.trace() as trace:
        layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(2))
        heads = {"a": nn.Linear(2, 2)}
        x = torch.ones(1, 2)
        for layer in layers:
            x = layer(x)
        for name in heads:
            x = heads[name](x)
        for one in [nn.ReLU()]:
            x = one(x)
        x.sum().backward()
    assert modules_of(trace) == {
        "layers.0 Linear": "", "layers.1 Linear": "", "heads['a'] Linear": "", "one ReLU": ""
    }  # fmt: skip
