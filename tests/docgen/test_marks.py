"""Words behind a fence, in a comment or in a remark say what to do with a block."""

from __future__ import annotations

import pytest

from tracer.docgen.marks import Marks, parse_marks, read_comment, read_info, read_remark
from tracer.records.view import View


@pytest.mark.parametrize(
    ("words", "marks"),
    [
        ("", Marks()),
        ("setup", Marks(setup=True)),
        ("skip fresh", Marks(skip=True, fresh=True)),
        ("expect-error", Marks(expect="*")),
        ("expect-error=ValueError", Marks(expect="ValueError")),
        ("timeline graph", Marks(show=("graph", "timeline"))),
        ("depth=2 pass=-1 name=one", Marks(view=View(depth=2), pick=-1, name="one")),
        ("name='误差'", Marks(name="误差")),
        ("grph", Marks(wrong="there is no mark `grph` (did you mean `graph`?)")),
        ("setup=yes", Marks(wrong="there is no mark `setup=yes` (did you mean `setup`?)")),
        ("pass=0", Marks(wrong="`pass=0` is not understood")),
        ("focus=x1 radius=1 color=none", Marks(view=View(focus="x1", radius=1, color="none"))),
        ("expand=a,b", Marks(view=View(expand=("a", "b")))),
        ("depth=x", Marks(wrong="`depth=x` is not understood")),
        ("depth=-1", Marks(wrong="depth -1 is below the outermost level; give 0 or more")),
        ("direction=up", Marks(wrong="cannot draw in direction 'up'; choose from TB, BT, LR, RL")),
        ("name=../up", Marks(wrong="`name=../up` is not understood")),
        ("zzz setup", Marks(setup=True, wrong="there is no mark `zzz`")),
    ],
)
def test_marks_are_words(words, marks):
    assert parse_marks(words) == marks


@pytest.mark.parametrize(
    ("info", "read"),
    [
        ("", ("", None)),
        ("python", ("python", None)),
        ("Python title=x.py", ("python", None)),
        ("python tracer", ("python", "")),
        ("py tracer setup depth=2", ("py", "setup depth=2")),
        ("{.python .tracer setup}", ("python", "setup")),
        ("{code-cell} ipython3", ("{code-cell}", None)),
        ("python tracers", ("python", None)),
    ],
)
def test_marks_stand_behind_the_word_tracer(info, read):
    assert read_info(info) == read


def test_marks_stand_in_comments():
    assert read_comment("<!-- tracer setup -->\n") == " setup "
    assert read_comment("<!-- tracer: setup -->") == " setup "
    assert read_comment("<!-- another -->") is None
    assert read_comment("<!-- tracers -->") is None
    assert read_remark("# tracer: skip") == " skip"
    assert read_remark("# tracer skips") is None
