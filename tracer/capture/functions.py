"""A callable comes in; the code that it runs, where that was written and its text go out."""

from __future__ import annotations

import ast
import functools
from types import CodeType, FunctionType, MethodType

from tracer.capture.expressions import Place, head_text, names_bound
from tracer.capture.one_line import one_line
from tracer.capture.source import ParsedSource, compile_tree, end_of, is_same_code, start_of

_DEEPEST = 20
_FAR_AWAY = 10_000_000
_Definition = ast.FunctionDef | ast.AsyncFunctionDef


def innermost(function: object) -> object:
    """Look through `functools.partial`, bound methods and `functools.wraps` to what was written."""
    for _ in range(_DEEPEST):
        inner: object = None
        if type(function) is functools.partial:
            inner = function.func
        elif type(function) is MethodType:
            inner = function.__func__
        elif type(function) is FunctionType:
            inner = function.__dict__.get("__wrapped__")
        if inner is None:
            break
        function = inner
    return function


def code_of(function: object) -> CodeType | None:
    """The Python code that calling an innermost function runs; None for one written in C."""
    if type(function) is FunctionType:
        return function.__code__
    for cls in type(function).__mro__:
        if "__call__" in cls.__dict__:
            call = innermost(cls.__dict__["__call__"])
            return call.__code__ if type(call) is FunctionType else None
    return None


def name_of(function: object) -> str:
    """The qualified name of a Python function, the name of a builtin, or an object's class."""
    if type(function) is FunctionType:
        return function.__qualname__
    if issubclass(type(function), type):
        return str(type.__getattribute__(function, "__qualname__"))
    if type(function).__module__ == "builtins":
        return str(getattr(function, "__name__", type(function).__name__))
    return type(function).__qualname__


def enclosing_name(code: CodeType) -> str:
    """The qualified name of the scope that a function was defined in, as far as Python knows it."""
    outer = getattr(code, "co_qualname", "").rpartition(".")[0]
    return outer.removesuffix(".<locals>") or "<module>"


def find_definition(source: ParsedSource, code: CodeType) -> tuple[Place, str]:
    """Find the `def` or `lambda` that made this code; its place, and a lambda's body as text."""
    if code.co_name == "<lambda>":
        node = _find_lambda(source, code)
        if node is not None:
            return _place_of_lambda(source, node), one_line(source.text_of(node.body))
    for definition in source.parents:
        if isinstance(definition, _Definition) and _begins(definition, code):
            span = start_of(definition), end_of(definition)
            return Place(definition.lineno, span, statement=head_text(source, definition)), ""
    return Place(code.co_firstlineno), ""


def _begins(definition: _Definition, code: CodeType) -> bool:
    first = min(part.lineno for part in (definition, *definition.decorator_list))
    return definition.name == code.co_name and first == code.co_firstlineno


def _place_of_lambda(source: ParsedSource, node: ast.Lambda) -> Place:
    statement = source.statement_of(node)
    return Place(
        line=node.lineno,
        span=(start_of(node), end_of(node)),
        expression=one_line(source.text_of(node)),
        targets=names_bound(source, node),
        statement=head_text(source, statement) if statement is not None else "",
    )


def _find_lambda(source: ParsedSource, code: CodeType) -> ast.Lambda | None:
    """Pick, of the lambdas that begin on the code's first line, the one that it comes from."""
    lambdas = [
        node
        for node in source.parents
        if isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno
    ]
    if len(lambdas) < 2:
        return lambdas[0] if lambdas else None
    return next((node for node in lambdas if _compiles_to(source, node, code)), None)


def _compiles_to(source: ParsedSource, node: ast.Lambda, code: CodeType) -> bool:
    """Compile the file with this lambda moved to lines where nothing else is, and look there."""
    _move(node, _FAR_AWAY)
    try:
        compiled = compile_tree(source.tree, code.co_flags)
        line = node.lineno
    finally:
        _move(node, -_FAR_AWAY)
    moved = next(found for found in compiled if found.co_firstlineno == line)
    return is_same_code(code, moved, placed=False)


def _move(node: ast.Lambda, lines: int) -> None:
    for part in ast.walk(node):
        if isinstance(part, ast.expr | ast.arg | ast.keyword):
            part.lineno += lines
            part.end_lineno = (part.end_lineno or 0) + lines
