"""The machine that a benchmark ran on, to be told beside its figures."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """Where and when something was measured."""

    date: str
    processor: str
    cores: int
    system: str
    python: str
    torch: str
    tracer: str
    load: float


def describe_machine() -> Machine:
    """Describe the machine that runs this."""
    return Machine(
        date.today().isoformat(),
        _processor(),
        os.cpu_count() or 0,
        f"{platform.system()} {platform.machine()}",
        platform.python_version(),
        version("torch"),
        version("autograd-tracer"),
        _load(),
    )


def _load() -> float:
    """How many processes were at work, on average, in the last minute."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else 0.0


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())
