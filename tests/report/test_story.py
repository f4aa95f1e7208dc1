"""A timeline on a page tells a few passes in full and folds many equal ones."""

from __future__ import annotations

import re

from tests import builders
from tracer.records import TraceRecord
from tracer.report import story
from tracer.report.story import Chapter, tell_story


def test_a_few_passes_are_one_chapter():
    (chapter,) = tell_story(builders.hooks())
    assert chapter.skipped == ""
    assert chapter.text.count("pass 1 ") == chapter.text.count("pass 2 ") == 1
    assert "hook removed" in chapter.text


def test_of_many_equal_passes_the_first_and_last_are_told():
    first, last = tell_story(builders.sgd())
    assert first.skipped == ""
    assert last.skipped == "198 passes with the same graph left out (2 to 199)"
    assert headings(first) == ["pass 1"]
    assert headings(last) == ["pass 200"]
    assert first.text.split("\n")[-1].endswith("0 + -19800 → -19800")
    assert last.text.split("\n")[-1].endswith("b  100 → 100  (.data =)")


def headings(chapter: Chapter) -> list[str]:
    """How the headings of passes in a chapter begin."""
    return re.findall(r"^pass \d+", chapter.text, re.MULTILINE)


def test_a_very_long_chapter_is_cut_and_says_so(monkeypatch):
    monkeypatch.setattr(story, "MOST_LINES", 4)
    (chapter,) = tell_story(builders.vector_jacobian())
    assert chapter.text.split("\n")[4:] == ["… 12 more lines left out"]


def test_nothing_recorded_is_no_story():
    assert tell_story(TraceRecord()) == ()
