"""What runs in this process, and where, as the trace's first record."""

from __future__ import annotations

import os
import platform
import socket
import sys
import time
from collections.abc import Sequence
from importlib import metadata

from tracer.records.trace import Run


def describe_run(script: str = "", argv: Sequence[str] = ()) -> Run:
    """Describe this process: script, arguments, versions, host, and its rank among others."""
    return Run(
        script=script or (sys.argv[0] if sys.argv else ""),
        argv=tuple(argv) or tuple(sys.argv[1:]),
        started=time.time(),
        host=socket.gethostname(),
        pid=os.getpid(),
        rank=int(os.environ.get("RANK", "0")),
        world_size=int(os.environ.get("WORLD_SIZE", "1")),
        versions=(
            ("python", platform.python_version()),
            ("torch", metadata.version("torch")),
            ("tracer", metadata.version("autograd-tracer")),
        ),
    )
