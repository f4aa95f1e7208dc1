"""An open trace in, its passes and leaves out, and what is read by key, when it is asked for."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

from tracer.errors import TraceFileError
from tracer.records.events import Leaf, Pass
from tracer.records.passes import PassSort
from tracer.store.archive import Archive
from tracer.store.schema import select_from

Key = TypeVar("Key")
Value = TypeVar("Value")

_BLOCK = 512
_BLOCKS_KEPT = 64
_NAMES_KEPT = 100_000
_NAMES = """
SELECT CAST(id AS INTEGER), CAST(name AS TEXT) FROM leaf WHERE id BETWEEN ? AND ?
"""
_SORTS = """
SELECT CAST(MIN(id) AS INTEGER), CAST(MAX(id) AS INTEGER), COUNT(*),
       CASE WHEN end_ns IS NULL THEN NULL ELSE CAST(TOTAL(end_ns - begin_ns) AS INTEGER) END
FROM pass WHERE id <= ?
GROUP BY graph, site, kind, parent IS NULL, inputs IS NULL, error, error_node, end_ns IS NULL
ORDER BY MIN(id)
"""


class Numbers:
    """The ids of a table's rows in order, by position; nothing is held where they are in a row."""

    def __init__(self, archive: Archive, table: str) -> None:
        self._archive = archive
        self._table = table
        sql = f"SELECT COUNT(*), IFNULL(MIN(id), 0), IFNULL(MAX(id), 0) FROM {table}"
        self.count, self.first, self.last = map(int, archive.rows(sql)[0])
        self._are_dense = self.count == self.last - self.first + 1
        self._listed: array[int] | None = None

    def at(self, position: int) -> int:
        """The id at a position."""
        return self.first + position if self._are_dense else self._ids()[position]

    def find(self, number: int) -> int:
        """The position of an id; -1 for one that there is not."""
        if self._are_dense:
            return number - self.first if self.first <= number <= self.last else -1
        ids = self._ids()
        position = bisect_left(ids, number)
        return position if position < len(ids) and ids[position] == number else -1

    def _ids(self) -> array[int]:
        if self._listed is None:
            sql = f"SELECT CAST(id AS INTEGER) FROM {self._table} WHERE id <= ? ORDER BY id"
            self._listed = array("q", (number for (number,) in self._archive.each(sql, self.last)))
            self.count = len(self._listed)
        return self._listed


class _Blocks:
    """Rows of a table by position, read and made into records a block at a time; some are kept."""

    def __init__(
        self, archive: Archive, table: str, make: Callable[[Archive, Sequence[Any]], Any]
    ) -> None:
        self.numbers = Numbers(archive, table)
        self._archive = archive
        self._table = table
        self._make = make
        self._kept: dict[int, dict[int, Any]] = {}
        self.latest: dict[int, Any] = {}
        """The rows of the block that was asked for last, by id."""

    def __getitem__(self, position: int) -> Any:
        block = position // _BLOCK
        rows = self._kept.get(block)
        if rows is None:
            rows = self._read(block)
        self.latest = rows
        number = self.numbers.at(position)
        try:
            return rows[number]
        except KeyError:
            raise TraceFileError(
                f"{self._archive.label}: {self._table} {number} has left the file, as its limits "
                "ask: open it again"
            ) from None

    def _read(self, block: int) -> dict[int, Any]:
        first = self.numbers.at(block * _BLOCK)
        last = self.numbers.at(min((block + 1) * _BLOCK, self.numbers.count) - 1)
        sql = select_from(self._table, "WHERE id BETWEEN ? AND ? ORDER BY id")
        with self._archive.reading():
            found = self._archive.rows(sql, first, last)
            rows = {row[0]: self._make(self._archive, row) for row in found}
        if len(self._kept) >= _BLOCKS_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[block] = rows
        return rows


class Passes(Sequence[Pass]):
    """The passes in order of their ids."""

    def __init__(self, archive: Archive, make: Callable[[Archive, Sequence[Any]], Pass]) -> None:
        self._archive = archive
        self._blocks = _Blocks(archive, "pass", make)
        self._sorts: list[PassSort] | None = None

    def __len__(self) -> int:
        return self._blocks.numbers.count

    @overload
    def __getitem__(self, index: int) -> Pass: ...

    @overload
    def __getitem__(self, index: slice) -> list[Pass]: ...

    def __getitem__(self, index: int | slice) -> Pass | list[Pass]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"no pass at {index} of {len(self)}")
        found: Pass = self._blocks[position]
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(list(self))

    def sorts(self) -> list[PassSort]:
        """The sorts of passes there are, without making a record of each."""
        if self._sorts is None:
            found = self._archive.rows(_SORTS, self._blocks.numbers.last)
            with self._archive.reading():
                self._sorts = [self._sort(*row) for row in found]
        return self._sorts

    def _sort(self, first: int, last: int, count: int, took: int | None) -> PassSort:
        one, other = (self[self._blocks.numbers.find(number)] for number in (first, last))
        return PassSort(one, other, count, None if took is None else took // count)


class Leaves(Mapping[int, Leaf]):
    """The leaves by id."""

    def __init__(self, archive: Archive, make: Callable[[Archive, Sequence[Any]], Leaf]) -> None:
        self._archive = archive
        self._blocks = _Blocks(archive, "leaf", make)
        self._names: dict[int, str] = {}

    def name(self, number: int) -> str:
        """The name of a leaf, without what else is known of it; "" of one that there is not."""
        name = self._names.get(number)
        if name is None:
            first = number - number % _BLOCK
            if len(self._names) >= _NAMES_KEPT:
                self._names.clear()
            self._names.update(dict.fromkeys(range(first, first + _BLOCK), ""))
            self._names.update(self._archive.rows(_NAMES, first, first + _BLOCK - 1))
            name = self._names[number]
        return name

    def __getitem__(self, number: int) -> Leaf:
        found: Leaf | None = self._blocks.latest.get(number)
        if found is None:
            position = self._blocks.numbers.find(number) if isinstance(number, int) else -1
            if position < 0:
                raise KeyError(number)
            found = self._blocks[position]
        return found

    def __len__(self) -> int:
        return self._blocks.numbers.count

    def __iter__(self) -> Iterator[int]:
        return map(self._blocks.numbers.at, range(len(self)))

    def __repr__(self) -> str:
        return repr(dict(self))


class ReadOnDemand(Mapping[Key, Value], Generic[Key, Value]):
    """Rows of a table by key, each read when it is asked for; the last few are kept."""

    def __init__(
        self, keys: Callable[[], list[Key]], read: Callable[[Key], Value | None], *, kept: int
    ) -> None:
        self._keys = keys
        self._read = read
        self._most = kept
        self._kept: dict[Key, Value] = {}

    def __getitem__(self, key: Key) -> Value:
        value = self._kept.pop(key, None) or self._read(key)
        if value is None:
            raise KeyError(key)
        self._kept[key] = value
        if len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]
        return value

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys())

    def __len__(self) -> int:
        return len(self._keys())
