"""An open trace in, what its tables hold by id out, each read when it is first asked for."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, TypeVar

from tracer.records.events import Hook
from tracer.records.graph import ModuleRef, Root, Site
from tracer.records.quick import maker
from tracer.records.tensors import TensorMeta
from tracer.store.columns import number_pairs_of, numbers_of, strings_of
from tracer.store.entries import UNKNOWN_META
from tracer.store.files import damaged
from tracer.store.schema import select_from

T = TypeVar("T")

_make_module = maker(ModuleRef)

_BLOCK = 1000
_MOST_KEPT = 100_000
_UNREADABLE = (sqlite3.Error, OverflowError, UnicodeDecodeError)
NONSENSE = (ArithmeticError, LookupError, RecursionError, TypeError, ValueError, struct.error)
"""What the bytes and numbers of a damaged or hostile file raise when they are read."""


class Archive:
    """One open trace; tables that events and graphs refer to are read a block at a time."""

    def __init__(self, connection: sqlite3.Connection, label: str) -> None:
        self._connection = connection
        self.label = label
        metas = ById(self, "meta", _meta)
        self._strings = ById(self, "string", lambda row: str(row[1]), {0: ""})
        self._sites = ById[Site | None](self, "site", _site, {0: None})
        self._modules = ById[ModuleRef | None](self, "module", self._module, {0: None})
        self._leaf_metas = ById(self, "leaf", lambda row: metas[int(row[2])])
        self.string: Callable[[int], str] = self._strings.__getitem__
        """A text; 0 is the empty one."""
        self.meta: Callable[[int], TensorMeta] = metas.__getitem__
        """A tensor's metadata."""
        self.site: Callable[[int], Site | None] = self._sites.__getitem__
        """A site; 0 is none."""
        self.module: Callable[[int], ModuleRef | None] = self._modules.__getitem__
        """A module call; 0 is none."""
        self.hook: Callable[[int], Hook] = ById(self, "hook", self._hook).__getitem__
        """A user's hook."""
        self.roots: Callable[[str], tuple[Root, ...]]
        self.roots = ByText(
            lambda text: tuple(Root(*at) for at in number_pairs_of(text))
        ).__getitem__
        """The roots that a column's list stands for."""

    def rows(self, sql: str, *values: object) -> list[Any]:
        """All rows of a query. Raises TraceFileError where the file can't be read."""
        try:
            return self._connection.execute(sql, values).fetchall()
        except _UNREADABLE as error:
            raise damaged(self.label, error) from error

    def each(self, sql: str, *values: object) -> Iterator[Any]:
        """The rows of a query, not held all at once. Raises TraceFileError as `rows` does."""
        try:
            cursor = self._connection.execute(sql, values)
            while batch := cursor.fetchmany(_BLOCK):
                yield from batch
        except _UNREADABLE as error:
            raise damaged(self.label, error) from error

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turn what reading nonsense raises into the one error that says the file is damaged."""
        try:
            yield
        except NONSENSE as error:
            raise damaged(self.label, error) from error

    def has_complex(self) -> bool:
        """Whether any tensor is complex."""
        return bool(self.rows("SELECT 1 FROM meta WHERE dtype LIKE 'complex%' LIMIT 1"))

    def leaf_meta(self, leaf: int) -> TensorMeta:
        """The metadata of a leaf's data and `.grad`; unknown for a leaf that is not stored."""
        try:
            return self._leaf_metas[leaf]
        except LookupError:
            return UNKNOWN_META

    def _module(self, row: Sequence[Any]) -> ModuleRef:
        number, path, cls, call, parent = row
        made: ModuleRef = _make_module(number, path, cls, call, self.module(parent))
        return made

    def _hook(self, row: Sequence[Any]) -> Hook:
        number, kind, text, subject, defined, added = row
        return Hook(number, kind, text, subject, self.site(defined), self.site(added))


class ByText(dict[str, T]):
    """What the texts of a column stand for, each worked out once; a bounded number is kept."""

    def __init__(self, read: Callable[[str], T]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, text: str) -> T:
        if len(self) >= _MOST_KEPT:
            self.clear()
        value = self[text] = self._read(text)
        return value


class ById(dict[int, T]):
    """Records of one table by id; a bounded number of them is kept, and what is `known`."""

    def __init__(
        self,
        archive: Archive,
        table: str,
        make: Callable[[Sequence[Any]], T],
        known: Mapping[int, T] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self._archive = archive
        self._table = table
        self._make = make
        self._always = known
        self._rows: dict[int, Sequence[Any]] = {}
        self.update(self._always)

    def __missing__(self, number: int) -> T:
        row = self._rows.pop(number, None) or self._find(number)
        made = self[number] = self._make(row)
        return made

    def _find(self, number: int) -> Sequence[Any]:
        """Read the whole block that the row is in: a graph asks for its newest first."""
        if len(self) + len(self._rows) >= _MOST_KEPT:
            self.clear()
            self._rows.clear()
            self.update(self._always)
        first = number - number % _BLOCK
        sql = select_from(self._table, f"WHERE id BETWEEN ? AND {first + _BLOCK - 1}")
        self._rows.update((row[0], row) for row in self._archive.rows(sql, first))
        if number not in self._rows:
            raise LookupError(f"there is no {self._table} {number}")
        return self._rows.pop(number)


def _meta(row: Sequence[Any]) -> TensorMeta:
    _, shape, dtype, device, layout = row
    return TensorMeta(numbers_of(shape), dtype, device, layout)


def _site(row: Sequence[Any]) -> Site:
    number, file, line, function, expression, targets, statement = row
    return Site(number, file, line, function, expression, strings_of(targets), statement)
