"""What a recording left out is said with what would bring it in."""

from __future__ import annotations

from tracer.records.gaps import Gap, gaps_of


def test_a_gap_says_how_to_fill_it_where_that_is_known() -> None:
    dropped = {"passes that every=3 leaves out": 1200, "a fault in the stars": 1}
    assert [gap.text for gap in gaps_of(dropped)] == [
        "1,200 × passes that every=3 leaves out (record them all: leave --every out)",
        "1 × a fault in the stars",
    ]
    assert list(gaps_of({})) == []


def test_every_limit_has_its_advice() -> None:
    reasons = (
        "passes that every=2 leaves out",
        "events that only= leaves out",
        "nodes that only= leaves unwatched",
        "older passes, deleted to keep to last",
        "older passes, deleted to keep to max_bytes",
        "events for which max_bytes left no room",
        "events that came while the file could not be written: another program had locked it",
    )
    assert [gap for gap in gaps_of(dict.fromkeys(reasons, 1)) if not gap.advice] == []
    assert next(gaps_of({reasons[3]: 2})) == Gap(reasons[3], 2, "keep more: a greater --last")
