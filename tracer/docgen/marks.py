"""The words after a block's language in; what to do with the block and what to show of it, out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from tracer.errors import TracerError
from tracer.records.view import View

SHOWN = ("graph", "timeline", "output")
PYTHON = frozenset({"python", "py", "python3", "ipython", "ipython3", "pycon", "{code-cell}"})
"""The languages of blocks that run, as they stand behind a fence."""

_COMMENT = re.compile(r"\s*<!--\s*tracer\b:?(?P<words>.*?)-->\s*", re.DOTALL)
_REMARK = re.compile(r"#\s*tracer:(?P<words>.*)")


@dataclass(frozen=True, slots=True)
class Marks:
    """What the author asks for.

    `setup` runs and is not shown, `skip` is shown and does not run, `fresh` runs in a process of
    its own that those after it share. `expect` is the type of the error that is expected, `*` for
    any. Of `SHOWN` only what is in `show` is shown. `depth` is how far folded groups are opened,
    `pick` the one pass of the block to draw (from 1, or from -1 backwards), `name` what the block's
    pictures are called. `wrong` says what could not be understood.
    """

    setup: bool = False
    skip: bool = False
    fresh: bool = False
    expect: str = ""
    show: tuple[str, ...] = SHOWN
    view: View = View()
    pick: int | None = None
    name: str = ""
    wrong: str = ""

    def shows(self, what: str) -> bool:
        """Whether `graph`, `timeline` or `output` is to be shown."""
        return what in self.show


def read_info(info: str) -> tuple[str, str | None]:
    """Split what stands behind a fence into language and marks; None for marks where none stand.

    `{.python .tracer setup}`, as Pandoc and others write it, is `python tracer setup`.
    """
    inner = re.fullmatch(r"\{(?!code-cell)(.*)\}", info.strip())
    words = inner[1].replace(".", " ") if inner else info
    language, _, rest = words.strip().partition(" ")
    marked = re.match(r"\s*tracer(?:\s+|$)(.*)", rest, re.DOTALL)
    return language.lower(), marked[1] if marked else None


def read_comment(text: str) -> str | None:
    """Return the marks in an HTML comment (`<!-- tracer setup -->`), None where it is another."""
    found = _COMMENT.fullmatch(text)
    return found["words"] if found else None


def read_remark(line: str) -> str | None:
    """Return the marks in a comment of Python (`# tracer: setup`), None where it is another."""
    found = _REMARK.fullmatch(line.strip())
    return found["words"] if found else None


def parse_marks(words: str) -> Marks:
    """Understand marks; what is not understood is said in `wrong`, and the rest still holds."""
    fields: dict[str, object] = {}
    view: dict[str, object] = {}
    show: list[str] = []
    wrong: list[str] = []
    for word in _split(words):
        key, equals, value = word.partition("=")
        if not equals and key in SHOWN:
            show.append(key)
        elif not equals and key in FLAGS:
            fields.update(FLAGS[key])
        elif equals and value and key in VALUES:
            field, read = VALUES[key]
            try:
                (fields if key in _OWN else view)[field] = read(value)
            except ValueError:
                wrong.append(f"`{word}` is not understood")
        else:
            wrong.append(f"there is no mark `{word}`{_suggest(key)}")
    if show:
        fields["show"] = tuple(what for what in SHOWN if what in show)
    try:
        fields["view"] = View(**view)  # type: ignore[arg-type]
    except TracerError as error:
        wrong.append(str(error))
    return Marks(**fields, wrong="; ".join(wrong))  # type: ignore[arg-type]


def _split(words: str) -> list[str]:
    try:
        return shlex.split(words)
    except ValueError:  # a quotation mark that stands alone
        return words.split()


def _suggest(word: str) -> str:
    near = get_close_matches(word, [*SHOWN, *FLAGS, *VALUES], n=1)
    return f" (did you mean `{near[0]}`?)" if near else ""


def _read_pass(value: str) -> int:
    number = int(value)
    if number == 0:
        raise ValueError("passes count from 1")
    return number


def _read_name(value: str) -> str:
    if not re.fullmatch(r"[\w-]+", value):
        raise ValueError("a name is the name of a file, without its ending")
    return value


FLAGS: dict[str, dict[str, object]] = {
    "setup": {"setup": True},
    "skip": {"skip": True},
    "fresh": {"fresh": True},
    "expect-error": {"expect": "*"},
}
"""The marks that are one word, with the fields they set."""
_OWN: dict[str, tuple[str, Callable[[str], object]]] = {
    "expect-error": ("expect", str),
    "pass": ("pick", _read_pass),
    "name": ("name", _read_name),
}
_VIEW: dict[str, tuple[str, Callable[[str], object]]] = {
    "depth": ("depth", int),
    "budget": ("budget", int),
    "expand": ("expand", lambda value: tuple(value.split(","))),
    "focus": ("focus", str),
    "radius": ("radius", int),
    "upstream": ("upstream", str),
    "downstream": ("downstream", str),
    "color": ("color", str),
    "direction": ("direction", str),
}
VALUES = _OWN | _VIEW
"""The marks that have a value, with the field it goes to and what reads it."""
