"""Small lists in, the JSON text of a column out; and back, refusing what is not such a list."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

Row = tuple[object, ...]

_CACHED = 4096
_NO_LIST = "a column holds no list of the kind it is declared to hold"
_NO_STRING = "a list of strings holds something else"
_write = json.JSONEncoder(separators=(",", ":")).encode


@lru_cache(_CACHED)
def strings_text(strings: tuple[str, ...]) -> str:
    """JSON of a list of strings, in ASCII, so that no string is beyond SQLite."""
    return _write(strings) if strings else "[]"


@lru_cache(_CACHED)
def pairs_text(pairs: tuple[tuple[str, str], ...]) -> str:
    """JSON of a list of pairs of strings."""
    return _write(pairs) if pairs else "[]"


def numbers_text(numbers: Iterable[int]) -> str:
    """JSON of a list of whole numbers."""
    return f"[{','.join(map(str, numbers))}]"


def number_pairs_text(pairs: Iterable[tuple[int, int]]) -> str:
    """JSON of a list of pairs of whole numbers."""
    return f"[{','.join(f'[{a},{b}]' for a, b in pairs)}]"


def json_text(values: Sequence[object]) -> str:
    """JSON of any list, in ASCII."""
    return _write(values)


@lru_cache(_CACHED)
def strings_of(text: str) -> tuple[str, ...]:
    """Read a list of strings. Raises ValueError for anything else."""
    if text.count('"') == 2 and text[:2] == '["' and text[-2:] == '"]' and "\\" not in text:
        return (text[2:-2],)  # one name, as most lists are
    return tuple(map(string, items(json.loads(text))))


@lru_cache(_CACHED)
def pairs_of(text: str) -> tuple[tuple[str, str], ...]:
    """Read a list of pairs of strings. Raises ValueError for anything else."""
    return pairs(json.loads(text))


@lru_cache(_CACHED)
def numbers_of(text: str) -> tuple[int, ...]:
    """Read a list of whole numbers. Raises ValueError for anything else."""
    return tuple(map(number, items(json.loads(text))))


@lru_cache(_CACHED)
def number_pairs_of(text: str) -> tuple[tuple[int, int], ...]:
    """Read a list of pairs of whole numbers. Raises ValueError for anything else."""
    return tuple((number(a), number(b)) for a, b in lists_of(text, 2))


def lists_of(text: str, length: int | None = None) -> list[list[object]]:
    """Read a list of lists, of so many items each. Raises ValueError for anything else."""
    return [items(item, length) for item in items(json.loads(text))]


def string_lists_of(text: str) -> list[tuple[str, ...]]:
    """Read a list of lists of strings, of which there may be many. Raises ValueError for anything
    else."""
    lists: list[Any] = items(json.loads(text))
    if not set(map(type, lists)) <= {list}:
        raise ValueError(_NO_LIST)
    if not set(map(type, chain.from_iterable(lists))) <= {str}:
        raise ValueError(_NO_STRING)
    return list(map(tuple, lists))


def items(value: object, length: int | None = None) -> list[object]:
    """The value, which is to be a list, of so many items. Raises ValueError for anything else."""
    if not isinstance(value, list) or length not in (None, len(value)):
        raise ValueError(_NO_LIST)
    return value


def pairs(value: object) -> tuple[tuple[str, str], ...]:
    """The value, which is to be a list of pairs of strings. Raises ValueError for anything else."""
    return tuple((string(a), string(b)) for a, b in (items(item, 2) for item in items(value)))


def string(value: object) -> str:
    """The value, which is to be a string. Raises ValueError for anything else."""
    if not isinstance(value, str):
        raise ValueError(_NO_STRING)
    return value


def number(value: object) -> int:
    """The value, which is to be a whole number. Raises ValueError for anything else."""
    if type(value) is not int:
        raise ValueError("a list of whole numbers holds something else")
    return value


def plain(text: str) -> str:
    """The text as SQLite can keep it: lone surrogates, which UTF-8 lacks, become escapes."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text
