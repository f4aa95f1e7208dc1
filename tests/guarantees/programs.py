"""Random programs as plain lists of instructions, and the interpreter that runs one in plain torch.

An instruction is a tuple: its name, then small numbers that choose among the tensors made so far
(modulo their count) and words that choose a variant. Whatever raises is caught and noted, so that
every program runs to its end.
"""

from __future__ import annotations

import contextlib
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.guarantees.instructions import (
    BINARY,
    DTYPES,
    EFFECTS,
    IN_PLACE,
    SHAPES,
    UNARY,
    Gain,
    nested_pass,
    on_each,
)

Instruction = tuple[Any, ...]
Frozen = tuple[str, tuple[int, ...], bytes] | None


def freeze(tensor: Tensor | None) -> Frozen:
    """A tensor's dtype, shape and bytes, for comparing bit for bit."""
    if tensor is None:
        return None
    with torch._C.DisableTorchFunction():  # the test's own reading, not the program's
        flat = tensor.detach().clone(memory_format=torch.contiguous_format).reshape(-1)
        raw = flat.view(torch.uint8).numpy().tobytes()
    return str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), raw


@dataclass(frozen=True, slots=True)
class HookSeen:
    """One run of a hook, as the hook itself saw it."""

    number: int
    kind: str
    before: tuple[Frozen, ...]
    after: tuple[Frozen, ...]


@dataclass(slots=True)
class Outcome:
    """All that a program's run shows to its user; and its leaves, `kept` for who looks later."""

    results: list[Any] = field(default_factory=list)
    places: list[list[tuple[str, int]]] = field(default_factory=list)
    hooks: list[HookSeen] = field(default_factory=list)
    warnings: list[tuple[str, str, str, int]] = field(default_factory=list)
    grads: list[Frozen] = field(default_factory=list)
    values: list[Frozen] = field(default_factory=list)
    left_hooks: list[Any] = field(default_factory=list)
    alive: list[list[bool]] = field(default_factory=list)
    random: bytes = b""
    kept: list[Tensor] = field(default_factory=list)


class Interpreter:
    """Runs a program; `outcome` is what there was to see."""

    def __init__(self) -> None:
        self.outcome = Outcome()
        self.tensors: list[Tensor] = []
        self.leaves: list[Tensor] = []
        self.handles: list[Any] = []
        self.accumulators: list[Any] = []  # a leaf's node lives only while somebody holds it
        self.module: Gain | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.refs: list[weakref.ref[Tensor]] = []
        self.hook_count = 0

    # ---- running

    def run(self, program: list[Instruction]) -> None:
        """Run all instructions; an exception becomes the result of the one that raised it."""
        for instruction in program:
            try:
                result: Any = getattr(self, "do_" + instruction[0])(*instruction[1:])
            except Exception as error:
                result = type(error).__name__, str(error)
                self.outcome.places.append(_places(error))
            self.outcome.results.append(result)

    def finish(self) -> None:
        """Note what is left at the end."""
        outcome = self.outcome
        outcome.kept = self.leaves
        outcome.grads = [freeze(leaf.grad) for leaf in self.leaves]
        outcome.values = [freeze(leaf) for leaf in self.leaves]
        outcome.left_hooks = [self._hooks_left(tensor) for tensor in self.tensors]
        outcome.random = bytes(torch.get_rng_state().numpy().tobytes())

    def _hooks_left(self, tensor: Tensor) -> Any:
        names = [
            [getattr(hook, "number", None) for hook in (hooks or {}).values()]
            for hooks in (tensor._backward_hooks, tensor._post_accumulate_grad_hooks)
        ]
        try:
            fn = tensor.grad_fn
        except RuntimeError as error:  # a view of something changed in a way that is forbidden
            return names, str(error)
        if fn is None:
            return names
        for register in (fn.register_prehook, fn.register_hook):
            handle = register(lambda *_: None)
            hooks = handle.hooks_dict_ref()
            handle.remove()
            names.append([getattr(hook, "number", None) for hook in hooks.values()])
        return names

    # ---- tensors

    def _pick(self, number: int) -> Tensor:
        if not self.tensors:
            raise RuntimeError("there is no tensor yet")
        return self.tensors[number % len(self.tensors)]

    def _root(self, number: int) -> Tensor:
        """Mostly one that a backward call can start from."""
        good = [tensor for tensor in self.tensors if tensor.requires_grad] if number != 9 else []
        return good[number % len(good)] if good else self._pick(number)

    def _leaf(self, number: int) -> Tensor:
        if not self.leaves:
            raise RuntimeError("there is no leaf yet")
        return self.leaves[number % len(self.leaves)]

    def _keep(self, made: Any) -> Any:
        made = made if isinstance(made, (list, tuple)) else [made]
        for tensor in made:
            self.tensors.append(tensor)
            self.refs.append(weakref.ref(tensor))
            if tensor.is_leaf and tensor.requires_grad:
                self.leaves.append(tensor)
        return [(freeze(tensor), tensor.requires_grad) for tensor in made]

    def do_leaf(self, dtype: str, shape: int, seed: int) -> Any:
        size = SHAPES[shape]
        numbers = torch.arange(torch.Size(size).numel(), dtype=DTYPES[dtype]).reshape(size)
        return self._keep((numbers * 0.75 - seed).requires_grad_())

    def do_unary(self, name: str, x: int) -> Any:
        return self._keep(UNARY[name](self._pick(x)))

    def do_binary(self, name: str, x: int, y: int) -> Any:
        return self._keep(BINARY[name](self._pick(x), self._pick(y)))

    def do_in_place(self, name: str, x: int, y: int) -> Any:
        target = self._pick(x)
        IN_PLACE[name](target, self._pick(y))
        return freeze(target)

    def do_module(self, x: int, hooked: bool) -> Any:
        if self.module is None:
            self.module = Gain()
            self.leaves.append(self.module.weight)
            if hooked:
                self._watch_module(self.module)
        return self._keep(self.module(self._pick(x)))

    def do_drop(self, x: int) -> Any:
        if self.tensors:
            del self.tensors[x % len(self.tensors)]
        self.outcome.alive.append([ref() is not None for ref in self.refs])

    def do_freeze(self, x: int) -> Any:
        self._leaf(x).requires_grad_(False)

    def do_thaw(self, x: int) -> Any:
        self._leaf(x).requires_grad_(True)

    def do_region(self, mode: str, body: list[Instruction]) -> Any:
        with _region(mode):
            self.run(body)

    # ---- hooks

    def _hook(self, kind: str, effect: str) -> Callable[..., Any]:
        self.hook_count += 1
        number, log = self.hook_count, self.outcome.hooks

        def hook(*given: Any) -> Any:
            nested_pass() if effect == "nested" else None
            if effect == "raise":
                raise RuntimeError(f"hook {number} raised")
            before = _frozen(given[0])
            back = _answer(effect, given[0])
            log.append(
                HookSeen(number, kind, before, _frozen(back if back is not None else given[0]))
            )
            return back

        hook.number = number  # type: ignore[attr-defined]
        return hook

    def do_tensor_hook(self, x: int, effect: str) -> Any:
        self.handles.append(self._pick(x).register_hook(self._hook("tensor hook", effect)))

    def do_prehook(self, x: int, effect: str) -> Any:
        self.handles.append(self._node(x).register_prehook(self._hook("prehook", effect)))

    def do_posthook(self, x: int, effect: str) -> Any:
        self.handles.append(self._node(x).register_hook(self._hook("posthook", effect)))

    def _node(self, x: int) -> Any:
        tensor = self._pick(x)
        node = torch.autograd.graph.get_gradient_edge(tensor).node
        if tensor.grad_fn is None:
            self.accumulators.append(node)
        return node

    def do_accumulate_hook(self, x: int, effect: str) -> Any:
        self.hook_count += 1
        number, log = self.hook_count, self.outcome.hooks

        def hook(leaf: Tensor) -> None:
            before = freeze(leaf.grad)
            if effect == "raise":
                raise RuntimeError(f"hook {number} raised")
            if effect == "clear":
                leaf.grad = None
            elif effect == "halve" and leaf.grad is not None:
                leaf.grad.mul_(0.5)
            log.append(HookSeen(number, "accumulate hook", (before,), (freeze(leaf.grad),)))

        hook.number = number  # type: ignore[attr-defined]
        self.handles.append(self._leaf(x).register_post_accumulate_grad_hook(hook))

    def do_multi_hook(self, x: int, y: int, mode: str) -> Any:
        chosen = [self._pick(x), self._pick(y)]
        seen = self.outcome.results

        def hook(gradients: Any) -> None:
            seen.append(_frozen(tuple(gradients) if mode == "all" else gradients))

        register = torch.autograd.graph.register_multi_grad_hook
        self.handles.append(register(chosen, hook, mode=mode))

    def do_retain_grad(self, x: int) -> Any:
        self._pick(x).retain_grad()

    def do_read_grad(self, x: int) -> Any:
        return freeze(self._pick(x).grad)

    def do_unhook(self, number: int) -> Any:
        if self.handles:
            self.handles[number % len(self.handles)].remove()

    def _watch_module(self, module: Gain) -> None:
        seen = self.outcome.results

        def after(_: Any, grad_inputs: Any, grad_outputs: Any) -> Any:
            seen.append((_frozen(grad_inputs), _frozen(grad_outputs)))
            return tuple(g if g is None else g * 2 for g in grad_inputs)

        module.register_full_backward_hook(after)
        module.act.register_full_backward_pre_hook(lambda _, g: seen.append(_frozen(g)))

    # ---- passes

    def do_backward(self, roots: list[int], options: str) -> Any:
        chosen = [self._root(root) for root in roots]
        inputs = [self._leaf(root + 1) for root in roots] if "i" in options else None
        torch.autograd.backward(
            chosen,
            self._seeds(chosen, options),
            retain_graph="r" in options or None,
            create_graph="c" in options,
            inputs=inputs,
        )
        self.outcome.alive.append([ref() is not None for ref in self.refs])
        return [freeze(leaf.grad) for leaf in self.leaves]

    def do_grad(self, roots: list[int], inputs: list[int], options: str) -> Any:
        chosen = [self._root(root) for root in roots]
        found = torch.autograd.grad(
            chosen,
            [self._root(number) for number in inputs],
            self._seeds(chosen, options),
            retain_graph="r" in options or None,
            create_graph="c" in options,
            allow_unused="u" in options or None,
        )
        if "c" in options:
            return self._keep([grad for grad in found if grad is not None])
        return _frozen(found)

    def _seeds(self, roots: list[Tensor], options: str) -> list[Tensor | None]:
        if "s" in options:
            return [torch.full_like(root, 0.5).cumsum(-1) if root.dim() else None for root in roots]
        return [torch.ones_like(root) if root.dim() else None for root in roots]

    # ---- what is done between passes

    def do_zero(self, x: int, how: str) -> Any:
        leaf = self._leaf(x)
        if how == "None":
            leaf.grad = None
        elif how == "zeros":
            leaf.grad = torch.zeros_like(leaf)
        elif how == "del":
            del leaf.grad
        elif leaf.grad is not None:
            _change_grad(leaf, leaf.grad, how)

    def do_write(self, x: int, how: str) -> Any:
        leaf = self._leaf(x)
        if how == "data =":
            leaf.data = leaf.data - 0.25
        elif how == "data.sub_":
            leaf.data.sub_(0.25)
        elif how == "detach.mul_":
            leaf.detach().mul_(0.5)
        elif how == "numpy":
            leaf.detach().numpy()[...] += 0.5
        else:
            with torch.no_grad():
                leaf -= 0.125
                _ = leaf.view(-1)[0].add_(1) if how == "item" and leaf.numel() else None
        return freeze(leaf)

    def do_optimizer(self, kind: str) -> Any:
        makers: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
            "sgd": lambda leaves: torch.optim.SGD(leaves, lr=0.1, momentum=0.9),
            "adam": lambda leaves: torch.optim.Adam(leaves, lr=0.1),
            "foreach": lambda leaves: torch.optim.SGD(leaves, lr=0.1, foreach=True),
        }
        leaves = [leaf for leaf in self.leaves if leaf.is_leaf]
        self.optimizer = makers[kind](leaves) if leaves else None

    def do_step(self) -> Any:
        if self.optimizer is not None:
            self.optimizer.step()
        return [freeze(leaf) for leaf in self.leaves]

    def do_zero_grad(self, to_none: bool) -> Any:
        if self.optimizer is not None:
            self.optimizer.zero_grad(set_to_none=to_none)

    def do_clip(self, how: str) -> Any:
        clip = torch.nn.utils.clip_grad_norm_ if how == "norm" else torch.nn.utils.clip_grad_value_
        return freeze(clip(self.leaves, 0.5))


def _change_grad(leaf: Tensor, grad: Tensor, how: str) -> None:
    if how == "zero_":
        grad.zero_()
    elif how == "mul_":
        grad.mul_(0.5)
    elif how == "data":
        grad.data.mul_(0.5)
    elif how == "item":
        grad.detach().view(-1)[:1].add_(1)
    elif how == "numpy":
        grad.detach().numpy()[...] += 0.5
    else:
        leaf.grad = grad.clone()


def _frozen(given: Any) -> tuple[Frozen, ...]:
    given = given if isinstance(given, tuple) else (given,)
    return tuple(freeze(tensor) for tensor in given)


def _answer(effect: str, given: Any) -> Any:
    if effect == "nested":
        return None
    if effect == "in place":
        first = given[0] if isinstance(given, tuple) and given else given
        return first.mul_(2) and None if isinstance(first, Tensor) and not first.dim() else None
    return on_each(effect, given) if isinstance(given, tuple) else EFFECTS[effect](given)


def _places(error: BaseException) -> list[tuple[str, int]]:
    frames = traceback.extract_tb(error.__traceback__)
    return [(frame.filename, frame.lineno or 0) for frame in frames]


@contextlib.contextmanager
def _region(mode: str) -> Iterator[None]:
    if mode == "saved_tensors_hooks":
        with torch.autograd.graph.saved_tensors_hooks(lambda x: x.clone(), lambda x: x):
            yield
        return
    make: Any = getattr(torch, mode)
    with make():
        yield


def run_program(program: list[Instruction]) -> Outcome:
    """Run a program as its user would; warnings are collected, each with its place."""
    torch.manual_seed(0)
    interpreter = Interpreter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.set_warn_always(True)
        try:
            interpreter.run(program)
            interpreter.finish()
        finally:
            torch.set_warn_always(False)
    interpreter.outcome.warnings = [
        (one.category.__name__, str(one.message), one.filename, one.lineno) for one in caught
    ]
    return interpreter.outcome


# ---- the generator

_INDEX = st.integers(0, 9)
_INDEXES = st.lists(_INDEX, min_size=1, max_size=3)
_EFFECT = st.sampled_from(["observe", "observe", *EFFECTS, "nested", "raise"])
_HOOKS = ("tensor_hook", "tensor_hook", "prehook", "posthook")


def _made(*parts: Any) -> st.SearchStrategy[Instruction]:
    return st.tuples(*(st.just(part) if isinstance(part, str) else part for part in parts))


def _of(names: Any) -> st.SearchStrategy[str]:
    return st.sampled_from(sorted(names))


_LEAF = _made("leaf", _of(DTYPES), st.integers(0, len(SHAPES) - 1), st.integers(-1, 3))
_OPERATION = st.one_of(
    _made("unary", _of(UNARY), _INDEX),
    _made("binary", _of(BINARY), _INDEX, _INDEX),
    _made("binary", _of(BINARY), _INDEX, _INDEX),
    _made("in_place", _of(IN_PLACE), _INDEX, _INDEX),
    _made("module", _INDEX, st.booleans()),
)
_HOOK = st.one_of(
    _made(st.sampled_from(_HOOKS), _INDEX, _EFFECT),
    _made(st.sampled_from(_HOOKS), _INDEX, _EFFECT),
    _made("accumulate_hook", _INDEX, st.sampled_from(["observe", "clear", "halve", "raise"])),
    _made("multi_hook", _INDEX, _INDEX, st.sampled_from(["all", "any"])),
    _made("retain_grad", _INDEX),
    _made("unhook", _INDEX),
)
_PASS = st.one_of(
    _made("backward", _INDEXES, st.sampled_from(["", "r", "r", "rs", "rc", "ri", "s"])),
    _made("backward", _INDEXES, st.sampled_from(["", "r", "r", "rs", "rc", "ri", "s"])),
    _made("grad", _INDEXES, _INDEXES, st.sampled_from(["r", "ru", "rsu", "rcu", "rc", ""])),
)
_OF_GRADS = ["None", "zeros", "del", "zero_", "mul_", "data", "=", "numpy"]
_OF_LEAVES = ["data =", "data.sub_", "detach.mul_", "-=", "item", "numpy"]
_BETWEEN = st.one_of(
    _made("zero", _INDEX, st.sampled_from(_OF_GRADS)),
    _made("write", _INDEX, st.sampled_from(_OF_LEAVES)),
    _made("optimizer", st.sampled_from(["sgd", "adam", "foreach"])),
    _made("step"),
    _made("zero_grad", st.booleans()),
    _made("clip", st.sampled_from(["norm", "value"])),
    _made("read_grad", _INDEX),
    _made("drop", _INDEX),
    _made("freeze", _INDEX),
    _made("thaw", _INDEX),
)
_MODES = ["no_grad", "no_grad", "enable_grad", "inference_mode", "saved_tensors_hooks"]
_REGION = _made("region", st.sampled_from(_MODES), st.lists(_OPERATION, min_size=1, max_size=3))
_ANY = st.one_of(_LEAF, _OPERATION, _OPERATION, _OPERATION, _HOOK, _PASS, _BETWEEN, _REGION)


@st.composite
def programs(draw: Any) -> list[Instruction]:
    """A program: a few leaves, anything at all, and a backward call at its end."""
    begin = draw(st.lists(_LEAF, min_size=1, max_size=3))
    body = draw(st.lists(_ANY, min_size=4, max_size=24))
    return [*begin, *body, ("backward", [-1], "r"), ("backward", [-2, -1], "rs")]
