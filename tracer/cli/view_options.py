"""Options of the command line in; one record of what a reader wishes to see out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from tracer.records.view import COLORS, DIRECTIONS, SHOWN, View

_OPTIONS = (
    click.option(
        "--budget", metavar="N", type=click.IntRange(1), help="Fold to N boxes.  [default: 60]"
    ),
    click.option(
        "--depth", metavar="N", type=click.IntRange(0), help="Open modules N levels deep, instead."
    ),
    click.option(
        "--expand", metavar="PATH", multiple=True, help="Open this module, function or file:line."
    ),
    click.option("--no-fold", is_flag=True, help="Give every node a box, however many."),
    click.option(
        "--show", metavar="WHAT", multiple=True, help=f"Also show {', '.join(SHOWN)} (with commas)."
    ),
    click.option(
        "--focus", metavar="NAME", help="Show a node, variable, module or file:line, and near it."
    ),
    click.option(
        "--radius", metavar="N", type=click.IntRange(0), help="How near, in edges.  [default: 2]"
    ),
    click.option(
        "--path", "ends", metavar="A B", nargs=2,
        help="Show all paths between two such, and what each brings.",
    ),
    click.option("--upstream", metavar="NAME", help="Show all that a gradient passes before it."),
    click.option("--downstream", metavar="NAME", help="Show all that a gradient passes after it."),
    click.option("--color", metavar="BY", help=f"Colour boxes by {', '.join(COLORS)}."),
    click.option(
        "--direction", type=click.Choice(DIRECTIONS, case_sensitive=False),
        help="Which way gradients flow.  [default: TB, down the page]",
    ),
)  # fmt: skip
_NAMES = (
    "budget", "depth", "expand", "no_fold", "show", "focus", "radius", "ends", "upstream",
    "downstream", "color", "direction",
)  # fmt: skip


def view_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say what to show; it gets them as one `view`."""

    @functools.wraps(command)
    def with_view(**given: Any) -> None:
        wishes = {name: given.pop(name) for name in _NAMES}
        command(view=_view(wishes), **given)

    for option in reversed(_OPTIONS):
        with_view = option(with_view)
    return with_view


def _view(given: dict[str, Any]) -> View:
    """Make the record of what was given; the rest keeps the record's own defaults."""
    fields = {name: value for name, value in given.items() if value not in (None, ())}
    fields["fold"] = not fields.pop("no_fold")
    if "show" in fields:
        shown = (part.strip() for text in fields["show"] for part in text.split(","))
        fields["show"] = frozenset(filter(None, shown))
    if "ends" in fields:
        fields["path"] = fields.pop("ends")
    if "direction" in fields:
        fields["direction"] = fields["direction"].upper()
    return View(**fields)
