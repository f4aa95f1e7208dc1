"""Tensors told in words, and what several of them add up to."""

from __future__ import annotations

import math

import pytest

from tests.builders import full, spread, vector
from tracer.records import Gradient, TensorMeta
from tracer.records.told import (
    DATA,
    GRAD,
    NOTHING,
    Told,
    of_parts,
    told,
    told_again,
    told_of,
    total,
)

BROKEN = Gradient(TensorMeta((2, 3)), math.nan, math.nan, math.nan, math.nan, 0, 2, 1)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (None, NOTHING),
        (vector(1.0, 2.0), ("[1, 2]", math.sqrt(5.0), False)),
        (BROKEN, ("2 NaN and 1 Inf of 6", math.nan, True)),
        (Gradient(TensorMeta((3,)), unread="gone"), ("not read (gone)", None, False)),
    ],
)
def test_a_tensor_is_told_with_its_norm_and_whether_it_is_wrong(
    seen: Gradient | None, expected: Told
) -> None:
    assert repr(told(seen)) == repr(expected)


@pytest.mark.parametrize("seen", [spread(0.3, (64, 64)), full(2.0, (64, 64)), full(0.0, (9, 9))])
@pytest.mark.parametrize("sign", [GRAD, DATA])
def test_numbers_alone_are_told_as_their_tensor_is(seen: Gradient, sign: str) -> None:
    assert seen.norm is not None
    assert told_of(seen.norm, seen.uniform, sign) == told(seen, sign)
    assert told_again(seen.norm, seen.uniform, sign) == told(seen, sign)


def test_contributions_add_up_in_words() -> None:
    one, four, five = (told(full(number, (3, 2))) for number in (1.0, 4.0, 5.0))
    assert total([one, four], five) == "1 + 4 = 5  (2 paths)"
    assert of_parts([one, four]) == " = 1 + 4"


def test_contributions_too_large_to_write_out_say_their_norms() -> None:
    parts = [told(spread(norm, (64, 64))) for norm in (0.3, 0.4)]
    assert total(parts, told(spread(0.5, (64, 64)))) == "norms 0.3, 0.4 → 0.5  (2 paths)"
    assert of_parts(parts) == " (2 paths, norms 0.3, 0.4)"


def test_many_contributions_are_not_all_written_out() -> None:
    assert total([told(full(1.0))] * 9, told(full(9.0))) == "1 + 1 + 1 + 1 + … = 9  (9 paths)"


def test_what_is_not_there_is_told_so_in_a_sum() -> None:
    assert total([NOTHING, told(full(1.0))], NOTHING) == "None + 1 = None  (2 paths)"
