"""Hand-made traces of the document's four examples, and of graphs of any size, without torch."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from tracer.records import (
    Accumulate,
    Cut,
    DataWrite,
    Edge,
    Event,
    EventList,
    Forward,
    Gradient,
    GradMode,
    GradRead,
    GradWrite,
    Graph,
    Hook,
    HookAdded,
    HookRemoved,
    HookRun,
    Leaf,
    ModuleRef,
    Node,
    NodeKind,
    NodeRun,
    Pass,
    PassBegin,
    PassEnd,
    Root,
    Run,
    Site,
    TensorMeta,
    TensorRef,
    TraceRecord,
)

E = TypeVar("E", bound=Event)
Shape = tuple[int, ...]
KEPT = 16


def float32(value: float) -> float:
    """The float32 nearest to a number, as a Python float."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def vector(*values: float, shape: Shape | None = None) -> Gradient:
    """What the recorder would note of a small tensor with these elements."""
    meta = TensorMeta((len(values),) if shape is None else shape)
    finite = not any(math.isnan(value) for value in values)
    return Gradient(
        meta,
        norm=math.sqrt(sum(value * value for value in values)),
        min=min(values) if finite else math.nan,
        max=max(values) if finite else math.nan,
        mean=sum(values) / len(values),
        zeros=sum(value == 0 for value in values),
        nans=sum(math.isnan(value) for value in values),
        infs=sum(math.isinf(value) for value in values),
        values=values if len(values) <= KEPT else None,
    )


def full(value: float, shape: Shape = ()) -> Gradient:
    """What the recorder would note of a tensor that holds one value everywhere."""
    return vector(*[value] * math.prod(shape), shape=shape)


def spread(norm: float, shape: Shape, *, mean: float = 0.0) -> Gradient:
    """What the recorder would note of a large tensor: statistics without values."""
    meta = TensorMeta(shape)
    deviation = norm / math.sqrt(meta.numel)
    return Gradient(meta, norm, mean - 2 * deviation, mean + 2 * deviation, mean, 0, 0, 0)


class Script:
    """A user's script: its text, and the places in it."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text.lstrip("\n")
        self._lines = self.text.splitlines()
        self._sites: dict[tuple[int, str], Site] = {}

    def line(self, part: str) -> int:
        """The number of the first line that holds `part`."""
        return next(number for number, line in enumerate(self._lines, 1) if part in line)

    def at(self, statement: str, expression: str = "", *, function: str = "<module>") -> Site:
        """The site of an expression in a statement: by default all that is right of its ` = `."""
        line = self.line(statement)
        text = self._lines[line - 1].strip()
        left, equals, right = text.partition(" = ")
        targets = tuple(left.split(", ")) if equals and not expression else ()
        expression = expression or (right if equals else text)
        key = line, expression
        if key not in self._sites:
            number = len(self._sites) + 1
            self._sites[key] = Site(number, self.file, line, function, expression, targets, text)
        return self._sites[key]


class Recording:
    """Collects events in order, 3 µs apart, and makes the trace of them."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.events: list[Event] = []
        self.passes: list[Pass] = []
        self.graphs: dict[int, Graph] = {}
        self.leaves: dict[int, Leaf] = {}

    def add(self, kind: type[E], *, pass_id: int | None = None, **fields: object) -> E:
        """Append an event of a kind."""
        seq = len(self.events) + 1
        event = kind(seq=seq, t_ns=3000 * seq, pass_id=pass_id, **fields)
        self.events.append(event)
        return event

    def forward(
        self, op: str, site: Site, *inputs: TensorRef, shape: Shape, **fields: object
    ) -> TensorRef:
        """Append a forward operation and return its output."""
        seq = len(self.events) + 1
        output = TensorRef(TensorMeta(shape), made_by=seq)
        self.add(Forward, op=op, site=site, inputs=inputs, outputs=(output,), **fields)
        return output

    def leaf(self, name: str, value: Gradient, site: Site | None = None) -> TensorRef:
        """Make a leaf tensor known."""
        number = len(self.leaves) + 1
        self.leaves[number] = Leaf(number, name, value.meta, site, value)
        return TensorRef(value.meta, leaf=number, name=name)

    def begin(self, graph: Graph, site: Site, **fields: object) -> int:
        """Enter the engine."""
        self.graphs[graph.id] = graph
        number = len(self.passes) + 1
        event = self.add(PassBegin, pass_id=number)
        self.passes.append(
            Pass(
                number, graph.id, site=site, roots=graph.roots, begin_ns=event.t_ns,
                node_count=len(graph.nodes), leaf_count=len(graph.leaves), **fields
            )
        )  # fmt: skip
        return number

    def node(
        self,
        pass_id: int,
        node: int,
        received: Sequence[Gradient | None],
        returned: Sequence[Gradient | None],
    ) -> None:
        """Append the execution of a node, 2 µs long."""
        self.add(
            NodeRun, pass_id=pass_id, node=node, order=self._order(pass_id),
            end_ns=3000 * (len(self.events) + 1) + 2000, received=tuple(received),
            returned=tuple(returned),
        )  # fmt: skip

    def accumulate(
        self, pass_id: int, node: int, leaf: int, change: tuple[Gradient | None, Gradient, Gradient]
    ) -> None:
        """Append the engine's write to a leaf's `.grad`: before, incoming, after."""
        before, incoming, after = change
        self.add(
            Accumulate, pass_id=pass_id, node=node, leaf=leaf, order=self._order(pass_id),
            end_ns=3000 * (len(self.events) + 1) + 1000, before=before, incoming=incoming,
            after=after,
        )  # fmt: skip

    def _order(self, pass_id: int) -> int:
        ran = 0
        for event in reversed(self.events):
            if isinstance(event, PassBegin) and event.pass_id == pass_id:
                break
            ran += isinstance(event, (NodeRun, Accumulate)) and event.pass_id == pass_id
        return ran + 1

    def end(self, pass_id: int) -> None:
        """Leave the engine."""
        event = self.add(PassEnd, pass_id=pass_id)
        self.passes[pass_id - 1] = replace(self.passes[pass_id - 1], end_ns=event.t_ns)

    def trace(self) -> TraceRecord:
        """Make the whole record."""
        script = self.script
        return TraceRecord(
            run=Run(
                script.file, (script.file,), started=1_700_000_000.0, host="example", pid=1,
                versions=(("torch", "2.13.0"), ("python", "3.11.4"), ("tracer", "0.1.0")),
                outcome="ok",
            ),
            sources={script.file: script.text},
            graphs=self.graphs,
            passes=tuple(self.passes),
            leaves=self.leaves,
            events=EventList(tuple(self.events)),
        )  # fmt: skip


def operation(number: int, name: str, site: Site, shape: Shape, **fields: object) -> Node:
    """An operation's node; its variables are what its site binds."""
    fields = {"sequence_nr": 100 - number, "variables": site.targets} | fields
    return Node(number, name, outputs=(TensorMeta(shape),), site=site, **fields)


def accumulator(number: int, name: str, shape: Shape, **fields: object) -> Node:
    """The `AccumulateGrad` of the leaf of that name."""
    return Node(
        number, "AccumulateGrad", NodeKind.ACCUMULATE, outputs=(TensorMeta(shape),),
        variables=(name,), **fields
    )  # fmt: skip


def edges(*ends: tuple[int, int, int]) -> tuple[Edge, ...]:
    """Edges from (source, slot, target) triples, all to input 0."""
    return tuple(Edge(source, slot, target) for source, slot, target in ends)


VECTOR_JACOBIAN = Script(
    "vector_jacobian.py",
    """
import torch

m1 = torch.ones(3, 2, requires_grad=True)
m2 = torch.full((3, 2), 2.0, requires_grad=True)
m3 = torch.full((3, 2), 4.0, requires_grad=True)
x1 = m1 * m2
x2 = x1 * m3
y = x1 + x2
gradients = torch.ones(3, 2)
y.backward(gradients)
for tensor in (m1, m2, m3, x1, x2, y):
    print(tensor.grad)
""",
)


def vector_jacobian() -> TraceRecord:
    """Two paths meet at x1: m1.grad 10, m2.grad 5, m3.grad 2, and x1, x2, y have none."""
    script, shape = VECTOR_JACOBIAN, (3, 2)
    made = Recording(script)
    m1, m2, m3 = (
        made.leaf(name, full(value, shape), script.at(f"{name} = "))
        for name, value in (("m1", 1.0), ("m2", 2.0), ("m3", 4.0))
    )
    at_x1, at_x2, at_y = (
        script.at(text) for text in ("x1 = m1 * m2", "x2 = x1 * m3", "y = x1 + x2")
    )
    x1 = made.forward("Tensor.mul", at_x1, m1, m2, shape=shape, sequence_nrs=(98, 99))
    x2 = made.forward("Tensor.mul", at_x2, x1, m3, shape=shape, sequence_nrs=(99, 100))
    made.forward("Tensor.add", at_y, x1, x2, shape=shape, sequence_nrs=(100, 101))
    graph = Graph(
        1,
        (
            operation(0, "AddBackward0", at_y, shape, op="Tensor.add", sequence_nr=100),
            operation(1, "MulBackward0", at_x1, shape, op="Tensor.mul", sequence_nr=98),
            operation(2, "MulBackward0", at_x2, shape, op="Tensor.mul", sequence_nr=99),
            accumulator(3, "m1", shape),
            accumulator(4, "m2", shape),
            accumulator(5, "m3", shape),
        ),
        edges((0, 0, 1), (0, 1, 2), (1, 0, 3), (1, 1, 4), (2, 0, 1), (2, 1, 5)),
        (Root(0),),
    )
    one, two, four, five, ten = (full(value, shape) for value in (1.0, 2.0, 4.0, 5.0, 10.0))
    ran = made.begin(graph, script.at("y.backward(gradients)"), seeds=(one,))
    made.node(ran, 0, [one], [one, one])
    made.node(ran, 2, [one], [four, two])
    made.accumulate(ran, 5, 3, (None, two, two))
    made.node(ran, 1, [five], [ten, five])
    made.accumulate(ran, 3, 1, (None, ten, ten))
    made.accumulate(ran, 4, 2, (None, five, five))
    made.end(ran)
    for name, number in (("x1", 98), ("x2", 99), ("y", 100)):
        made.add(GradRead, tensor=name, sequence_nr=number, site=script.at("print(tensor.grad)"))
    return made.trace()


HOOKS = Script(
    "hooks.py",
    """
import torch

v = torch.tensor([2.0, 2.0, 2.0], requires_grad=True)

handle = v.register_hook(lambda grad: grad * grad)

v.backward(torch.tensor([1.0, 1.0, 2.0]))
print(v.grad)
v.backward(torch.tensor([1.0, 1.0, 1.0]))
print(v.grad)
handle.remove()
""",
)


def hooks() -> TraceRecord:
    """A hook squares the gradient before it is accumulated; the second pass adds to the first."""
    script = HOOKS
    made = Recording(script)
    made.leaf("v", vector(2.0, 2.0, 2.0), script.at("v = "))
    at_hook = script.at("handle = ")
    hook = Hook(1, "tensor hook", "grad * grad", "v", defined=at_hook, added=at_hook)
    made.add(HookAdded, hook=hook, site=at_hook)
    graph = Graph(1, (accumulator(0, "v", (3,)),), (), (Root(0),))
    held = None
    for seed in (vector(1.0, 1.0, 2.0), vector(1.0, 1.0, 1.0)):
        squared = vector(*(value * value for value in seed.values))
        after = squared
        if held is not None:
            after = vector(*(a + b for a, b in zip(held.values, squared.values, strict=True)))
        ran = made.begin(
            graph, script.at(f"v.backward(torch.tensor({list(seed.values)}))"), seeds=(seed,)
        )
        made.add(
            HookRun, pass_id=ran, hook=hook, node=0, input_nr=0, before=(seed,), after=(squared,),
            changed=seed.values != squared.values,
        )  # fmt: skip
        made.accumulate(ran, 0, 1, (held, squared, after))
        made.end(ran)
        held = after
    made.add(HookRemoved, hook=hook, site=script.at("handle.remove()"))
    return made.trace()


NO_GRAD = Script(
    "no_grad.py",
    """
import torch

def net(X, w, b):
    return X @ w + b

def loss(prediction, y):
    return ((prediction - y) ** 2 / 2).mean()

features = torch.randn(100, 2)
labels = features @ torch.tensor([[2.0], [-3.4]]) + 4.2
w = torch.full((2, 1), 0.01, requires_grad=True)
b = torch.zeros(1, requires_grad=True)
l = loss(net(features, w, b), labels)
l.backward()
with torch.no_grad():
    w -= 0.03 * w.grad
    b -= 0.03 * b.grad
for epoch in range(3):
    with torch.no_grad():
        train_l = loss(net(features, w, b), labels)
        print(f"epoch {epoch}, loss {float(train_l):f}")
""",
)


def no_grad(evaluations: int = 1) -> TraceRecord:
    """A training pass has a graph; the evaluation under `no_grad` stands outside it."""
    script = NO_GRAD
    made = Recording(script)
    features = TensorRef(TensorMeta((100, 2)), name="features")
    labels = TensorRef(TensorMeta((100, 1)), name="labels")
    w = made.leaf("w", vector(0.01, 0.01, shape=(2, 1)), script.at("w = "))
    b = made.leaf("b", full(0.0, (1,)), script.at("b = "))
    sites = _regression_sites(script)
    operands = (features, w, b, labels)
    _regression(made, operands, sites, sequence_nr=90)
    _train(made, sites)
    entered = script.at("with torch.no_grad():", "torch.no_grad()")
    made.add(GradMode, mode="no_grad", site=entered)
    _step(made, w, "w -= 0.03 * w.grad", vector(-0.05, 0.11, shape=(2, 1)))
    _step(made, b, "b -= 0.03 * b.grad", full(0.126, (1,)))
    made.add(GradMode, mode="grad", site=entered)
    region = Site(90, script.file, 19, "<module>", "torch.no_grad()", (), "with torch.no_grad():")
    for _ in range(evaluations):
        made.add(GradMode, mode="no_grad", site=region)
        _regression(made, operands, sites, region=region)
        made.add(GradMode, mode="grad", site=region)
    return made.trace()


def _regression_sites(script: Script) -> tuple[Site, ...]:
    net, loss = "return X @ w + b", "return ((prediction - y) ** 2 / 2).mean()"
    return (
        script.at(net, "X @ w", function="net"),
        script.at(net, "X @ w + b", function="net"),
        script.at(loss, "prediction - y", function="loss"),
        script.at(loss, "(prediction - y) ** 2", function="loss"),
        script.at(loss, "(prediction - y) ** 2 / 2", function="loss"),
        script.at(loss, "((prediction - y) ** 2 / 2).mean()", function="loss"),
    )


def _regression(
    made: Recording,
    operands: tuple[TensorRef, TensorRef, TensorRef, TensorRef],
    sites: tuple[Site, ...],
    *,
    sequence_nr: int | None = None,
    region: Site | None = None,
) -> TensorRef:
    """Append the six forward operations, each with a node of its own or else inside a region."""
    features, w, b, labels = operands
    mode = "grad" if region is None else "no_grad"
    names = ("torch.matmul", "Tensor.add", "Tensor.sub", "Tensor.pow", "Tensor.div", "Tensor.mean")
    others = (w, b, labels, None, None, None)
    value = features
    for step, (name, other, site) in enumerate(zip(names, others, sites, strict=True)):
        numbers = (0, 0) if sequence_nr is None else (sequence_nr + step, sequence_nr + step + 1)
        cut = None
        if region is not None and other is not None and other.leaf is not None:
            cut = Cut("no_grad", (other.name,), region)
        inputs = (value,) if other is None else (value, other)
        value = made.forward(
            name, site, *inputs, shape=() if step == 5 else (100, 1), sequence_nrs=numbers,
            grad_mode=mode, cut=cut,
        )  # fmt: skip
    return value


def _train(made: Recording, sites: tuple[Site, ...]) -> None:
    names = ("Mm", "Add", "Sub", "Pow", "Div", "Mean")
    wide = (100, 1)
    nodes = [
        operation(
            5 - step, f"{name}Backward0", sites[step], () if step == 5 else wide,
            sequence_nr=90 + step, variables=("l",) if step == 5 else (),
        )
        for step, name in enumerate(names)
    ]  # fmt: skip
    graph = Graph(
        1,
        (*reversed(nodes), accumulator(6, "b", (1,)), accumulator(7, "w", (2, 1))),
        edges((0, 0, 1), (1, 0, 2), (2, 0, 3), (3, 0, 4), (4, 0, 5), (4, 1, 6), (5, 1, 7)),
        (Root(0),),
    )
    one, each = full(1.0), full(0.01, wide)
    error = spread(0.62, wide, mean=-0.042)
    to_w, to_b = vector(2.0125, -3.6875, shape=(2, 1)), full(-4.2, (1,))
    ran = made.begin(graph, made.script.at("l.backward()"), seeds=(None,))
    made.node(ran, 0, [one], [each])
    made.node(ran, 1, [each], [full(0.005, wide), None])
    made.node(ran, 2, [full(0.005, wide)], [error, None])
    made.node(ran, 3, [error], [error, None])
    made.node(ran, 4, [error], [error, to_b])
    made.accumulate(ran, 6, 2, (None, to_b, to_b))
    made.node(ran, 5, [error], [None, to_w])
    made.accumulate(ran, 7, 1, (None, to_w, to_w))
    made.end(ran)


def _step(made: Recording, leaf: TensorRef, statement: str, after: Gradient) -> None:
    """Append an update of a leaf by hand, under `no_grad`."""
    shape = after.meta.shape
    right = statement.partition("-= ")[2]
    grad = TensorRef(after.meta, name=f"{leaf.name}.grad")
    at_product = made.script.at(statement, right)
    change = made.forward("Tensor.mul", at_product, grad, shape=shape, grad_mode="no_grad")
    site = made.script.at(statement)
    made.forward("Tensor.sub_", site, leaf, change, shape=shape, grad_mode="no_grad")
    before = made.leaves[leaf.leaf].value
    made.add(DataWrite, leaf=leaf.leaf, how="sub_", before=before, after=after, site=site)


SGD = Script(
    "sgd.py",
    """
import torch

X = torch.full((1, 100), 100.0)
b = torch.ones(1, requires_grad=True)

for epoch in range(200):
    loss = torch.sum((b - X) ** 2)
    b.grad = torch.zeros(1)
    loss.backward()
    b.data = b.data - b.grad * (1 / 100) / 10
print(b, b.grad)
""",
)


def sgd(epochs: int = 200) -> TraceRecord:
    """Two hundred passes share one graph; b goes to 100 and its gradient to 0."""
    made = Recording(SGD)
    value = 1.0
    made.leaf("b", full(value, (1,)), SGD.at("b = "))
    graph = _sgd_graph()
    grad: Gradient | None = None
    for epoch in range(epochs):
        _sgd_forward(made, 3 * epoch)
        zeroed = full(0.0, (1,))
        made.add(
            GradWrite, leaf=1, how=".grad =", before=grad, after=zeroed, site=SGD.at("b.grad = ")
        )
        grad = _sgd_backward(made, graph, value)
        step = float32(value - float32(grad.values[0] / 1000))
        made.add(
            DataWrite, leaf=1, how=".data =", before=full(value, (1,)), after=full(step, (1,)),
            site=SGD.at("b.data = "),
        )  # fmt: skip
        value = step
    return made.trace()


def _sgd_sites() -> tuple[Site, Site, Site]:
    line = "loss = torch.sum((b - X) ** 2)"
    return SGD.at(line, "b - X"), SGD.at(line, "(b - X) ** 2"), SGD.at(line)


def _sgd_graph() -> Graph:
    sub, power, total = _sgd_sites()
    nodes = (
        operation(0, "SumBackward0", total, (), sequence_nr=2),
        operation(1, "PowBackward0", power, (1, 100), sequence_nr=1),
        operation(2, "SubBackward0", sub, (1, 100), sequence_nr=0),
        accumulator(3, "b", (1,)),
    )
    return Graph(1, nodes, edges((0, 0, 1), (1, 0, 2), (2, 0, 3)), (Root(0),))


def _sgd_forward(made: Recording, number: int) -> None:
    sub, power, total = _sgd_sites()
    b = TensorRef(TensorMeta((1,)), leaf=1, name="b")
    X = TensorRef(TensorMeta((1, 100)), name="X")
    less = made.forward("Tensor.sub", sub, b, X, shape=(1, 100), sequence_nrs=(number, number + 1))
    squares = made.forward(
        "Tensor.pow", power, less, shape=(1, 100), sequence_nrs=(number + 1, number + 2)
    )
    made.forward("torch.sum", total, squares, shape=(), sequence_nrs=(number + 2, number + 3))


def _sgd_backward(made: Recording, graph: Graph, value: float) -> Gradient:
    one, ones = full(1.0), full(1.0, (1, 100))
    slope = full(float32(2 * (value - 100)), (1, 100))
    grad = full(float32(200 * (value - 100)), (1,))
    ran = made.begin(graph, SGD.at("loss.backward()"), seeds=(None,))
    made.node(ran, 0, [one], [ones])
    made.node(ran, 1, [ones], [slope])
    made.node(ran, 2, [slope], [grad, None])
    made.accumulate(ran, 3, 1, (full(0.0, (1,)), grad, grad))
    made.end(ran)
    return grad


SIZED = Script("sized.py", "import torch\n\nx = x * a\ny = x.sum()\ny.backward()\n")


def chain(length: int) -> TraceRecord:
    """One pass down a chain of `length` multiplications to one leaf, each doubling the gradient."""
    made = Recording(SIZED)
    made.leaf("a", full(2.0))
    site = SIZED.at("x = x * a")
    nodes = [operation(n, "MulBackward0", site, (), call=length - n) for n in range(length)]
    links = edges(*((n, 0, n + 1) for n in range(length)))
    graph = Graph(1, (*nodes, accumulator(length, "a", ())), links, (Root(0),))
    ran = made.begin(graph, SIZED.at("y.backward()"), seeds=(None,))
    for number in range(length):
        flowing = full(1.0 + number)
        _quick_node(made, ran, number, flowing, (full(2.0 + number), None))
    last = full(1.0 + length)
    _quick_leaf(made, ran, length, length + 1, last)
    made.end(ran)
    return made.trace()


def branching(branches: int) -> TraceRecord:
    """One pass from a sum of `branches` products to as many leaves."""
    made = Recording(SIZED)
    site = SIZED.at("x = x * a")
    nodes = [operation(0, "SumBackward0", SIZED.at("y = x.sum()"), ())]
    links: list[tuple[int, int, int]] = []
    for number in range(branches):
        made.leaf(f"a{number}", full(2.0))
        product = 1 + number
        nodes.append(operation(product, "MulBackward0", site, (), call=number + 1))
        links += [(0, number, product), (product, 0, 1 + branches + number)]
    nodes += [accumulator(1 + branches + number, f"a{number}", ()) for number in range(branches)]
    graph = Graph(1, tuple(nodes), edges(*links), (Root(0),))
    one = full(1.0)
    ran = made.begin(graph, SIZED.at("y.backward()"), seeds=(None,))
    _quick_node(made, ran, 0, one, (one,) * branches)
    for number in range(branches):
        order = 2 + 2 * number
        _quick_node(made, ran, 1 + number, one, (full(2.0),), order=order)
        _quick_leaf(made, ran, 1 + branches + number, order + 1, full(2.0), leaf=number + 1)
    made.end(ran)
    return made.trace()


PERCEPTRON = Script(
    "perceptron.py",
    """
import torch
from torch import nn

class Block(nn.Module):
    def forward(self, x):
        return torch.relu(self.linear(x))

y = model(x).sum()
y.backward()
""",
)


def perceptron(blocks: int = 3) -> TraceRecord:
    """One pass through equal blocks (`layers.0`, `layers.1`, …) of a linear layer and a ReLU."""
    made = Recording(PERCEPTRON)
    at_block = PERCEPTRON.at(
        "return torch.relu(self.linear(x))", "torch.relu(self.linear(x))", function="forward"
    )
    at_linear = PERCEPTRON.at(
        "return torch.relu(self.linear(x))", "self.linear(x)", function="forward"
    )
    at_sum = PERCEPTRON.at("y = model(x).sum()")
    nodes = [operation(0, "SumBackward0", at_sum, (), module=ModuleRef(1, "", "Model"))]
    links: list[tuple[int, int, int]] = []
    for step in range(blocks):
        call, first = blocks - step, 1 + 5 * step
        path = f"layers.{call - 1}"
        block = ModuleRef(2 + 2 * step, path, "Block")
        linear = ModuleRef(3 + 2 * step, f"{path}.linear", "Linear")
        nodes += [
            operation(first, "ReluBackward0", at_block, (8, 64), module=block, call=call),
            operation(first + 1, "AddmmBackward0", at_linear, (8, 64), module=linear, call=call),
            operation(first + 2, "TBackward0", at_linear, (64, 64), module=linear, call=call),
            accumulator(first + 3, f"{path}.linear.bias", (64,), module=linear),
            accumulator(first + 4, f"{path}.linear.weight", (64, 64), module=linear),
        ]
        links += [
            (max(first - 4, 0), 1 if step else 0, first), (first, 0, first + 1),
            (first + 1, 0, first + 3), (first + 1, 2, first + 2), (first + 2, 0, first + 4),
        ]  # fmt: skip
        made.leaf(f"{path}.linear.bias", spread(0.1, (64,)))
        made.leaf(f"{path}.linear.weight", spread(4.0, (64, 64)))
    graph = Graph(1, tuple(nodes), edges(*links), (Root(0),))
    _perceptron_pass(made, graph, blocks)
    return made.trace()


def _perceptron_pass(made: Recording, graph: Graph, blocks: int) -> None:
    ran = made.begin(graph, PERCEPTRON.at("y.backward()"), seeds=(None,))
    flowing = full(1.0, (8, 64))
    made.node(ran, 0, [full(1.0)], [flowing])
    for step in range(blocks):
        first, norm = 1 + 5 * step, 20.0 * 0.5**step
        relu, weight, bias = (spread(norm, shape) for shape in ((8, 64), (64, 64), (64,)))
        made.node(ran, first, [flowing], [relu])
        flowing = spread(norm / 2, (8, 64))
        made.node(ran, first + 1, [relu], [bias, flowing if step < blocks - 1 else None, weight])
        made.accumulate(ran, first + 3, 2 * step + 1, (None, bias, bias))
        made.node(ran, first + 2, [weight], [weight])
        made.accumulate(ran, first + 4, 2 * step + 2, (None, weight, weight))
    made.end(ran)


def _quick_node(
    made: Recording,
    pass_id: int,
    node: int,
    received: Gradient,
    returned: Sequence[Gradient | None],
    *,
    order: int | None = None,
) -> None:
    """Append a node's execution where the order is known, for traces too long to count it."""
    made.add(
        NodeRun, pass_id=pass_id, node=node, order=order or node + 1,
        end_ns=3000 * (len(made.events) + 1) + 2000, received=(received,), returned=tuple(returned),
    )  # fmt: skip


def _quick_leaf(
    made: Recording, pass_id: int, node: int, order: int, incoming: Gradient, *, leaf: int = 1
) -> None:
    made.add(
        Accumulate, pass_id=pass_id, node=node, leaf=leaf, order=order,
        end_ns=3000 * (len(made.events) + 1) + 1000, before=None, incoming=incoming, after=incoming,
    )  # fmt: skip
