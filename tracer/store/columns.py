"""Small lists in, the JSON text of a column out; and back, refusing what is not such a list."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache

Row = tuple[object, ...]

_CACHED = 4096
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


@lru_cache(_CACHED)
def saved_text(attribute: str, meta: int, nbytes: int | None) -> str:
    """JSON of one of the tensors that a node keeps; a column has a list of them."""
    return _write([attribute, meta, nbytes])


@lru_cache(_CACHED)
def strings_of(text: str) -> tuple[str, ...]:
    """Read a list of strings. Raises ValueError for anything else."""
    if text.count('"') == 2 and text[:2] == '["' and text[-2:] == '"]' and "\\" not in text:
        return (text[2:-2],)  # one name, as most lists are
    return tuple(_string(item) for item in _list(json.loads(text)))


@lru_cache(_CACHED)
def pairs_of(text: str) -> tuple[tuple[str, str], ...]:
    """Read a list of pairs of strings. Raises ValueError for anything else."""
    pairs = (_list(item, 2) for item in _list(json.loads(text)))
    return tuple((_string(a), _string(b)) for a, b in pairs)


@lru_cache(_CACHED)
def numbers_of(text: str) -> tuple[int, ...]:
    """Read a list of whole numbers. Raises ValueError for anything else."""
    return tuple(_number(item) for item in _list(json.loads(text)))


@lru_cache(_CACHED)
def number_pairs_of(text: str) -> tuple[tuple[int, int], ...]:
    """Read a list of pairs of whole numbers. Raises ValueError for anything else."""
    pairs = (_list(item, 2) for item in _list(json.loads(text)))
    return tuple((_number(a), _number(b)) for a, b in pairs)


@lru_cache(_CACHED)
def saved_of(text: str) -> tuple[tuple[str, int, int | None], ...]:
    """Read a list of what `saved_text` wrote. Raises ValueError for anything else."""
    items = (_list(item, 3) for item in _list(json.loads(text)))
    return tuple((_string(a), _number(m), None if n is None else _number(n)) for a, m, n in items)


def _list(value: object, length: int | None = None) -> list[object]:
    if not isinstance(value, list) or length not in (None, len(value)):
        raise ValueError("a column holds no list of the kind it is declared to hold")
    return value


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a list of strings holds something else")
    return value


def _number(value: object) -> int:
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
