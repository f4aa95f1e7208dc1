"""Records in, the short words that pictures, timelines and tables say them with."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import overload

from tracer.records.graph import Graph, Node, SavedTensor, Site
from tracer.records.tensors import NOT_ASKED, Gradient, Scalar, TensorMeta

_DTYPES = {
    "float16": "f16", "float32": "f32", "float64": "f64", "bfloat16": "bf16", "complex64": "c64",
    "complex128": "c128", "int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64",
    "uint8": "u8", "float8_e4m3fn": "f8e4m3", "float8_e5m2": "f8e5m2",
}  # fmt: skip
_LONGEST_LIST = 34
_MOST_VALUES = 16
_BREAK = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*|\t")
BACKWARD_OF = "backward of "
"""Begins the `op` of a node that a backward pass made (see `Node`)."""
_ONE_COLUMN = re.compile("[ -\u02ff\u2010-\u2027\u2030-\u205e\u2190-\u22ff\u2500-\u259f]*")
"""What takes one column a character, and is nearly all there is."""
_BACKWARD = re.compile(r"Backward\d*$")
_TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def number(value: Scalar) -> str:
    """A number in few characters: `5`, `0.0123`, `1.2e-05`, `nan`."""
    if type(value) is float:  # as nearly all are: the rest is for the others
        if value.is_integer():
            if -1e6 < value < 1e6:
                return str(int(value))
        elif 1e-3 <= abs(value) < 9999.5:
            return f"{value:.4g}"
    if type(value) is not float and isinstance(value, complex):
        sign = "-" if value.imag < 0 else "+"
        return f"{number(value.real)}{sign}{number(abs(value.imag))}j"
    if isinstance(value, bool) or not math.isfinite(value):
        return str(value)
    size = abs(value)
    if value == int(value) and size < 1e6:
        return str(int(value))
    if 1e-3 <= size < 1e5:
        return f"{value:.0f}" if size >= 9999.5 else f"{value:.4g}"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{exponent}"


def brief(value: float) -> str:
    """A number in three digits, or as an integer, where many stand together: `0.0123`, `2048`."""
    return number(round(value) if 1e3 <= abs(value) < 1e6 else float(f"{value:.3g}"))


def tensor(seen: Gradient | None, *, norm: str = "‖g‖") -> str:
    """What a tensor holds: its one value, its few values, or its norm; NaN and Inf before all."""
    if seen is None:
        return "None"
    if seen.unread:
        return shape(seen.meta) if seen.unread == NOT_ASKED else f"not read ({seen.unread})"
    listed = _listed(seen) if seen.values is not None else ""
    if listed:
        return listed
    if seen.nans or seen.infs:
        return not_finite(seen)
    return extent(seen.norm, seen.uniform if seen.min == seen.max else None, norm)


def extent(size: float | None, uniform: float | None, norm: str) -> str:
    """What is said of a tensor by its statistics: the one value of all its elements where there is
    one, else its norm."""
    if uniform is not None:
        return number(uniform)
    return "?" if size is None else f"{norm}={number(size)}"


def _listed(seen: Gradient) -> str:
    values = seen.values
    if values is None or 3 * len(values) > _LONGEST_LIST:
        return ""
    if len(values) == 1:
        return number(values[0])
    shape = seen.meta.shape
    short_vector = len(shape) == 1 and len(values) <= 4
    if seen.uniform is not None and not short_vector:
        return ""
    text = _nested([number(value) for value in values], shape)
    return text if len(text) <= _LONGEST_LIST else ""


def _nested(items: Sequence[str], shape: Sequence[int]) -> str:
    level = list(items)
    for size in reversed(shape):
        if size == 0:
            return "[]"
        level = [f"[{', '.join(level[i : i + size])}]" for i in range(0, len(level), size)]
    return level[0] if level else "[]"


def not_finite(seen: Gradient | None) -> str:
    """`3 NaN of 300`, `2 Inf of 300`, both, or nothing where every element is finite."""
    if seen is None or not (seen.nans or seen.infs):
        return ""
    found = [f"{n} {name}" for n, name in ((seen.nans, "NaN"), (seen.infs, "Inf")) if n]
    return f"{' and '.join(found)} of {seen.meta.numel}"


def is_zero(seen: Gradient | None) -> bool:
    """Whether every element is known to be exactly zero."""
    return seen is not None and seen.meta.numel > 0 and seen.zeros == seen.meta.numel


def change(before: Gradient | None, after: Gradient | None, *, norm: str = "‖g‖") -> str:
    """`1 → 2`: what there was and what there is."""
    return f"{tensor(before, norm=norm)} → {tensor(after, norm=norm)}"


def accumulation(before: Gradient | None, incoming: Gradient | None, after: Gradient | None) -> str:
    """`None → 2`, or `[1, 1, 4] + [1, 1, 1] → [2, 2, 5]`."""
    return added(None if before is None else tensor(before), tensor(incoming), tensor(after))


def added(before: str | None, incoming: str, after: str) -> str:
    """What `accumulation` says, of what is told in words; `before` is None where there was none."""
    return f"None → {after}" if before is None else f"{before} + {incoming} → {after}"


def hook_effect(
    before: Sequence[Gradient | None], after: Sequence[Gradient | None], *, changed: bool
) -> str:
    """`[1, 1, 2] → [1, 1, 4]`, or that the values are the same."""
    pairs = [
        change(old, new)
        for old, new in zip(before, after or before, strict=False)
        if old is not None or new is not None
    ]
    text = ",  ".join(pairs[:3]) + (", …" if len(pairs) > 3 else "")
    return text if changed else f"{text}  (same values)"


def shape(meta: TensorMeta) -> str:
    """`(3,2)`, `(3,)`, `()`."""
    sizes = ",".join(str(size) for size in meta.shape)
    return f"({sizes},)" if len(meta.shape) == 1 else f"({sizes})"


def meta(of: TensorMeta | None) -> str:
    """`(3,2) f32`, and the device and layout where they are not the usual ones."""
    if of is None:
        return "undefined"
    words = [shape(of), _DTYPES.get(of.dtype, of.dtype)]
    words += [word for word in (of.device, of.layout) if word not in ("cpu", "strided")]
    return " ".join(words)


def statistics(seen: Gradient | None) -> str:
    """Everything known of a tensor, in one line."""
    if seen is None:
        return "None"
    words = [f"{shape(seen.meta)} {seen.meta.dtype}"]
    words += [
        word for word in (seen.meta.device, seen.meta.layout) if word not in ("cpu", "strided")
    ]
    if seen.unread == NOT_ASKED:
        return " ".join(words)
    if seen.unread:
        return f"{' '.join(words)}: not read ({seen.unread})"
    known = (
        ("norm", seen.norm), ("min", seen.min), ("max", seen.max), ("mean", seen.mean),
        ("zeros", seen.zeros), ("NaN", seen.nans), ("Inf", seen.infs),
    )  # fmt: skip
    text = ", ".join(f"{name} {number(value)}" for name, value in known if value is not None)
    if seen.values is not None:
        text += f", values {_some(seen.values, seen.meta.shape)}"
    return f"{' '.join(words)}: {text}"


def _some(values: Sequence[Scalar], shape: Sequence[int]) -> str:
    """The values in brackets; the first of them where there are many."""
    if len(values) <= _MOST_VALUES:
        return _nested([number(value) for value in values], shape)
    return f"{', '.join(map(number, values[:_MOST_VALUES]))}, … {len(values):,} in all"


def saved(kept: SavedTensor) -> str:
    """A tensor that a node keeps for backward: `self (3,2) f32, 24 B`."""
    name = kept.attribute.removeprefix("_saved_")
    known = [meta(kept.meta)] if kept.meta is not None else []
    size = [] if kept.nbytes is None else [nbytes(kept.nbytes)]
    return ", ".join([" ".join([name, *known]), *size])


def nbytes(size: int) -> str:
    """`24 B`, `1.5 MiB`."""
    scaled, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if scaled < 1024:
            break
        scaled, unit = scaled / 1024, larger
    return f"{number(float(f'{scaled:.3g}'))} {unit}"


def duration(ns: int) -> str:
    """`0.09 ms`, `1.2 s`."""
    return f"{number(ns / 1e9)} s" if ns >= 1e9 else f"{number(round(ns / 1e6, 3))} ms"


def count(of: int, noun: str) -> str:
    """`1 leaf`, `3 leaves`, `2 passes`."""
    plural = {"leaf": "leaves"}.get(noun, f"{noun}es" if noun[-1] in "sx" else f"{noun}s")
    return f"{of:,} {noun if of == 1 else plural}"


def counts(nodes: int, leaves: int) -> str:
    """`3 nodes, 3 leaves`: of the nodes that ran, those that are no leaf, and those that are."""
    leaf_count = count(leaves, "leaf")
    return f"{count(nodes - leaves, 'node')}, {leaf_count}" if nodes > leaves else leaf_count


class Titles(Sequence[str]):
    """What to call each node: a leaf's name, or an operation's source text: `x2 = x1 * m3`.

    Where one expression made several nodes, those whose value has no name of its own begin with
    what they do: `Addmm · self.linear(x)`. They are made as they are asked for: of a large graph
    that is seldom all.
    """

    def __init__(self, graph: Graph) -> None:
        self._nodes = graph.nodes

    def __len__(self) -> int:
        return len(self._nodes)

    @overload
    def __getitem__(self, node: int) -> str: ...
    @overload
    def __getitem__(self, node: slice) -> tuple[str, ...]: ...
    def __getitem__(self, node: int | slice) -> str | tuple[str, ...]:
        """The title of the node of that id."""
        if isinstance(node, slice):
            return tuple(self[one] for one in range(*node.indices(len(self))))
        return self._title(self._nodes[node])

    @cached_property
    def _made(self) -> Counter[tuple[int, int, bool]]:
        """How many nodes each run of an expression made."""
        return Counter(map(_made_by, self._nodes))

    def shared(self, nodes: Sequence[int]) -> str:
        """The title of nodes that are alike, with where only those loops stood that all were in."""
        first, *others = (self._nodes[node] for node in nodes)
        told = tuple(turn for turn in first.loops if all(turn in one.loops for one in others))
        return self._title(first if told == first.loops else replace(first, loops=told))

    def _title(self, node: Node) -> str:
        return node_title(node, inner=node.site is not None and self._made[_made_by(node)] > 1)


def _made_by(node: Node) -> tuple[int, int, bool]:
    """The run of an expression that made a node."""
    return node.site.id if node.site is not None else 0, node.call, _is_of_backward(node)


def node_title(node: Node, *, inner: bool = False) -> str:
    """What to call one node; `inner` says that its expression made others too (see `titles`)."""
    names, site = ", ".join(names_of(node)), node.site
    if node.is_leaf:
        return names or "leaf without a name"
    if site is None or not site.expression:
        return names or node.op or op_name(node)
    if _is_of_backward(node):
        return f"{op_name(node)} · {BACKWARD_OF}{site.expression}{_loops(node)}"
    if not names:
        inner = inner or bool(site.targets)
        text = f"{op_name(node)} · {site.expression}" if inner else site.expression
        return f"{text}{_loops(node)}"
    if site.expression == site.statement:  # an augmented assignment, which names its target itself
        return f"{site.expression}{_loops(node)}"
    return f"{names} = {site.expression}"


def node_where(node: Node) -> str:
    """The title of a node without what it does: where in the source that is."""
    site = node.site
    is_named = node.is_leaf or node.variables or _is_of_backward(node)
    if is_named or site is None or not site.expression:
        return node_title(node).removeprefix(f"{op_name(node)} · ")
    return f"{site.expression}{_loops(node)}"


def _is_of_backward(node: Node) -> bool:
    """Whether a backward pass made it, in running the node of the expression it is told with."""
    return node.op.startswith(BACKWARD_OF)


def names_of(node: Node) -> tuple[str, ...]:
    """The names of what a node made, each with where the loops around it stood: `h[t=3]`."""
    if not node.loops:
        return node.variables
    return tuple(in_loops(name, node.loops) for name in node.variables)


def in_loops(name: str, loops: Sequence[tuple[str, str]]) -> str:
    """A name with where the loops around it stood: `h[t=3]` for `h[t]`, `s` or `h[…]`."""
    if "[" not in name:  # as nearly all are
        return f"{name}[{_turns(tuple(loops))}]" if loops else name
    rest = []
    for variable, value in loops:
        if variable and f"[{variable}]" in name:
            name = name.replace(f"[{variable}]", f"[{variable}={value}]")
        else:
            rest.append(_stands(variable, value))
    return f"{name.removesuffix('[…]')}[{', '.join(rest)}]" if rest else name


def _stands(variable: str, value: str) -> str:
    """Where a loop stands: `t=3`, or `#3` of one that has no variable to name."""
    return f"{variable}={value}" if variable else value


def _loops(node: Node) -> str:
    """Where the loops around a node stood, as what follows its text: ` (t=3)`."""
    return f" ({_turns(node.loops)})" if node.loops else ""


@lru_cache(maxsize=4096)
def _turns(loops: tuple[tuple[str, str], ...]) -> str:
    return ", ".join([_stands(variable, value) for variable, value in loops])


def op_name(node: Node) -> str:
    """What a node does, by its own name: `Mul` of `MulBackward0`."""
    return op_name_of(node.name)


@lru_cache(maxsize=1024)
def op_name_of(name: str) -> str:
    """What the nodes of that name do."""
    return _BACKWARD.sub("", name) or name


def writer(how: str, site: Site | None) -> str:
    """What wrote to a leaf: `zero_grad` where a call of it did, else as the event says."""
    called = site is not None and site.expression.partition("(")[0].endswith(".zero_grad")
    return "zero_grad" if called else how


def place(site: Site | None, *, beside: str = "") -> str:
    """`line 7`, or `model.py:7` in another file than `beside`; nothing where it is not known."""
    if site is None:
        return ""
    return f"line {site.line}" if site.file == beside else file_line(site)


def function(site: Site, *, beside: Site | None) -> str:
    """` in net`: the function a place is in, where that is another one than `beside` is in."""
    name = site.function.rpartition("<locals>.")[2]
    return "" if beside is None or site.function == beside.function else f" in {name}"


def file_line(site: Site) -> str:
    """`model.py:7`, without the folders."""
    name = site.file.replace("\\", "/").rpartition("/")[2]
    return f"{name}:{site.line}"


def one_line(text: str) -> str:
    """The text on one line, with what a terminal or XML would take for an order made visible."""
    if text.isprintable():
        return text.strip(" ")
    joined = _BREAK.sub(" ", text.strip(" \t\n\r\v\f"))
    return "".join("�" if _is_control(char) else char for char in joined)


def _is_control(char: str) -> bool:
    """Whether it is a control character, a lone surrogate, unassigned, or turns text around."""
    return unicodedata.category(char) in ("Cc", "Cs", "Cn") or char in _TURNS


def shorten(text: str, limit: int) -> str:
    """The text on one line, its middle left out where it is longer than `limit` characters."""
    text = one_line(text)
    if len(text) <= limit:
        return text
    head = (limit - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


def width(text: str) -> int:
    """How many columns of a terminal the text takes: two for a Chinese character."""
    if text.isascii() or _ONE_COLUMN.fullmatch(text):
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )


def padded(text: str, columns: int) -> str:
    """The text with spaces up to so many columns of a terminal."""
    if text.isascii() or text.replace("‖", "").isascii():  # a column each, as most are
        return text.ljust(columns)
    return text + " " * max(columns - width(text), 0)
