"""The numbers that the engine gives its runs come in; how many nobody saw begin goes out."""

from __future__ import annotations

import threading
from typing import Any

import torch


class RunCounter:
    """Counts the runs that were entered through Python, to find those that were not.

    TorchScript's own gradient, distributed autograd and C++ code enter the engine where nothing in
    Python can see it. The engine numbers all of its runs in a row (`_current_graph_task_id`): the
    numbers that no entered run had are those of runs that nobody saw.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entered = self._inside = self._alone = 0
        self._first: int | None = None
        self._entered_by_first = 0

    def enter(self) -> None:
        """A run is about to begin, whether or not it will be recorded."""
        with self._lock:
            self._entered += 1
            self._inside += 1
            self._alone = self._entered if self._inside == 1 else 0

    def leave(self) -> None:
        """A run has ended."""
        with self._lock:
            self._inside -= 1

    def began(self, task: int) -> None:
        """A run that was entered has this number.

        What other runs have is known where none was under way as it was entered, and none has been
        entered since: smaller ones.
        """
        if self._first is None and self._inside == 1 and self._alone == self._entered:
            self._first, self._entered_by_first = task, self._entered

    def forget(self) -> None:
        """Runs may begin that are not entered, and not to be counted as missed: begin anew."""
        self._first = None

    def missed(self, run_backward: Any) -> int:
        """How many runs since the first recorded one, or since `forget`, were never entered.

        `run_backward` is the engine's own. It is run once more, in a thread of its own so that no
        sequence number of the caller's is used up, and only where it has run before: its first run
        in a process starts threads, which is a difference to a process that forks.
        """
        if self._first is None:
            return 0
        seen = self._entered - self._entered_by_first
        return max(_number_of_a_run(run_backward) - self._first - 1 - seen, 0)


def _number_of_a_run(run_backward: Any) -> int:
    found: list[int] = []

    def run() -> None:
        leaf: Any = torch.zeros((), device="cpu", requires_grad=True)
        copy: Any = leaf.clone()
        copy.register_hook(lambda _: found.append(torch._C._current_graph_task_id()))
        run_backward((copy,), (torch.zeros_like(copy),), False, False, (leaf,), True, False)

    # with a name of its own it takes none of those that are counted (`Thread-1`)
    thread = threading.Thread(target=run, name="tracer")
    thread.start()
    thread.join()
    return found[0] if found else 0
