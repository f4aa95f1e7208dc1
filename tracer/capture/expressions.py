"""A position in code and its parsed source come in; the text of what runs there goes out."""

from __future__ import annotations

import ast
import dis
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from types import CodeType
from typing import cast

from tracer.capture.numbered import find_numbered_node
from tracer.capture.one_line import one_line
from tracer.capture.source import (
    ParsedSource,
    Position,
    end_of,
    head_end_of,
    start_of,
)

Node = ast.expr | ast.stmt
_Scope = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
_Loop = ast.For | ast.AsyncFor
_With = ast.With | ast.AsyncWith
_Branch = ast.If | ast.While | ast.Assert | ast.IfExp

_MAKING_VALUES = (
    "CALL",
    "PRECALL",
    "BINARY_",
    "UNARY_",
    "INPLACE_",
    "COMPARE_",
    "LOAD_ATTR",
    "LOAD_METHOD",
)
_STORING = ("STORE_", "UNPACK_", "DELETE_")
_OF_WITH = (
    "BEFORE_WITH",
    "BEFORE_ASYNC_WITH",
    "SETUP_WITH",
    "SETUP_ASYNC_WITH",
    "WITH_EXCEPT_START",
)
# Until Python 3.12.4 what begins a loop stands where the whole loop does, later where `in` leads.
_WHOLE_LOOPS = sys.version_info < (3, 12, 5)
_OF_LOOP = ("GET_ITER", "GET_AITER", "FOR_ITER", "GET_ANEXT")
_OF_BRANCH = ("POP_JUMP", "JUMP_IF", "TO_BOOL")


@dataclass(frozen=True, slots=True)
class LoopAround:
    """A loop that repeats what stands at a place: its line, and the variables that tell its turns.

    Those of a `while` loop are what its condition reads and its body binds.
    """

    line: int
    names: tuple[str, ...]
    is_while: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """What stands at a position in code; `loops` are those around it, outermost first."""

    line: int
    span: tuple[Position, Position] | None = None
    expression: str = ""
    targets: tuple[str, ...] = ()
    statement: str = ""
    loops: tuple[LoopAround, ...] = ()


def find_place(source: ParsedSource, code: CodeType, lasti: int, line: int) -> Place:
    """Describe the operation at byte offset `lasti` of the code, `line` being what Python says."""
    lasti, operation = _operation_at(code, lasti)
    if sys.version_info >= (3, 11):
        node = _node_by_position(source, code, lasti, operation)
    else:
        node = _node_by_number(source, code, lasti, line)
    if node is None:
        statements = [head_text(source, statement) for statement in source.statements_on(line)]
        return Place(line, statement=statements[0] if len(statements) == 1 else "")
    expression, targets = _describe(source, node, operation)
    statement = source.statement_of(node)
    return Place(
        line=line,
        span=(start_of(node), end_of(node)),
        expression=expression,
        targets=targets,
        statement=head_text(source, statement) if statement is not None else "",
        loops=_loops_around(source, node),
    )


def head_text(source: ParsedSource, statement: ast.stmt) -> str:
    """The text of a statement on one line; of one that has a body, its head with the colon."""
    end = head_end_of(statement)
    text = one_line(source.between(start_of(statement), end))
    # Behind a head there may be `@` of a decorator or `case`: what ends it is its colon.
    return text if end == end_of(statement) else text.rpartition(":")[0] + ":"


def _operation_at(code: CodeType, lasti: int) -> tuple[int, str]:
    """Find the instruction; some Pythons stand in its inline cache during a call."""
    instructions = code.co_code
    while lasti > 0 and dis.opname[instructions[lasti]] == "CACHE":
        lasti -= 2
    return lasti, dis.opname[instructions[lasti]]


# ---- from a position to a node


def _node_by_position(
    source: ParsedSource, code: CodeType, lasti: int, operation: str
) -> Node | None:
    """Find the node by the position that the compiler recorded (Python 3.11 and later)."""
    if sys.version_info >= (3, 11):
        before, position = islice(code.co_positions(), lasti // 2 - 1, lasti // 2 + 1)
        node = _node_between(source, position, operation)
        # The arguments of `__exit__` are the only constants that stand just where their call does.
        is_exit = (
            operation == "CALL"
            and before == position
            and (dis.opname[code.co_code[lasti - 2]] == "LOAD_CONST")
        )
        return node and _settle(source, node, "BEFORE_WITH" if is_exit else operation)
    return None


def _node_by_number(source: ParsedSource, code: CodeType, lasti: int, line: int) -> Node | None:
    """Find the node in Python 3.10, which counts a method call as its attribute's."""
    operation = _operation_at(code, lasti)[1]
    node = find_numbered_node(source, code, lasti, line)
    if operation == "CALL_METHOD" and isinstance(node, ast.Attribute):
        node = cast(ast.expr, source.parents[node])
    return node and _settle(source, node, operation)


def _node_between(
    source: ParsedSource, position: tuple[int | None, ...], operation: str
) -> Node | None:
    first, last, left, right = position
    if first is None or last is None or left is None or right is None:
        return None
    nodes = source.spanning((first, left), (last, right))
    if nodes:
        return next((node for node in nodes if isinstance(node, ast.expr)), nodes[0])
    # A method's name on a line of its own: the compiler records that as the beginning.
    kind = ast.Attribute if "ATTR" in operation or "METHOD" in operation else ast.Call
    return next((node for node in source.ending((last, right)) if isinstance(node, kind)), None)


def _settle(source: ParsedSource, node: Node, operation: str) -> Node:
    """Go from a part that stands for its statement, or for a whole literal, to that."""
    parent = source.parents.get(node)
    outer = source.parents.get(parent) if parent is not None else None
    if operation in _OF_WITH and isinstance(parent, ast.withitem) and isinstance(outer, _With):
        return outer
    if operation in _OF_LOOP and isinstance(parent, _Loop) and node is parent.iter:
        return parent
    if operation.startswith(_OF_BRANCH) and isinstance(parent, _Branch) and node is parent.test:
        return parent
    if operation in _OF_LOOP and isinstance(outer, _Comprehension) and not _WHOLE_LOOPS:
        return outer
    while isinstance(node, ast.FormattedValue) or isinstance(parent, ast.FormattedValue):
        if not isinstance(node, ast.FormattedValue | ast.JoinedStr):
            break
        node = cast(ast.expr, parent)
        parent = source.parents.get(node)
    return node


# ---- from a node to text


def _describe(source: ParsedSource, node: Node, operation: str) -> tuple[str, tuple[str, ...]]:
    """The expression's text and the names that its value is bound to."""
    if isinstance(node, ast.stmt):
        targets = _names_in(source, node.target) if isinstance(node, ast.AugAssign) else ()
        return head_text(source, node).removesuffix(":"), targets
    statement = source.statement_of(node)
    if operation.startswith(_STORING) and statement is not None:
        return head_text(source, statement).removesuffix(":"), _names_changed(source, node)
    text = _expression_text(source, node)
    if node in getattr(statement, "decorator_list", ()):
        return f"@{text}", ()
    return text, names_bound(source, node) if operation.startswith(_MAKING_VALUES) else ()


def _expression_text(source: ParsedSource, node: ast.expr) -> str:
    above = source.parents.get(node)
    if sys.version_info < (3, 12):
        # Before Python 3.12, what stands in an f-string has positions that may be off.
        while isinstance(above, ast.expr):
            if isinstance(above, ast.JoinedStr):
                return one_line(ast.unparse(node))
            above = source.parents.get(above)
    return one_line(source.text_of(node))


def names_bound(source: ParsedSource, node: ast.expr) -> tuple[str, ...]:
    """Name the targets of the assignment that this expression is the whole right-hand side of.

    An item of a list, dictionary or tuple on that side is named as an item of the target, and one
    that a comprehension or `append` makes as `rows[…]`: its loop tells the items apart.
    """
    parent = source.parents.get(node)
    if isinstance(parent, ast.Assign) and parent.value is node:
        return _names_in(source, parent.targets[0])
    if isinstance(parent, ast.AnnAssign | ast.NamedExpr) and parent.value is node:
        return _names_in(source, parent.target)
    whole = source.parents.get(parent) if isinstance(parent, ast.Tuple) else None
    if isinstance(parent, ast.Tuple) and isinstance(whole, ast.Assign):
        beside = _names_beside(source, whole.targets[0], parent, node)
        return beside or _names_of_item(source, parent, node)
    if isinstance(parent, ast.List | ast.Dict):
        return _names_of_item(source, parent, node)
    return _names_of_repeated(source, parent, node)


def _names_of_item(
    source: ParsedSource, parent: ast.List | ast.Tuple | ast.Dict, node: ast.expr
) -> tuple[str, ...]:
    """`rows[1]` for the second item of `rows = [...]`, `kept['a']` for that of `kept = {...}`."""
    names = names_bound(source, parent)
    if len(names) != 1 or not _is_bound_whole(source, parent):
        return ()
    if isinstance(parent, ast.Dict):
        keys = [key for key, value in zip(parent.keys, parent.values, strict=True) if value is node]
        return (f"{names[0]}[{one_line(source.text_of(keys[0]))}]",) if keys and keys[0] else ()
    before = parent.elts[: parent.elts.index(node)]
    if any(isinstance(item, ast.Starred) for item in before):
        return ()
    return (f"{names[0]}[{len(before)}]",)


def _is_bound_whole(source: ParsedSource, node: ast.expr) -> bool:
    """Whether a display is bound to one name, and not unpacked into several."""
    parent = source.parents.get(node)
    target = parent.targets[0] if isinstance(parent, ast.Assign) else None
    return not isinstance(target, ast.Tuple | ast.List)


def _names_of_repeated(
    source: ParsedSource, parent: ast.AST | None, node: ast.expr
) -> tuple[str, ...]:
    """`rows[…]` for what `rows = [… for t in …]` makes, or in a loop `rows.append(…)` adds."""
    made = isinstance(parent, ast.ListComp | ast.SetComp) and parent.elt is node
    if made or (isinstance(parent, ast.DictComp) and parent.value is node):
        return tuple(f"{name}[…]" for name in names_bound(source, parent))  # type: ignore[arg-type]
    if isinstance(parent, ast.Call) and parent.args == [node] and not parent.keywords:
        called = parent.func
        is_append = isinstance(called, ast.Attribute) and called.attr == "append"
        if is_append and _loops_around(source, node):
            return (f"{one_line(source.text_of(called.value))}[…]",)  # type: ignore[attr-defined]
    return ()


def _names_beside(
    source: ParsedSource, target: ast.expr, values: ast.Tuple, node: ast.expr
) -> tuple[str, ...]:
    """The target that stands where the node does, as in `h, c = tanh(a), tanh(b)`."""
    if not isinstance(target, ast.Tuple) or len(target.elts) != len(values.elts):
        return ()
    if any(isinstance(part, ast.Starred) for part in target.elts + values.elts):
        return ()
    return _names_in(source, target.elts[values.elts.index(node)])


def _names_changed(source: ParsedSource, target: ast.expr) -> tuple[str, ...]:
    """What an assignment to part of a thing (`h[t] = …`) changes, or what unpacking binds."""
    if isinstance(target, ast.Attribute):
        return ()
    while isinstance(target, ast.Subscript):
        target = target.value
    return _names_in(source, target)


def _names_in(source: ParsedSource, target: ast.expr) -> tuple[str, ...]:
    if isinstance(target, ast.Tuple | ast.List):
        return tuple(name for part in target.elts for name in _names_in(source, part))
    if isinstance(target, ast.Starred):
        return _names_in(source, target.value)
    return (one_line(source.text_of(target)),)


def _loops_around(source: ParsedSource, node: ast.AST) -> tuple[LoopAround, ...]:
    """Find the loops that a node is repeated by, outermost first."""
    found: list[LoopAround] = []
    child, parent = node, source.parents.get(node)
    while parent is not None and not isinstance(parent, _Scope):
        if isinstance(parent, _Loop) and child in parent.body:
            found.append(LoopAround(parent.lineno, tuple(_names_bound(parent.target))))
        elif isinstance(parent, ast.While) and child in parent.body:
            found.append(LoopAround(parent.lineno, tuple(_names_of_turns(parent)), is_while=True))
        elif isinstance(parent, _Comprehension) and not isinstance(child, ast.comprehension):
            for generator in reversed(parent.generators):
                names = tuple(_names_bound(generator.target))
                found.append(LoopAround(generator.target.lineno, names))
        child, parent = parent, source.parents.get(parent)
    return tuple(reversed(found))


def _names_bound(*nodes: ast.AST) -> Iterator[str]:
    for node in nodes:
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                yield part.id


def _names_of_turns(loop: ast.While) -> Iterator[str]:
    """What a condition reads and the body changes: `i` of `while i < n`."""
    bound = set(_names_bound(*loop.body))
    for part in ast.walk(loop.test):
        if isinstance(part, ast.Name) and part.id in bound:
            yield part.id
