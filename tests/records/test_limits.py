"""What may be asked of a recording, in words, and what is refused in one line."""

from __future__ import annotations

import shlex

import pytest

from tracer.errors import OptionError
from tracer.records.limits import ALL_THERE_IS, Limits, limits, limits_of
from tracer.records.selection import Only, read_only


def test_nothing_asked_is_all_there_is() -> None:
    assert limits() == limits_of({}) == ALL_THERE_IS
    assert ALL_THERE_IS.words == ""
    assert ALL_THERE_IS.elements == 16


def test_numbers_and_their_texts_are_the_same() -> None:
    asked = limits(every=10, last=3, max_bytes=2_500_000, detail="values:50", only="kind:hook")
    assert asked == limits_of(
        {
            "every": "10", "last": "3", "max_bytes": "2.5MB", "detail": "values:50",
            "only": "kind:hook",
        }
    )  # fmt: skip
    assert asked == Limits(10, Only(kinds=("hook",)), 3, 2_500_000, "values", 50)


@pytest.mark.parametrize(
    "asked",
    [
        limits(every=2, only=["name:a*", "module:b.c", "kind:hook"], last=4, max_bytes="1GiB"),
        limits(detail="structure"),
        limits(detail="values"),
        limits(detail="values:0"),
    ],
    ids=lambda asked: asked.words,
)
def test_the_words_of_limits_say_them_again(asked: Limits) -> None:
    pairs = (word.partition("=") for word in shlex.split(asked.words))
    assert limits_of({name: value for name, _, value in pairs}) == asked


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1000000", 1_000_000),
        ("50MB", 50_000_000),
        ("50 mb", 50_000_000),
        ("1.5G", 1_500_000_000),
        ("1MiB", 1_048_576),
        ("2GiB", 2 * 1024**3),
        ("0.001 TB", 1_000_000_000),
    ],
)
def test_sizes_have_the_usual_units(text: str, size: int) -> None:
    assert limits(max_bytes=text).max_bytes == size


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("every", "0", "every=0: N must be a whole number from 1"),
        ("every", "2.5", "every=2.5: N must be"),
        ("every", 2.5, "every=2.5: N must be"),
        ("every", True, "every=True: N must be"),
        ("last", "-1", "last=-1: N must be a whole number from 1 (keep the last N passes)"),
        ("last", "many", "last=many"),
        ("max_bytes", "10", "max_bytes=10: a trace needs 1 MB at least"),
        ("max_bytes", "50 cows", "say a number of bytes, as 50000000, 50MB or 1.5GB"),
        ("detail", "value", "detail=value: it is structure, statistics or values (did you mean"),
        ("detail", "statistics:3", "detail=statistics:3"),
        ("detail", "values:-3", "detail=values:-3: N must be a whole number up to 16,777,216"),
        ("only", "encoder", "say name:encoder, module:encoder or kind:encoder"),
        ("only", "module:", "only=module:"),
        ("only", "kind:hok", "there is no kind of event hok (did you mean hook?)"),
        ("evry", "3", "there is no option evry (did you mean every?)"),
    ],
)
def test_a_bad_value_is_one_line_that_says_what_is_possible(
    option: str, value: object, said: str
) -> None:
    with pytest.raises(OptionError) as raised:
        limits_of({option: value})  # type: ignore[dict-item]
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_words_come_as_a_text_or_a_list() -> None:
    assert (
        read_only("name:x2, module:a kind:hook,name:y")
        == read_only(["name:x2", "module:a", "kind:hook name:y"])
        == Only(("x2", "y"), ("a",), ("hook",))
    )


def test_kinds_restrict_events_but_not_those_that_say_what_is_missing() -> None:
    only = read_only("kind:accumulate")
    wanted = ("accumulate", "node", "pass_begin", "mark", "dropped")
    assert [only.wants_kind(kind) for kind in wanted] == [True, False, True, True, True]
    assert only.wants(("anything",), "")


@pytest.mark.parametrize(
    ("words", "names", "module", "wanted"),
    [
        ("", ("x",), "", True),
        ("name:x2", ("MulBackward0", "x2"), "", True),
        ("name:Mul*", ("MulBackward0", "x2"), "", True),
        ("name:x", ("MulBackward0", "x2"), "model", False),
        ("module:encoder", ("x",), "encoder", True),
        ("module:encoder", ("x",), "model.encoder.layers.0", True),
        ("module:encoder.layers.*", ("x",), "model.encoder.layers.0.linear1", True),
        ("module:encoder.layers.1", ("x",), "model.encoder.layers.0", False),
        ("module:layers", ("x",), "model.encoder.layers.0", False),
        ("module:encoder", ("x",), "", False),
        ("module:encoder name:x", ("x",), "", True),
    ],
)
def test_a_node_is_watched_by_name_or_by_module(
    words: str, names: tuple[str, ...], module: str, wanted: bool
) -> None:
    assert read_only(words).wants(names, module) is wanted


def test_a_leaf_lies_in_the_module_that_its_name_begins_with() -> None:
    assert read_only("module:encoder").wants_leaf("model.encoder.linear.weight")
    assert read_only("name:*.weight").wants_leaf("model.encoder.linear.weight")
    assert read_only("name:linear.weight").wants_leaf("model.linear.weight")
    assert not read_only("module:encoder").wants_leaf("model.decoder.weight")
    assert not read_only("module:encoder").wants_leaf("")
