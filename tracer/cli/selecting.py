"""The options that say which events are wanted, shared by `timeline` and `run --follow`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from tracer.records.picking import KINDS

F = TypeVar("F", bound=Callable[..., Any])


def read_kinds(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    """The kinds of all --kind options, split at commas; `grad-write` stands for `grad_write`."""
    kinds = [part.strip().replace("-", "_") for value in values for part in value.split(",")]
    for kind in kinds:
        if kind not in KINDS:
            raise click.BadParameter(f"{kind!r} is none: there are {', '.join(KINDS)}.")
    return tuple(kinds)


def read_passes(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[int, int] | str | None:
    """The first and the last of `3`, one pass, or `3-7`, some in a row; `all` as it is."""
    if value is None or value == "all":
        return value
    found = re.fullmatch(r"(\d+)(?:[-–:](\d+))?", value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no pass: 3, 3-7 or all.")
    return int(found[1]), int(found[2] or found[1])


def filters(only: str) -> Callable[[F], F]:
    """Add --kind, --name and --module to a command, each as a tuple that may be empty.

    `only` begins what each says of itself: `Only`, or under which condition only.
    """
    options = (
        click.option(
            "--kind", "kinds", metavar="KIND", multiple=True, callback=read_kinds,
            help=f"{only} events of a kind: node, accumulate, hook, cut, … Several with commas.",
        ),
        click.option(
            "--name", "names", metavar="NAME", multiple=True,
            help=f"{only} events of a tensor, leaf, node or hook of that name; * is any text.",
        ),
        click.option(
            "--module", "modules", metavar="PATH", multiple=True,
            help=f"{only} events in a module (`encoder.layers.0`), and in those in it.",
        ),
    )  # fmt: skip

    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add
