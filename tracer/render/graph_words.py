"""A graph in; out, what lines call its nodes and where they say that they are."""

from __future__ import annotations

from collections import Counter
from functools import cached_property

from tracer.records import words
from tracer.records.graph import Graph, NodeKind, Site
from tracer.records.packed import pack
from tracer.render.columns import Columns

_LONGEST_NAME = 24
_MOST_KEPT = 4096


class GraphWords:
    """What to call each node of a graph, and where to say that it is.

    What is said follows from the numbers of what a node shares with others (see `PackedNodes`): of
    most nodes, no record is made.
    """

    def __init__(self, graph: Graph) -> None:
        self.titles = words.Titles(graph)
        nodes, edges = pack(graph)
        self._nodes = nodes
        self.starts, self.targets, self.input_nrs = edges.starts, edges.targets, edges.input_nrs
        """The edges: see `PackedEdges`."""
        self.sort_of = nodes.sorts.numbers
        self._operation_of = nodes.operations.numbers
        self.variables_of = nodes.variables.numbers
        self._loops_of = nodes.loops.numbers
        self._module_of = nodes.modules.numbers
        self.names = [_name(variables) for variables in nodes.variables.values]
        """What to call nodes whose outputs were bound to names, by `variables_of`."""
        self._op_names = [_short(words.op_name_of(sort.name)) for sort in nodes.sorts.values]
        self._sites = [operation.site for operation in nodes.operations.values]
        self._wheres: dict[tuple[int, ...], str] = {}

    def __len__(self) -> int:
        return len(self.sort_of)

    @cached_property
    def gathers(self) -> frozenset[int]:
        """The nodes that several edges lead to: they may have to add up what arrives."""
        leading = Counter(self.targets)
        return frozenset(target - 1 for target, edges in leading.items() if edges > 1 and target)

    @property
    def kinds(self) -> list[str]:
        """The names of kinds of nodes, by `sort_of`."""
        return [sort.name for sort in self._nodes.sorts.values]

    def kind(self, number: int) -> str:
        """The name of a node's kind."""
        return self._nodes.sorts[number].name

    def site(self, number: int) -> Site | None:
        """The line that made a node."""
        return self._sites[self._operation_of[number]]

    # ---- what an edge leads to

    def unnamed(self, source: int, target: int) -> str:
        """What to call the node an edge leads to where what that made was bound to no name: of the
        same expression's nodes, what they do."""
        operation = self._operation_of[target]
        own = self._same_site[operation]
        if own is None or own == self._same_site[self._operation_of[source]]:
            return self._op_names[self.sort_of[target]]
        return self._expressions[operation] or self._op_names[self.sort_of[target]]

    @cached_property
    def _same_site(self) -> list[int | None]:
        """A number for the site of each operation, the same for equal ones."""
        known: dict[Site, int] = {}
        return [None if s is None else known.setdefault(s, len(known)) for s in self._sites]

    @cached_property
    def _expressions(self) -> list[str]:
        return ["" if site is None else _short(site.expression) for site in self._sites]

    # ---- where a node is

    def where(self, number: int) -> str:
        """Where a node is: in the source, or in its module where one place led to several."""
        place = self.place(number)
        where = self._wheres.get(place)
        if where is None:
            if len(self._wheres) >= _MOST_KEPT:
                self._wheres.clear()
            where = self._wheres[place] = self._where(number)
        return where

    def _where(self, number: int) -> str:
        operation, module = self._operation_of[number], self._nodes.modules[number]
        if operation in self._led_to_several and module is not None and module.path:
            return module.path
        return words.node_where(self._nodes[number])

    def place(self, number: int) -> tuple[int, ...]:
        """What `site` and `where` follow from: the same for nodes at the same place."""
        operation = self._operation_of[number]
        variables, loops = self.variables_of[number], self._loops_of[number]
        if operation in self._simple:
            return operation, variables, loops
        return operation, variables, loops, self._module_of[number], self.sort_of[number]

    @cached_property
    def _led_to_several(self) -> frozenset[int]:
        """The operations of places that led to several modules."""
        modules = self._nodes.modules.values
        if len({module.path for module in modules if module is not None}) < 2:
            return frozenset()
        paths: dict[int, set[str]] = {}
        for operation, number in set(zip(self._operation_of, self._module_of, strict=True)):
            site, module = self._sites[operation], modules[number]
            if site is not None and module is not None:
                paths.setdefault(site.id, set()).add(module.path)
        return frozenset(
            operation
            for operation, site in enumerate(self._sites)
            if site is not None and len(paths.get(site.id, ())) > 1
        )

    @cached_property
    def _simple(self) -> frozenset[int]:
        """The operations whose nodes are told by the text of their source, and by no more."""
        leaves = {
            operation
            for operation, sort in set(zip(self._operation_of, self.sort_of, strict=True))
            if self._nodes.sorts.values[sort].kind is NodeKind.ACCUMULATE
        }
        others = leaves | self._led_to_several
        return frozenset(
            operation
            for operation, site in enumerate(self._sites)
            if site is not None and site.expression and operation not in others
        )


def _name(variables: tuple[str, ...]) -> str | None:
    """What to call a node whose outputs were bound to names."""
    return _short(", ".join(variables)) if variables and variables != ("",) else None


def _short(name: str) -> str:
    if len(name) <= _LONGEST_NAME and name.isprintable():
        return name.strip(" ")
    return words.shorten(name, _LONGEST_NAME)


class NodeCells:
    """The cells in a line that say what a node is, and where; laid out once for nodes alike."""

    def __init__(self, said: GraphWords, columns: Columns, main_file: str) -> None:
        self._said = said
        self._columns = columns
        self._main_file = main_file
        self._kinds = [columns.event(kind) for kind in said.kinds]
        self._wheres: dict[tuple[int, ...], str] = {}

    def of(self, number: int) -> str:
        """The cells of a node."""
        said = self._said
        place = said.place(number)
        where = self._wheres.get(place)
        if where is None:
            if len(self._wheres) >= _MOST_KEPT:
                self._wheres.clear()
            at = self._columns.place(said.site(number), self._main_file)
            where = self._wheres[place] = self._columns.where(said.where(number), at)
        return f"{self._kinds[said.sort_of[number]]}  {where}"
