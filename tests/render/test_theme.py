"""The table of looks is whole: every role and state has one, every colour a dark counterpart."""

from __future__ import annotations

from itertools import product

import pytest

from tracer.records.diagram import LineRole, Role, State
from tracer.render import theme


@pytest.mark.parametrize(("role", "state"), list(product(Role, State)))
def test_every_look_has_a_dark_counterpart(role: Role, state: State) -> None:
    look = theme.look_of(role, state)
    assert {look.fill, look.line} - {"none"} <= set(theme.DARK)


def test_every_line_of_text_has_an_ink_with_a_dark_counterpart() -> None:
    assert set(theme.INKS) == set(LineRole)
    assert set(theme.INKS.values()) <= set(theme.DARK)


def test_every_fill_has_a_dark_counterpart() -> None:
    assert {theme.LEAF_STRIP, *theme.SCALE, *theme.KINDS} <= set(theme.DARK)


def test_a_scale_goes_from_light_to_dark_for_a_printer_and_a_reader_in_the_dark() -> None:
    printed = [luminance(fill) for fill in theme.SCALE]
    assert printed == sorted(printed, reverse=True)
    in_the_dark = [luminance(theme.DARK[fill]) for fill in theme.SCALE]
    assert in_the_dark == sorted(in_the_dark)


def test_colours_are_told_apart_by_the_style_sheet() -> None:
    dark = list(theme.DARK)
    assert len({color.lower() for color in dark}) == len(dark)


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.SEED])
def test_states_differ_without_colour(role: Role) -> None:
    looks = {(look.style, look.pen) for look in (theme.look_of(role, state) for state in State)}
    assert len(looks) >= 3


def luminance(color: str) -> float:
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


LOOKS = [look for role, look in theme.BOXES.items() if role is not Role.SEED]


@pytest.mark.parametrize(
    ("ink", "fill"),
    [
        *product(theme.INKS.values(), (look.fill for look in LOOKS)),
        *product([theme.INK], (*theme.SCALE, *theme.KINDS)),
        (theme.INKS[LineRole.LEAF], theme.LEAF_STRIP),
    ],
)
@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_on_every_box(ink: str, fill: str, dark: bool) -> None:
    shown = [theme.DARK[color] if dark else color for color in (ink, fill)]
    darker, lighter = sorted(map(luminance, shown))
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5
