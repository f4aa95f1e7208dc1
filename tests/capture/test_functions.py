"""Where a hook was written, and its text."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from tests.capture.probes import HAS_POSITIONS, SCRIPT
from tracer.capture.functions import find_definition
from tracer.capture.sites import SiteTable
from tracer.records.graph import Site


def square(grad: Any) -> Any:
    return grad * grad


@functools.wraps(square)
def wrapped(grad: Any) -> Any:
    return square(grad)


def decorated(function: Any) -> Any:
    return function


@decorated
@decorated
def cut(grad: Any) -> Any:
    return grad


class Clip:
    """Callable, and not to be asked for anything."""

    def __call__(self, grad: Any) -> Any:
        return grad

    def method(self, grad: Any) -> Any:
        return grad

    def __getattr__(self, name: str) -> Any:
        raise SystemExit(f"asked for {name}")


def line_of(text: str) -> int:
    return Path(__file__).read_text(encoding="utf-8").split("\n").index(text) + 1


@pytest.mark.parametrize(
    ("function", "text", "head", "outer"),
    [
        (square, "square", "def square(grad: Any) -> Any:", "<module>"),
        (functools.partial(square, 1), "square", "def square(grad: Any) -> Any:", "<module>"),
        (wrapped, "square", "def square(grad: Any) -> Any:", "<module>"),
        (cut, "cut", "def cut(grad: Any) -> Any:", "<module>"),
        (Clip().method, "Clip.method", "    def method(self, grad: Any) -> Any:", "Clip"),
        (Clip(), "Clip", "    def __call__(self, grad: Any) -> Any:", "Clip"),
    ],
    ids=["def", "partial", "wraps", "decorated", "method", "object"],
)
def test_a_function_is_found_where_it_was_written(
    function: Any, text: str, head: str, outer: str
) -> None:
    assert SiteTable(script=SCRIPT).function_site(function) == (
        Site(
            id=1,
            file=__file__,
            line=line_of(head),
            statement=head.strip(),
            function=outer if HAS_POSITIONS else "<module>",
        ),
        text,
    )


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (len, "len"),
        ([].append, "append"),
        (str.join, "join"),
        (dict, "dict"),
        (Clip, "Clip"),
        (3, "int"),
    ],
)
def test_what_has_no_python_code_has_a_name_and_no_site(function: Any, text: str) -> None:
    assert SiteTable(script=SCRIPT).function_site(function) == (None, text)


def test_an_object_of_a_librarys_class_has_no_site() -> None:
    assert SiteTable(script=SCRIPT).function_site(functools.singledispatchmethod(len))[0] is None


def texts_of(*functions: Any) -> list[str]:
    table = SiteTable(script=SCRIPT)
    return [table.function_site(function)[1] for function in functions]


def test_a_lambdas_text_is_its_body() -> None:
    assert texts_of(lambda grad: grad * grad) == ["grad * grad"]
    assert texts_of(
        lambda grad: (
            grad * 2  # twice
        ),
    ) == ["grad * 2"]


def test_of_several_lambdas_on_a_line_the_right_one_is_found() -> None:
    k = m = 3
    some = [lambda g: g + 1, lambda g: g + 1.0, lambda g: True, lambda: 1, lambda g: g + k]
    more = [lambda g: lambda h: h * g, lambda g: lambda h: h + g, lambda: None, lambda: k + m]
    assert texts_of(*some) == ["g + 1", "g + 1.0", "True", "1", "g + k"]
    assert texts_of(*more) == ["lambda h: h * g", "lambda h: h + g", "None", "k + m"]
    assert texts_of(more[0](0), more[1](0)) == ["h * g", "h + g"]


def test_a_lambda_that_was_given_a_name_is_bound_to_it() -> None:
    triple = lambda grad: grad * 3  # noqa: E731
    site, _ = SiteTable(script=SCRIPT).function_site(triple)
    assert site is not None
    assert site.text == "triple = lambda grad: grad * 3"


def test_a_lambda_without_source_is_called_a_lambda() -> None:
    assert SiteTable(script=SCRIPT).function_site(eval("\nlambda g: g * 2")) == (
        Site(1, "<string>", 2),
        "<lambda>",
    )


def test_a_function_made_anew_each_time_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[Any] = []

    def search(source: Any, code: Any) -> Any:
        searched.append(code)
        return find_definition(source, code)

    monkeypatch.setattr("tracer.capture.sites.find_definition", search)
    table = SiteTable(script=SCRIPT)
    found = {table.function_site(lambda grad: grad * 2) for _ in range(3)}
    assert [text for _, text in found] == ["grad * 2"]
    assert len(searched) == 1
