"""Each torch function that user code calls comes in, a frame that tells of it goes on the tape."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from time import monotonic_ns
from types import CodeType
from typing import Any

from tracer.capture.core_in_python.around import After, Before, Between
from tracer.capture.core_in_python.known import TORCH
from tracer.capture.core_in_python.leaves import Book, Leaf, read_mark
from tracer.capture.core_in_python.made import Made, MadeLog
from tracer.capture.core_in_python.places import Places
from tracer.capture.core_in_python.probes import Fault, hand_over
from tracer.capture.core_in_python.tape import TOO_MANY, Tape
from tracer.capture.core_in_python.unseen import as_callers, unseen, without_ours
from tracer.records.events import EVENT_KINDS, DataWrite, Forward, GradWrite
from tracer.records.stream import FORWARD, WRITE

OBSERVE, IGNORE, _WRITE, _SET_GRAD, _GET_GRAD = range(5)
_MOST_OPS = 1 << 16
_WRITTEN_MOST = 1 << 12
_METAS_MOST = 1 << 16
_FORWARD_CODE, _GRAD_WRITE_CODE, _DATA_WRITE_CODE = (
    EVENT_KINDS.index(kind) + 1 for kind in (Forward, GradWrite, DataWrite)
)
_NO_CUT_NO_TENSORS = bytes(8)


class Op:
    """What to do when a function is called: its id, how it writes, callbacks if it needs any."""

    def __init__(
        self,
        id: int,
        action: int = OBSERVE,
        how: int = 0,
        before: Before | None = None,
        after: After | None = None,
    ) -> None:
        self.id = id
        self.action = action
        self.how = how
        self.before = before
        self.after = after


class _Now:
    """What runs in one thread: module and its path, pass; 0 for none."""

    module = path = pass_id = 0


class ModeCore:
    """The `__torch_function__` of a TorchFunctionMode."""

    book: Book | None
    severed: dict[int, Any]
    derived: Callable[[int, tuple[Any, ...], Any], object] | None
    stepping: int
    round: int
    paused: int
    evicted: int
    tape: Tape
    _describe: Callable[[Any], Op]
    _places: Places
    _plain: Callable[..., object]
    fault: Fault
    _ops: dict[Any, Op]
    _written: deque[tuple[int, int, int, int, int]]
    _now: dict[int, _Now]
    _made: dict[int, MadeLog]
    _metas: dict[tuple[Any, ...], tuple[Any, ...]]

    def __new__(
        cls,
        tape: Tape,
        describe: Callable[[Any], Op],
        is_user: Callable[[CodeType], bool],
        site: Callable[[CodeType, int, int], int],
        plain: Callable[..., object],
        fault: Fault,
    ) -> ModeCore:
        self = super().__new__(cls)
        self.tape, self._describe = tape, describe
        self._places = Places(is_user, site)
        self._plain, self.fault = plain, fault
        self._ops, self._now, self._made, self._metas = {}, {}, {}, {}
        self._written = deque(maxlen=_WRITTEN_MOST)
        self.book = None
        self.severed, self.derived = {}, None
        self.stepping = self.paused = self.evicted = 0
        self.round = 1
        return self

    def __init__(self, *_core: Any) -> None:
        """Take what `__new__` took."""

    # ---- the entry

    @unseen
    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        try:
            return self._run(func, tuple(args), kwargs)
        except BaseException as error:
            error.__traceback__ = without_ours(error.__traceback__)
            raise

    @unseen
    def _run(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
        writes_out = bool(kwargs) and kwargs.get("out") is not None  # type: ignore[union-attr]
        key = (function, True) if writes_out else function
        op = None if self.paused else self._find_op(key)
        if op is None or op.action == IGNORE:
            return as_callers(function)(*args, **(kwargs or {}))
        if op.action == _GET_GRAD:
            result = as_callers(function)(*args, **(kwargs or {}))
            self._tell_of_reading(op, args, result)
            return result
        begin, low = monotonic_ns(), TORCH.sequence_nr()
        simple, leaf = self._simple_write(op, args, kwargs)
        if leaf is not None and simple:
            result = self._call_write(op, leaf, function, args, kwargs)
        elif op.before is not None and op.after is not None and not simple:
            result = Between(function, op.before, op.after)(*args, **(kwargs or {}))
        else:
            result = as_callers(function)(*args, **(kwargs or {}))
        if not self.paused:
            if simple and op.action == _WRITE:
                with self._guarded():
                    self.note_written(args[0], op.how)
            writes = op.action == _WRITE and simple
            is_plain = leaf is None if writes else op.action == OBSERVE and op.before is None
            gives = args[0] if writes else result
            self._enter(op, args, kwargs, gives, low, begin, is_plain=is_plain)
        return result

    def _find_op(self, function: Any) -> Op | None:
        """What to do with a function; None after a failure of our own."""
        try:
            op = self._ops.get(function)
            has_hash = True
        except Exception:
            op, has_hash = None, False
        if op is not None:
            return op
        try:
            op = self._describe(function)
        except Exception as error:
            hand_over(self.fault, error)
            return None
        if has_hash and len(self._ops) < _MOST_OPS:
            self._ops[function] = op
        return op

    def _enter(
        self,
        op: Op,
        args: tuple[Any, ...],
        kwargs: Any,
        result: Any,
        low: int,
        begin: int,
        *,
        is_plain: bool,
    ) -> None:
        """Record a call that returned: what made nodes, and what did not."""
        try:
            high = TORCH.sequence_nr()
            if high > low:
                self._log(op.id, low, high, self.tape.next_seq(), begin)
            elif is_plain:
                with TORCH.disable_torch_function():
                    self._enter_plain(op, args, kwargs, result, begin)
        except Exception as error:
            hand_over(self.fault, error)
        self.tape.spill()

    # ---- what made no node

    def _enter_plain(
        self, op: Op, args: tuple[Any, ...], kwargs: Any, result: Any, begin: int
    ) -> None:
        """Tell of an operation outside the graph: in short, or by `plain` if it may have cut."""
        if not TORCH.is_grad_enabled():
            if self.stepping:
                self._tell_derived(op, args, result)
                return
        elif not _requires_grad((*args, *(kwargs or {}).values(), *_alone(result))):
            if _has_tensor(result):
                self._log(op.id, 0, 0, self.tape.next_seq(), begin)
            self._tell_derived(op, args, result)
            return
        site = self.here()
        seq = self.tape.next_seq()
        self._plain(op.id, args, kwargs or None, result, site, seq, begin - self.tape.origin)

    def _tell_derived(self, op: Op, args: tuple[Any, ...], result: Any) -> None:
        """Tell when a tensor that had lost its history goes into an operation."""
        if self.severed and self.derived and any(id(one) in self.severed for one in _tensors(args)):
            self.derived(op.id, args, result)

    # ---- reads and writes of leaves

    def _tell_of_reading(self, op: Op, args: tuple[Any, ...], result: Any) -> None:
        """Tell that None was read as the `.grad` of what is no leaf."""
        if result is not None or not args or self.book is None:
            return
        if self.book.find(args[0]) is None and op.before is not None and op.after is not None:
            try:
                op.after(op.before(args, None), result, None)
            except Exception:  # the callbacks guard themselves
                return

    def _simple_write(self, op: Op, args: tuple[Any, ...], kwargs: Any) -> tuple[bool, Leaf | None]:
        """Whether we can record what a writing function does, and the leaf of ours it writes."""
        if op.action not in (_WRITE, _SET_GRAD) or self.book is None or not args:
            return False, None
        target = args[0]
        if (kwargs and "out" in kwargs) or type(target) not in (TORCH.tensor, TORCH.parameter):
            return False, None
        leaf = self.book.find(target)
        gives = len(args) == 2 and args[1] is not None
        if leaf is None:  # given a `.grad`, one that no pass has met yet may be a leaf from now on
            set_grad = op.action == _SET_GRAD
            return (not gives if set_grad else not self._may_concern(target)), None
        if op.action == _SET_GRAD:
            with TORCH.disable_torch_function():
                is_set = len(args) == 2 and target.is_leaf
            return is_set and not self._current().pass_id, leaf
        # one that changed while nobody looked is for the callbacks, which tell of that first
        return read_mark(target) == leaf.mark, leaf

    def _may_concern(self, tensor: Any) -> bool:
        try:
            return self.book is not None and self.book.may_concern(tensor)
        except Exception:  # then Python's callbacks find out
            return True

    @unseen
    def _call_write(
        self, op: Op, leaf: Leaf, function: Any, args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        """Call a function that writes to this leaf, and record what was there before and after."""
        with self._guarded() as failures:
            before = self._read_before(op, leaf, args[0])
        result = as_callers(function)(*args, **(kwargs or {}))
        if not failures and not self.paused:
            with self._guarded():
                self._enter_write(op, leaf, args[0], before)
        return result

    @contextmanager
    def _guarded(self) -> Iterator[list[Exception]]:
        """Keep the user's modes from seeing us, and hand over a failure; it is in the list then."""
        failures: list[Exception] = []
        try:
            with TORCH.disable_torch_function():
                yield failures
        except Exception as error:
            failures.append(error)
            hand_over(self.fault, error)

    def _read_before(self, op: Op, leaf: Leaf, tensor: Any) -> bytes:
        if op.action == _WRITE:
            return leaf.data
        before = self.tape.entry(tensor.grad, leaf.meta)
        if self.book is not None:
            self.book.compare_grad(leaf, before)
        return before

    def _enter_write(self, op: Op, leaf: Leaf, tensor: Any, before: bytes) -> None:
        if op.action == _WRITE:
            leaf.data = self.tape.entry(tensor, leaf.meta)
            leaf.mark = read_mark(tensor)
            self._put_write(op, leaf, _DATA_WRITE_CODE, before, leaf.data)
        else:
            grad = tensor.grad
            leaf.grad = self.tape.entry(grad, leaf.meta)
            if grad is not None and self.book is not None:
                self.book.grads[grad._cdata] = leaf
            self._put_write(op, leaf, _GRAD_WRITE_CODE, before, leaf.grad)

    def _put_write(self, op: Op, leaf: Leaf, kind: int, before: bytes, after: bytes) -> None:
        site = self.here()
        fixed = WRITE.pack(leaf.id, self._writer_of(op.how), site)
        self.tape.write(kind, self._current().pass_id, fixed, before, after)

    def _writer_of(self, how: int) -> int:
        """Who writes: the optimizer while it steps, else the operation."""
        return self.stepping if self.stepping and not TORCH.is_grad_enabled() else how

    def note_written(self, tensor: Any, how: int) -> None:
        """Note that a tensor was written to, for when a node finds what it kept changed."""
        site = self.here()
        version, pointer = read_mark(tensor)
        self._written.append((self.tape.next_seq(), pointer, version, self._writer_of(how), site))

    def writes(self, since: int = 0) -> list[tuple[int, int, int, int, int]]:
        """(seq, address, version, how, site) of the newest writes after `since`, in order."""
        return list(takewhile(lambda write: write[0] > since, reversed(self._written)))[::-1]

    # ---- operations and the nodes they made

    def log_forward(self, op: int, low: int, high: int, seq: int, t_ns: int) -> None:
        """Record an operation that was seen another way."""
        self._log(op, low, high, seq, t_ns + self.tape.origin)

    def _log(self, op: int, low: int, high: int, seq: int, begin: int) -> None:
        tape, now = self.tape, self._current()
        site, calls = self._places.find(sys._getframe(1), self.round if high > low else 0)
        if high > low:
            self._log_made(low, high, (site, op, now.module, calls, seq))
        fixed = FORWARD.pack(op, site, now.path, low, high, 0)
        tape.put_frame(
            _FORWARD_CODE, now.pass_id, seq, begin - tape.origin, fixed + _NO_CUT_NO_TENSORS
        )

    def _log_made(self, low: int, high: int, made: Made) -> None:
        thread = self.tape.thread()
        if thread == TOO_MANY:  # whose counts would get mixed up
            self.evicted += 1
            return
        self.evicted += self._made.setdefault(thread, MadeLog()).add(low, high, made)

    def log_made(self, low: int, high: int, site: int, op: int, module: int, call: int) -> None:
        """Say what made nodes that no operation did."""
        self._log_made(low, high, (site, op, module, call, 0))

    def made_by(self, sequence_nr: int) -> Made | None:
        """(site, op, module, call, seq) of the operation that made a node, or None.

        Sequence numbers are counted by thread, and a node does not tell its thread: the calling
        thread is asked first.
        """
        own = self.tape.thread()
        threads = [own, *(thread for thread in sorted(self._made) if thread != own)]
        for thread in threads:
            log = self._made.get(thread)
            made = log.find(sequence_nr) if log is not None else None
            if made is not None:
                return made
        return None

    def shared_metas(self, metas: tuple[Any, ...]) -> tuple[Any, ...]:
        """The same metadata as other nodes have, if any have it."""
        if len(self._metas) >= _METAS_MOST:
            self._metas.clear()
        return self._metas.setdefault(metas, metas)

    # ---- what runs in each thread

    def _current(self) -> _Now:
        thread = self.tape.thread()
        now = self._now.get(thread)
        if now is None:
            now = self._now[thread] = _Now()
        return now

    def begin_thread(self) -> None:
        """Start anew for the calling thread, which has just been started.

        The system gives it the identity of one that ended, and torch counts its nodes from 0: what
        the old one made keeps its own place.
        """
        tape = self.tape
        tape.forget_thread()
        thread = tape.thread()
        self._made.pop(thread, None)
        self._now.pop(thread, None)

    def set_module(self, module: int, path: int) -> None:
        """Say which module runs in this thread: its id, and its path as a string id."""
        now = self._current()
        now.module, now.path = module, path

    def set_pass(self, pass_id: int) -> None:
        """Say which pass runs in this thread, 0 for none."""
        self._current().pass_id = pass_id

    # ---- sites

    @property
    def ran(self) -> Callable[[int, int], object] | None:
        """Told that a site ran more often in a round than ever before: `ran(site, call)`."""
        return self._places.ran

    @ran.setter
    def ran(self, told: Callable[[int, int], object] | None) -> None:
        self._places.ran = told

    def here(self) -> int:
        """The id of the site of the nearest user frame, 0 for none."""
        return self._places.find(sys._getframe(1))[0]


def _is_tensor(value: Any) -> bool:
    try:
        return isinstance(value, TORCH.tensor)
    except Exception:  # an object may refuse to tell its class
        return False


def _is_sequence(value: Any) -> bool:
    return issubclass(
        type(value), (tuple, list)
    )  # asked of its type, as an object may say anything


def _tensors(values: Iterable[Any]) -> Iterator[Any]:
    """The tensors among the values, and in the lists and tuples among them."""
    for value in values:
        if _is_sequence(value):
            yield from (item for item in value if _is_tensor(item))
        elif _is_tensor(value):
            yield value


def _requires_grad(values: Iterable[Any]) -> bool:
    return any(tensor.requires_grad for tensor in _tensors(values))


def _alone(result: Any) -> tuple[Any, ...]:
    """What an operation gave, if it is one thing."""
    return () if _is_sequence(result) else (result,)


def _has_tensor(result: Any) -> bool:
    if _is_sequence(result):
        return any(map(_is_tensor, result))
    return _is_tensor(result)
