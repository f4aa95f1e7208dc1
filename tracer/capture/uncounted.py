"""The numbers that the engine gives its runs come in; how many nobody saw begin goes out."""

from __future__ import annotations

import threading
from typing import Any

import torch

from tracer.capture.core import RunCount


class RunCounter:
    """Counts the runs that were entered through Python, to find those that were not.

    TorchScript's own gradient, distributed autograd and C++ code enter the engine where nothing in
    Python can see it. The engine numbers all of its runs in a row (`_current_graph_task_id`): the
    numbers that no entered run had are those of runs that nobody saw.
    """

    def __init__(self) -> None:
        self.count: Any = RunCount()

    def missed(self, run_backward: Any) -> int:
        """How many runs since the first recorded one were never entered, as far as `count` knows.

        `run_backward` is the engine's own. It is run once more, in a thread of its own so that no
        sequence number of the caller's is used up, and only where it has run before: its first run
        in a process starts threads, which is a difference to a process that forks.
        """
        known: tuple[int, int] | None = self.count.since_first()
        if known is None:
            return 0
        first, seen = known
        return max(_number_of_a_run(run_backward) - first - 1 - seen, 0)


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
