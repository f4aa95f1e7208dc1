"""Tensors and a frame come in; the names by which the user's variables reach them go out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import FrameType, ModuleType

from torch import Tensor, nn
from torch.optim import Optimizer

from tracer.capture.contents import (
    Part,
    Reader,
    attributes_of,
    entries_of,
    find_reader,
    namespace_of,
)
from tracer.capture.references import OurRef
from tracer.capture.user_code import UserCode
from tracer.capture.variables import Scope, is_name, read_scopes

_MOST_OBJECTS = 20_000
_MOST_MODULE_ENTRIES = 100_000
_MOST_WAITS = 12
_DEEPEST = 4

# Names are searched for in order of these distances: a variable, a path in a module that a variable
# holds, an item or attribute of one, a variable left over by a `for` loop, and so on.
_TO_PARAMETER = 2
_TO_PART = 4
_TO_LOOP_VARIABLE = 7
_DISTANCES = _TO_LOOP_VARIABLE + _TO_PART * _DEEPEST + _TO_PARAMETER + 1

_MODULE_INTERNALS = frozenset(nn.Module().__dict__)
_WRAPPER = "_orig_mod"


def find_names(
    tensors: Mapping[int, Tensor], frame: FrameType | None, *, is_user: UserCode
) -> dict[int, str]:
    """Find what the user frames from `frame` outward call these tensors; the rest are left out.

    Tensors are told apart by identity, and no code of the user's is run: no properties, no
    comparison, no iteration but over exact lists, tuples, dictionaries and `__dict__`. What is
    nearest to a variable wins; of equals, what the innermost frame holds.
    """
    return _search(tensors, read_scopes(frame, is_user), is_user)


class _Waits:
    """Lets searches that find nothing come ever more rarely."""

    def __init__(self) -> None:
        self._vain = 0
        self._wait = 0

    def is_over(self) -> bool:
        self._wait -= 1
        return self._wait < 0

    def plan_next(self, *, was_fruitful: bool) -> None:
        self._vain = 0 if was_fruitful else min(self._vain + 1, _MOST_WAITS)
        self._wait = 2**self._vain - 1


class NameBook:
    """Remembers what leaves are called, so that only leaves not seen before are searched for.

    It holds leaves weakly, by identity. Leaves that are new in each pass and have no name are
    searched for ever more rarely; parameters always are.
    """

    def __init__(self, is_user: UserCode) -> None:
        self._is_user = is_user
        self._known: dict[int, tuple[OurRef, str]] = {}
        self._most_known = 1024
        # Variables of loops that turned out to be the best name that a leaf has.
        self._loop_names: set[str] = set()
        self._waits = _Waits()
        # What leaves were called between passes, outside of modules (in a constructor) and inside.
        self.meanwhile: dict[tuple[int, bool], tuple[OurRef, str]] = {}
        self._meanwhile_waits = _Waits()

    def names(
        self, tensors: Mapping[int, Tensor], frame: FrameType | None, *, first: Scope | None = None
    ) -> dict[int, str]:
        """Give the names of leaves by key, as seen from `frame`; those without one are left out.

        What is reached from `first` as closely as from a frame is named by that.
        """
        found: dict[int, str] = {}
        unknown: dict[int, Tensor] = {}
        for key, tensor in tensors.items():
            entry = self._known.get(id(tensor))
            if entry is None or entry[0]() is not tensor:
                unknown[key] = tensor
            elif entry[1]:
                found[key] = entry[1]
        return found | self._learn(unknown, frame, first) if unknown else found

    def _learn(
        self, unknown: dict[int, Tensor], frame: FrameType | None, first: Scope | None
    ) -> dict[int, str]:
        scopes = [] if first is None else [first]
        scopes += read_scopes(frame, self._is_user)
        found = self._in_variables(unknown, scopes)
        self._remember({key: unknown[key] for key in found}, found)
        rest = {key: tensor for key, tensor in unknown.items() if key not in found}
        if rest and (_any_parameter(rest) or self._waits.is_over()):
            names = _search(rest, scopes, self._is_user)
            self._remember(rest, names)
            self._waits.plan_next(was_fruitful=bool(names))
            self._loop_names.update(filter(str.isidentifier, names.values()))
            found |= names
        return found

    def name_now(
        self, tensor: Tensor, frame: FrameType | None, *, first: Scope | None = None
    ) -> str:
        """Name a leaf outside of a pass, empty where nothing leads to it.

        It may be known only to its constructor yet, so the next pass asks anew.
        """
        entry = self._known.get(id(tensor))
        if entry is not None and entry[0]() is tensor and entry[1]:
            return entry[1]
        key = id(tensor), first is not None
        entry = self.meanwhile.get(key)
        if entry is not None and entry[0]() is tensor:
            return entry[1]
        scopes = [] if first is None else [first]
        scopes += read_scopes(frame, self._is_user)
        found = self._in_variables({0: tensor}, scopes, also_of_loops=True)
        if not found and self._meanwhile_waits.is_over():
            found = _search({0: tensor}, scopes, self._is_user)
            self._meanwhile_waits.plan_next(was_fruitful=bool(found))
        self.meanwhile[key] = (OurRef(tensor), found.get(0, ""))
        return found.get(0, "")

    def round_ends(self) -> None:
        """Forget what leaves were called before the pass that ended."""
        self.meanwhile.clear()

    def variable_of(self, tensor: Tensor, frame: FrameType | None) -> str:
        """Name a variable that holds this very tensor now; empty where none does.

        For a tensor that is no leaf and may be gone soon: nothing is searched or remembered.
        """
        scopes = list(read_scopes(frame, self._is_user))
        return self._in_variables({0: tensor}, scopes, also_of_loops=True).get(0, "")

    def module_name(self, module: nn.Module, called: str, frame: FrameType | None) -> str:
        """Name a module that `frame`'s user code calls by this text: by the text, unless it is
        empty or begins with a loop's variable, and something that lasts leads to the module."""
        scopes = list(read_scopes(frame, self._is_user))
        variable = called.partition(".")[0]
        held = next((scope for scope in scopes if variable in scope.values), None)
        if held is not None and variable not in held.loop_variables:
            return called
        return _search({0: module}, scopes, self._is_user).get(0, called)

    def _in_variables(
        self, tensors: dict[int, Tensor], scopes: Iterable[Scope], *, also_of_loops: bool = False
    ) -> dict[int, str]:
        """Look for tensors in the variables themselves, as is cheap enough for every pass."""
        keys = {id(tensor): key for key, tensor in tensors.items()}
        found: dict[int, str] = {}
        for scope in scopes:
            for name, value in scope.values.items():
                if id(value) not in keys or not is_name(name) or keys[id(value)] in found:
                    continue
                if also_of_loops or name not in scope.loop_variables - self._loop_names:
                    found[keys[id(value)]] = name
        return found

    def _remember(self, tensors: dict[int, Tensor], names: dict[int, str]) -> None:
        for key, tensor in tensors.items():
            self._known[id(tensor)] = (OurRef(tensor), names.get(key, ""))
        if len(self._known) > self._most_known:
            alive = {key: entry for key, entry in self._known.items() if entry[0]() is not None}
            self._known = alive
            self._most_known = max(1024, 2 * len(alive))


def _any_parameter(tensors: Mapping[int, Tensor]) -> bool:
    return any(issubclass(type(tensor), nn.Parameter) for tensor in tensors.values())


def _search(
    wanted: Mapping[int, Tensor | nn.Module], scopes: Iterable[Scope], is_user: UserCode
) -> dict[int, str]:
    search = _Search(wanted, is_user)
    for scope in scopes:
        search.begin_with(scope)
    return search.run()


class _Search:
    """A breadth-first search from variables to tensors or modules, nearest first."""

    def __init__(self, wanted: Mapping[int, Tensor | nn.Module], is_user: UserCode) -> None:
        self._wanted: dict[int, list[int]] = {}
        for key, value in wanted.items():
            self._wanted.setdefault(id(value), []).append(key)
        self._is_user = is_user
        self._names: dict[int, str] = {}
        self._at: list[list[tuple[str, object, int]]] = [[] for _ in range(_DISTANCES)]
        # The objects themselves, so that no address is used again while the search goes on.
        self._seen: dict[int, object] = {}
        self._readers: dict[type, Reader | None] = {}
        self._optimizers: list[Part] = []
        self._objects_left = _MOST_OBJECTS
        self._entries_left = _MOST_MODULE_ENTRIES

    def begin_with(self, scope: Scope) -> None:
        """Enter the variables of one scope; scopes come innermost first."""
        for name, value in scope.named():
            distance = _TO_LOOP_VARIABLE if name in scope.loop_variables else 0
            self._enter(name, value, 0, distance)

    def run(self) -> dict[int, str]:
        """Search until every tensor has a name or the limits are reached."""
        for distance, entries in enumerate(self._at):
            rest = [entry for entry in entries if not self._is_named(*entry[:2])]
            for path, value, depth in rest:
                if not self._wanted:
                    return self._names
                self._visit(path, value, depth, distance)
        for path, optimizer in self._optimizers:
            self._name_groups(path, optimizer)
        return self._names

    def _enter(self, path: str, value: object, depth: int, distance: int) -> None:
        """Put a value in line, unless it is not wanted and leads nowhere new."""
        self._objects_left -= 1
        leads_on = depth < _DEEPEST and id(value) not in self._seen and self._reader_of(value)
        if leads_on or id(value) in self._wanted:
            self._at[distance].append((path, value, depth))

    def _visit(self, path: str, value: object, depth: int, distance: int) -> None:
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if issubclass(type(value), nn.Module):
            self._walk_modules(path, value, depth, distance)
        elif issubclass(type(value), Optimizer):
            self._optimizers.append((path, value))
        else:
            reader = self._reader_of(value)
            self._enter_parts(path, reader(value) if reader else (), depth, distance)

    def _enter_parts(self, path: str, parts: Iterable[Part], depth: int, distance: int) -> None:
        for step, part in parts:
            if self._objects_left <= 0:
                return
            self._enter(path + step, part, depth + 1, distance + _TO_PART)

    def _is_named(self, path: str, value: object) -> bool:
        """Name a value that is wanted; no other that is as near needs to be looked into for it."""
        keys = self._wanted.pop(id(value), ())
        self._names.update(dict.fromkeys(keys, path))
        return bool(keys)

    def _walk_modules(self, path: str, module: object, depth: int, distance: int) -> None:
        """Enter what a module and those below it hold; parameters as PyTorch names them."""
        rest = [(path, module)]
        while rest and self._entries_left > 0:
            path, module = rest.pop()
            if id(module) in self._wanted:
                self._enter(path, module, depth, distance + _TO_PARAMETER)
            self._enter_parameters(path, module, depth, distance)
            self._enter_parts(path, attributes_of(module, _MODULE_INTERNALS), depth, distance)
            rest.extend(reversed(list(self._children_of(path, module))))

    def _children_of(self, path: str, module: object) -> Iterator[Part]:
        for name, child in entries_of(namespace_of(module).get("_modules")):
            self._entries_left -= 1
            if id(child) not in self._seen and issubclass(type(child), nn.Module):
                self._seen[id(child)] = child
                yield path if name == _WRAPPER else f"{path}.{name}", child

    def _enter_parameters(self, path: str, module: object, depth: int, distance: int) -> None:
        for store in ("_parameters", "_buffers"):
            for name, tensor in entries_of(namespace_of(module).get(store)):
                self._entries_left -= 1
                if id(tensor) in self._wanted:
                    self._enter(f"{path}.{name}", tensor, depth, distance + _TO_PARAMETER)

    def _name_groups(self, path: str, optimizer: object) -> None:
        """Name parameters by their place in an optimizer, where nothing else leads to them."""
        groups = namespace_of(optimizer).get("param_groups")
        for number, group in enumerate(groups if type(groups) is list else ()):
            parameters = group.get("params") if type(group) is dict else None
            for index, tensor in enumerate(parameters if type(parameters) is list else ()):
                self._is_named(f"{path}.param_groups[{number}]['params'][{index}]", tensor)

    def _reader_of(self, value: object) -> Reader | None:
        kind = type(value)
        if kind not in self._readers:
            self._readers[kind] = self._make_reader(kind)
        return self._readers[kind]

    def _make_reader(self, kind: type) -> Reader | None:
        if issubclass(kind, Tensor):
            return None
        if issubclass(kind, ModuleType):
            return partial(_globals_of, self._is_user)
        return find_reader(kind)


def _globals_of(is_user: UserCode, module: ModuleType) -> Iterable[Part]:
    """Read the variables of a module that the user wrote."""
    file = namespace_of(module).get("__file__")
    return attributes_of(module) if type(file) is str and is_user.wrote(file) else ()
