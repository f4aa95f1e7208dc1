"""Room for the recursion in which PyTorch frees a deep graph whose nodes were seen from Python.

A node that Python has seen is freed through its Python object, and that from within the destructor
of the node before it (torch 2.13): about 130 bytes of stack each, so that 8 MiB do for some 60,000
in a row. Linux lets a process raise the limit of its main thread's stack at any time.
"""

from __future__ import annotations

import sys

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_DEEP = 20_000
_BYTES_A_NODE = 512
_MOST = 1 << 30


def make_room(nodes: int) -> None:
    """Let the main thread's stack grow as far as freeing so many nodes in a row may need."""
    if nodes < _DEEP or sys.platform != "linux" or resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    wanted = min((8 << 20) + nodes * _BYTES_A_NODE, _MOST)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_STACK, (wanted, hard))
