"""An open trace in, what its tables hold by id out, each read when it is first asked for."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from tracer.records.events import Hook
from tracer.records.graph import ModuleRef, Root, SavedTensor, Site
from tracer.records.tensors import TensorMeta
from tracer.store.columns import number_pairs_of, numbers_of, saved_of, strings_of
from tracer.store.entries import UNKNOWN_META
from tracer.store.files import damaged
from tracer.store.schema import select_from

T = TypeVar("T")

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
        self._strings = ById(self, "string", lambda row: str(row[1]))
        self._metas = ById(self, "meta", _meta)
        self._sites = ById(self, "site", _site)
        self._modules = ById(self, "module", self._module)
        self._meta_lists = ByText(self._read_metas)
        self._saved_lists = ByText(self._read_saved)
        self._root_lists = ByText(lambda text: tuple(Root(*at) for at in number_pairs_of(text)))
        self._leaf_metas = ById(self, "leaf", lambda row: int(row[2]))
        self._hooks = ById(self, "hook", self._hook)

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

    def string(self, number: int) -> str:
        """A text; 0 is the empty one."""
        return self._strings[number] if number else ""

    def meta(self, number: int) -> TensorMeta:
        """A tensor's metadata."""
        return self._metas[number]

    def metas(self, text: str) -> tuple[TensorMeta | None, ...]:
        """The metadata that a column's list of numbers stands for, None for 0."""
        return self._meta_lists[text]

    def roots(self, text: str) -> tuple[Root, ...]:
        """The roots that a column's list stands for."""
        return self._root_lists[text]

    def saved(self, text: str) -> tuple[SavedTensor, ...]:
        """The saved tensors that a column's list stands for."""
        return self._saved_lists[text]

    def site(self, number: int) -> Site | None:
        """A site; 0 is none."""
        return self._sites[number] if number else None

    def module(self, number: int) -> ModuleRef | None:
        """A module call; 0 is none."""
        return self._modules[number] if number else None

    def hook(self, number: int) -> Hook:
        """A user's hook."""
        return self._hooks[number]

    def _read_metas(self, text: str) -> tuple[TensorMeta | None, ...]:
        return tuple(self._metas[number] if number else None for number in numbers_of(text))

    def _read_saved(self, text: str) -> tuple[SavedTensor, ...]:
        return tuple(
            SavedTensor(attribute, self._metas[meta] if meta else None, nbytes)
            for attribute, meta, nbytes in saved_of(text)
        )

    def leaf_meta(self, leaf: int) -> TensorMeta:
        """The metadata of a leaf's data and `.grad`; unknown for a leaf that is not stored."""
        try:
            return self._metas[self._leaf_metas[leaf]]
        except LookupError:
            return UNKNOWN_META

    def _module(self, row: Sequence[Any]) -> ModuleRef:
        number, path, cls, call, parent = row
        return ModuleRef(number, path, cls, call, self.module(parent))

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


class ById(Generic[T]):
    """Records of one table by id; a bounded number of them is kept."""

    def __init__(self, archive: Archive, table: str, make: Callable[[Sequence[Any]], T]) -> None:
        self._archive = archive
        self._table = table
        self._make = make
        self._known: dict[int, T] = {}
        self._rows: dict[int, Sequence[Any]] = {}

    def __getitem__(self, number: int) -> T:
        try:
            return self._known[number]
        except KeyError:
            return self._read(number)

    def _read(self, number: int) -> T:
        row = self._rows.pop(number, None) or self._find(number)
        made = self._known[number] = self._make(row)
        return made

    def _find(self, number: int) -> Sequence[Any]:
        """Read the whole block that the row is in: a graph asks for its newest first."""
        if len(self._known) + len(self._rows) >= _MOST_KEPT:
            self._known.clear()
            self._rows.clear()
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
