"""Graphs as real programs leave them, made without torch: chains, branches, nets, loops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tracer.records import (
    Accumulate,
    Edge,
    Event,
    EventList,
    Gradient,
    Graph,
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
    TraceRecord,
)

Shape = tuple[int, ...]


@dataclass
class Tape:
    """Notes operations in forward order, as autograd does, and reads the graph off from a root.

    Inside `with tape.module(path, cls)` operations belong to that module; `site` gives those after
    it a place in source, and counts its calls.
    """

    nodes: list[Node] = field(default_factory=list)
    links: list[tuple[int, ...]] = field(default_factory=list)
    within: ModuleRef | None = None
    place: Site | None = None
    call: int = 1
    module_calls: Counter[str] = field(default_factory=Counter)
    site_calls: Counter[Site] = field(default_factory=Counter)

    def leaf(self, name: str, *shape: int) -> int:
        """Note a leaf tensor."""
        kind = NodeKind.ACCUMULATE
        node = Node(0, "AccumulateGrad", kind, None, (TensorMeta(shape),), (name,))
        return self._add(node, ())

    def op(self, name: str, *inputs: int, shape: Shape = (4, 8)) -> int:
        """Note an operation on what earlier ones gave; its node is called `nameBackward0`."""
        node = Node(
            id=0,
            name=f"{name}Backward0",
            sequence_nr=len(self.nodes),
            outputs=(TensorMeta(shape),),
            site=self.place,
            module=self.within,
            call=self.call,
        )
        return self._add(node, inputs)

    def _add(self, node: Node, inputs: tuple[int, ...]) -> int:
        self.nodes.append(node)
        self.links.append(inputs)
        return len(self.nodes) - 1

    def module(self, path: str, cls: str) -> Calling:
        """Enter a call of a module."""
        self.module_calls[path] += 1
        return Calling(self, ModuleRef(0, path, cls, self.module_calls[path], self.within))

    def at(
        self, line: int, text: str = "", function: str = "<module>", file: str = "net.py"
    ) -> None:
        """Go to a line of source, once more."""
        id = sum(map(ord, f"{file}:{line}:{text}")) * 1000 + line
        self.place = Site(id, file, line, function, text, (), text)
        self.site_calls[self.place] += 1
        self.call = self.site_calls[self.place]

    def graph(self, *roots: int) -> Graph:
        """Read off the graph below the roots; ids are dense in first-visit order."""
        order = list(dict.fromkeys(roots))
        number = {node: position for position, node in enumerate(order)}
        edges = []
        for node in order:  # grows as it is read
            for slot, target in enumerate(self.links[node]):
                if target not in number:
                    number[target] = len(order)
                    order.append(target)
                edges.append(Edge(number[node], slot, number[target]))
        nodes = tuple(_numbered(self.nodes[node], position) for position, node in enumerate(order))
        return Graph(1, nodes, tuple(edges), tuple(Root(number[root]) for root in roots))


@dataclass
class Calling:
    """A call of a module; the one around it is current again after."""

    tape: Tape
    ref: ModuleRef
    before: ModuleRef | None = None

    def __enter__(self) -> None:
        self.before, self.tape.within = self.tape.within, self.ref

    def __exit__(self, *_: object) -> None:
        self.tape.within = self.before


def _numbered(node: Node, number: int) -> Node:
    return Node(
        id=number,
        name=node.name,
        kind=node.kind,
        sequence_nr=node.sequence_nr,
        outputs=node.outputs,
        variables=node.variables,
        site=node.site,
        module=node.module,
        call=node.call,
    )


def traced(graph: Graph, norm: Callable[[Node], float] = lambda node: 1.0) -> TraceRecord:
    """Run the engine over a graph: each node, newest first, passes on a gradient of that norm."""
    events: list[Event] = [PassBegin(seq=1, pass_id=1)]
    leaves: dict[int, Leaf] = {}
    order = sorted(graph.nodes, key=lambda node: (node.is_leaf, -(node.sequence_nr or 0)))
    for number, node in enumerate(order, 2):
        meta = node.outputs[0] or TensorMeta(())
        flowing = Gradient(meta, norm(node), -1.0, 1.0, 0.0, 0, 0, 0)
        place = number - 1
        if node.is_leaf:
            leaves[len(leaves)] = Leaf(len(leaves), ", ".join(node.variables), meta)
            events.append(
                Accumulate(
                    seq=number, t_ns=2000 * place, pass_id=1, end_ns=2000 * place + 1000,
                    leaf=len(leaves) - 1, node=node.id, order=place,
                    incoming=flowing, after=flowing,
                )
            )  # fmt: skip
        else:
            returned = tuple(flowing for _ in graph.edges_from[node.id])
            events.append(
                NodeRun(
                    seq=number, t_ns=2000 * place, pass_id=1, end_ns=2000 * place + 1000,
                    node=node.id, order=place, received=(flowing,), returned=returned,
                )
            )  # fmt: skip
    events.append(PassEnd(seq=len(events) + 1, pass_id=1))
    one = Pass(
        1, graph.id, roots=graph.roots, end_ns=2000 * len(events), leaf_count=len(leaves),
        node_count=len(graph.nodes),
    )  # fmt: skip
    known = {graph.id: graph}
    return TraceRecord(Run("net.py"), {}, known, (one,), leaves, EventList(tuple(events)))


def chain(length: int, *, source: bool = True) -> Graph:
    """Multiply by one leaf over and over, in a loop whose line is known or not."""
    tape = Tape()
    weight = tape.leaf("w", 4, 8)
    value = tape.leaf("x", 4, 8)
    for _ in range(length):
        if source:
            tape.at(3, "x = x * w")
        value = tape.op("Mul", value, weight)
    return tape.graph(value)


def bare(length: int, *names: str) -> Graph:
    """Run the named operations in turn, of which neither module nor source is known."""
    tape = Tape()
    value = tape.leaf("", 4, 8)
    for step in range(length):
        value = tape.op(names[step % len(names)], value)
    return tape.graph(value)


def wide(branches: int) -> Graph:
    """Sum small branches, each with a leaf of its own, in a loop."""
    tape = Tape()
    total = tape.leaf("total", 8)
    for number in range(branches):
        leaf = tape.leaf(f"leaves[{number}]", 8)
        tape.at(4, "h = (leaf * 2).tanh()")
        branch = tape.op("Tanh", tape.op("Mul", leaf, shape=(8,)), shape=(8,))
        tape.at(5, "total = total + h")
        total = tape.op("Add", total, branch, shape=(8,))
    return tape.graph(total)


def stacked(leaves: int) -> Graph:
    """Stack many equal leaves in one operation."""
    tape = Tape()
    return tape.graph(tape.op("Stack", *(tape.leaf(f"p[{n}]", 8) for n in range(leaves))))


def linear(tape: Tape, path: str, value: int, size: int = 8) -> int:
    """Note `nn.Linear`: a transposed weight, a bias and an `addmm`."""
    with tape.module(path, "Linear"):
        weight, bias = tape.leaf(f"{path}.weight", size, 8), tape.leaf(f"{path}.bias", size)
        return tape.op("Addmm", bias, value, tape.op("T", weight, shape=(8, size)), shape=(4, size))


def mlp(layers: int) -> Graph:
    """Run `nn.Sequential` of linear layers and activations."""
    tape = Tape()
    value = tape.leaf("x", 4, 8)
    with tape.module("model", "Sequential"):
        for layer in range(layers):
            value = linear(tape, f"model.{2 * layer}", value)
            with tape.module(f"model.{2 * layer + 1}", "ReLU"):
                value = tape.op("Relu", value)
    tape.at(9, "loss = y.sum()")
    return tape.graph(tape.op("Sum", value, shape=()))


def transformer(layers: int, *, wider: int = -1) -> Graph:
    """Run a net in the likeness of GPT-2: embeddings, equal blocks, a head tied to the embedding.

    `wider` is a block whose feed-forward part has other shapes.
    """
    tape = Tape()
    table = tape.leaf("model.transformer.wte.weight", 50, 8)
    with tape.module("model", "GPT"):
        with tape.module("model.transformer", "Decoder"):
            with tape.module("model.transformer.wte", "Embedding"):
                value = tape.op("Embedding", table)
            with tape.module("model.transformer.wpe", "Embedding"):
                value = tape.op(
                    "Add",
                    value,
                    tape.op("Embedding", tape.leaf("model.transformer.wpe.weight", 9, 8)),
                )
            for layer in range(layers):
                path = f"model.transformer.h.{layer}"
                value = block(tape, path, value, 64 if layer == wider else 32)
            value = _norm(tape, "model.transformer.ln_f", value)
        with tape.module("model.lm_head", "Linear"):
            value = tape.op("Mm", value, tape.op("T", table, shape=(8, 50)), shape=(4, 50))
    tape.at(20, "loss = cross_entropy(logits, targets)")
    value = tape.op("LogSoftmax", tape.op("View", value, shape=(4, 50)), shape=(4, 50))
    return tape.graph(tape.op("NllLoss", value, shape=()))


def _norm(tape: Tape, path: str, value: int) -> int:
    with tape.module(path, "LayerNorm"):
        return tape.op(
            "NativeLayerNorm", value, tape.leaf(f"{path}.weight", 8), tape.leaf(f"{path}.bias", 8)
        )


def block(tape: Tape, path: str, value: int, size: int) -> int:
    """Note one transformer block: norms, attention and a feed-forward part of that size."""
    with tape.module(path, "Block"):
        normed = _norm(tape, f"{path}.ln_1", value)
        with tape.module(f"{path}.attn", "Attention"):
            joint = linear(tape, f"{path}.attn.c_attn", normed, 24)
            split = tape.op("Split", tape.op("View", joint))
            query, key, given = (tape.op("Transpose", tape.op("View", split)) for _ in range(3))
            scores = tape.op("Bmm", query, tape.op("Transpose", key))
            weights = tape.op("Softmax", tape.op("Div", scores))
            mixed = tape.op("View", tape.op("Transpose", tape.op("Bmm", weights, given)))
            attended = linear(tape, f"{path}.attn.c_proj", mixed)
        value = tape.op("Add", value, attended)
        normed = _norm(tape, f"{path}.ln_2", value)
        with tape.module(f"{path}.mlp", "MLP"):
            hidden = linear(tape, f"{path}.mlp.c_fc", normed, size)
            with tape.module(f"{path}.mlp.act", "GELU"):
                hidden = tape.op("Gelu", hidden, shape=(4, size))
            hidden = linear(tape, f"{path}.mlp.c_proj", hidden)
        return tape.op("Add", value, hidden)


def resnet(depths: tuple[int, ...] = (3, 4, 6, 3)) -> Graph:
    """Run a net in the likeness of ResNet-50: four stages of bottleneck blocks."""
    tape = Tape()
    value = tape.leaf("images", 4, 3)
    with tape.module("net", "ResNet"):
        value = _conv(tape, "net.conv1", "net.bn1", value, 64)
        with tape.module("net.relu", "ReLU"):
            value = tape.op("Relu", value)
        with tape.module("net.maxpool", "MaxPool2d"):
            value = tape.op("MaxPool2DWithIndices", value)
        for stage, depth in enumerate(depths, 1):
            with tape.module(f"net.layer{stage}", "Sequential"):
                for block in range(depth):
                    path = f"net.layer{stage}.{block}"
                    value = _bottleneck(tape, path, value, 64 * 2**stage, first=block == 0)
        with tape.module("net.avgpool", "AdaptiveAvgPool2d"):
            value = tape.op("Mean", value)
        value = linear(tape, "net.fc", tape.op("View", value), 10)
    tape.at(30, "loss = criterion(net(images), labels)")
    value = tape.op("NllLoss", tape.op("LogSoftmax", value, shape=(4, 10)), shape=())
    return tape.graph(value)


def _conv(tape: Tape, conv: str, norm: str, value: int, size: int) -> int:
    with tape.module(conv, "Conv2d"):
        value = tape.op("Convolution", value, tape.leaf(f"{conv}.weight", size), shape=(size,))
    with tape.module(norm, "BatchNorm2d"):
        weight, bias = tape.leaf(f"{norm}.weight", size), tape.leaf(f"{norm}.bias", size)
        return tape.op("NativeBatchNorm", value, weight, bias, shape=(size,))


def _bottleneck(tape: Tape, path: str, value: int, size: int, *, first: bool) -> int:
    with tape.module(path, "Bottleneck"):
        hidden = value
        for number in (1, 2, 3):
            hidden = _conv(tape, f"{path}.conv{number}", f"{path}.bn{number}", hidden, size)
            if number < 3:
                with tape.module(f"{path}.relu", "ReLU"):
                    hidden = tape.op("Relu", hidden, shape=(size,))
        if first:
            with tape.module(f"{path}.downsample", "Sequential"):
                parts = f"{path}.downsample.0", f"{path}.downsample.1"
                value = _conv(tape, *parts, value, size)
        value = tape.op("Add", hidden, value, shape=(size,))
        with tape.module(f"{path}.relu", "ReLU"):
            return tape.op("Relu", value, shape=(size,))


def lstm(steps: int, *, function: str = "step") -> Graph:
    """Unroll an LSTM written out in a function of its own, and sum a loss of every step."""
    tape = Tape()
    weight, bias = tape.leaf("w", 8, 32), tape.leaf("b", 32)
    hidden = tape.leaf("h", 4, 8)
    memory = tape.leaf("c", 4, 8)
    loss = tape.leaf("loss", 1)
    for _ in range(steps):
        tape.at(3, "gates = h @ w + b", function)
        gates = tape.op("Add", tape.op("Mm", hidden, weight, shape=(4, 32)), bias, shape=(4, 32))
        tape.at(4, "i, f, g, o = gates.chunk(4, 1)", function)
        parts = tape.op("Split", gates)
        tape.at(5, "c = f.sigmoid() * c + i.sigmoid() * g.tanh()", function)
        kept = tape.op("Mul", tape.op("Sigmoid", parts), memory)
        fresh = tape.op("Mul", tape.op("Sigmoid", parts), tape.op("Tanh", parts))
        memory = tape.op("Add", kept, fresh)
        tape.at(6, "h = o.sigmoid() * c.tanh()", function)
        hidden = tape.op("Mul", tape.op("Sigmoid", parts), tape.op("Tanh", memory))
        tape.at(12, "loss = loss + h.pow(2).sum()")
        square = tape.op("Sum", tape.op("Pow", hidden), shape=(1,))
        loss = tape.op("Add", loss, square, shape=(1,))
    return tape.graph(loss)


def recurrent_module(steps: int) -> Graph:
    """Call one module over and over, each time with another inside."""
    tape = Tape()
    value = tape.leaf("h", 4, 8)
    weight = tape.leaf("cell.proj.weight", 8, 8)
    for _ in range(steps):
        tape.at(7, "h = cell(h)")
        with tape.module("cell", "Cell"):
            with tape.module("cell.proj", "Linear"):
                value = tape.op("Mm", value, tape.op("T", weight))
            value = tape.op("Tanh", value)
    return tape.graph(value)


def two_nets(steps: int) -> Graph:
    """Run two nets in turn on values of their own, and join them at the end."""
    tape = Tape()
    one, other = tape.leaf("x", 4, 8), tape.leaf("y", 4, 8)
    for step in range(steps):
        one = linear(tape, f"left.{step}", one)
        other = linear(tape, f"right.{step}", other)
    return tape.graph(tape.op("Mul", one, other))
