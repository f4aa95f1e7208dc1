"""A graph and its units in; what each unit belongs to, from the outermost group inwards, out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import PurePath

from tracer.records.graph import Graph, Node
from tracer.transforms.levels import GroupKind, Level, LevelBook, Path
from tracer.transforms.loops import Loop, Place, Runs, find_loops
from tracer.transforms.views import Units

_CROWD = 24  # operations directly in one module, above which they are grouped by function and line
_MOST_NAMED = 3  # functions that name a loop

Steps = tuple[tuple[int, Path], ...]  # for each loop around a unit: modules around it, its levels


def unit_paths(graph: Graph, units: Units) -> tuple[list[Level], list[Path]]:
    """Find the levels, and for each unit that is no leaf those it belongs to, outermost first.

    A unit belongs to its module and those around it; without a module, or in a crowded one, to its
    function and its source line. Loops stand around what is wholly inside of them. A unit of which
    nothing is known goes with its neighbours in flow order.
    """
    mains = [graph.nodes[members[0]] for members in units.members[: units.first_leaf]]
    book = LevelBook()
    found = _find_places(mains)
    bases = _base_paths(found, book)
    steps_of = _loop_steps(found, book)
    paths = []
    for place, time in zip(found.places, found.times, strict=True):
        outer, inner = bases[place]
        steps = steps_of[place][time] if place in steps_of else ()
        paths.append(_with_loops(outer, steps) + inner)
    _adopt_strangers(found, paths)
    return book.levels, paths


@dataclass(frozen=True, slots=True)
class _Places:
    """The places in source that units come from: a node of each and when it ran; for each unit its
    place and which of the times. `crowded` are modules with many operations of their own, and
    `calls` tells how often each was called."""

    nodes: dict[Place, Node]
    runs: dict[Place, Runs]
    places: list[Place]
    times: list[int]
    crowded: frozenset[str]
    calls: Counter[str]


def _find_places(mains: list[Node]) -> _Places:
    nodes: dict[Place, Node] = {}
    runs: dict[Place, Runs] = {}
    last: dict[Place, tuple[int, int]] = {}
    places: list[Place] = []
    times: list[int] = []
    own: Counter[tuple[str, int]] = Counter()
    for start, node in enumerate(reversed(mains)):
        module, site = node.module, node.site
        place = (module.path if module is not None else None, site.id if site is not None else None)
        call = (module.call if module is not None else 1, node.call if site is not None else 1)
        if place not in nodes:
            nodes[place], runs[place] = node, Runs([], [])
        if last.get(place) != call:
            last[place] = call
            runs[place].calls.append(call[site is not None])
            runs[place].starts.append(start)
        places.append(place)
        times.append(len(runs[place].starts) - 1)
        if module is not None:
            own[module.path, module.call] += 1
    crowded = frozenset(path for (path, _), count in own.items() if count > _CROWD)
    calls = Counter(path for path, _ in own)
    return _Places(nodes, runs, places[::-1], times[::-1], crowded, calls)


def _base_paths(found: _Places, book: LevelBook) -> dict[Place, tuple[Path, Path]]:
    """Number the modules of each place, and the function and line where those count."""
    classes = _classes(found)
    bases = {}
    for place, node in found.nodes.items():
        by_source = node.module is None or node.module.path in found.crowded
        inner = book.of_site(node.site) if by_source else ()
        bases[place] = (book.of_module(node.module, classes), inner)
    return bases


def _classes(found: _Places) -> dict[str, str]:
    """Find the class of each module that is known, of those around others too."""
    classes: dict[str, str] = {}
    for node in found.nodes.values():
        module = node.module
        while module is not None and module.path not in classes:
            classes[module.path] = module.cls
            module = module.parent
    return classes


def _loop_steps(found: _Places, book: LevelBook) -> dict[Place, list[Steps]]:
    """Tell for each place in a loop, and each time it ran, the loops and iterations around it."""
    loops = find_loops(found.runs)
    shared = {loop.id: _shared_modules(loop) for loop in loops}
    names = {loop.id: _loop_level(loop, shared[loop.id], found) for loop in loops}
    steps_of: dict[Place, list[Steps]] = {}
    for loop in loops:
        chain = _around(loop, shared)
        steps = [
            tuple(
                (len(shared[step.id]), _iteration(book, step.id, names[step.id], turn))
                for step, turn in _turns_around(chain, turn)
            )
            for turn in range(len(loop.starts))
        ]
        for place, turns in loop.turns.items():
            steps_of[place] = [steps[turn] for turn in turns]
    return steps_of


def _around(loop: Loop, shared: dict[int, list[str]]) -> list[Loop]:
    """List a loop and those it runs in, innermost first, up to one that is deeper in modules."""
    chain = [loop]
    while loop.outer is not None and len(shared[loop.outer.id]) <= len(shared[loop.id]):
        loop = loop.outer
        chain.append(loop)
    return chain


def _turns_around(chain: list[Loop], turn: int) -> list[tuple[Loop, int]]:
    """Find in which iteration of each loop the innermost one's turn is, outermost first."""
    found = []
    for loop in chain:
        found.append((loop, turn))
        turn = loop.outer_turns[turn] if loop.outer_turns else 0
    return found[::-1]


def _iteration(book: LevelBook, loop: int, level: Level, turn: int) -> Path:
    name = f"iteration {turn + 1}"
    iteration = Level(GroupKind.ITERATION, "", name, level.cls, together=level.label)
    return book.number(("loop", loop), level), book.number(("turn", loop, turn), iteration)


def _shared_modules(loop: Loop) -> list[str]:
    paths = [place[0].split(".") if place[0] else [] for place in loop.turns]
    shared = 0
    while all(len(path) > shared and path[shared] == paths[0][shared] for path in paths):
        shared += 1
    return paths[0][:shared]


def _loop_level(loop: Loop, shared: list[str], found: _Places) -> Level:
    """Name a loop: calls of one module by that, else by its lines or its functions."""
    path = ".".join(shared)
    nodes = [found.nodes[place] for place in loop.turns]
    sites = [node.site for node in nodes if node.site is not None]
    if shared and (found.calls[path] >= len(loop.starts) or not sites):
        cls = next((n.module.cls for n in nodes if n.module and n.module.path == path), "")
        return Level(GroupKind.LOOP, "", path, cls)
    if not sites:
        return Level(GroupKind.LOOP, "", "loop")
    functions = dict.fromkeys(site.function.rsplit(".", 1)[-1] for site in sites)
    if len(functions) > 1 and "<module>" not in functions:
        named = [f"{name}()" for name in functions][:_MOST_NAMED]
        more = ["…"] * (len(functions) > _MOST_NAMED)
        return Level(GroupKind.LOOP, "", ", ".join(named + more))
    own = [site for site in sites if len(functions) == 1 or site.function == "<module>"]
    lines = sorted({site.line for site in own})
    until = f"–{lines[-1]}" * (len(lines) > 1)
    return Level(GroupKind.LOOP, "", f"{PurePath(own[0].file).name}:{lines[0]}{until}")


def _with_loops(outer: Path, steps: Steps) -> Path:
    path: list[int] = []
    done = 0
    for depth, levels in steps:
        path += outer[done:depth]
        path += levels
        done = max(done, depth)
    return (*path, *outer[done:])


def _adopt_strangers(found: _Places, paths: list[Path]) -> None:
    """Give units without module and source the levels that those before and after them share."""
    known = [number for number, place in enumerate(found.places) if place != (None, None)]
    for before, after in zip(known, known[1:], strict=False):
        if after - before > 1:
            shared = _shared_levels(paths[before], paths[after])
            for number in range(before + 1, after):
                paths[number] = shared


def _shared_levels(one: Path, other: Path) -> Path:
    length = 0
    while length < min(len(one), len(other)) and one[length] == other[length]:
        length += 1
    return one[:length]
