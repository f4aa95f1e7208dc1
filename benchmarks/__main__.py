"""All benchmarks, one after the other; their figures in one file, and as tables in the end.

    python benchmarks --json benchmarks/figures.json     # what `make bench` does: most of an hour
    python benchmarks --quick                            # only to see that all of them run
    python benchmarks --only overhead writing

What is stopped by Ctrl-C keeps what it has measured by then.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import read_figures
from tables import comparison

HERE = Path(__file__).parent
INTERRUPTED = 130
PARTS = {
    "overhead": ["--seconds", "60", "--rounds", "9"],
    "extraction": [],
    "writing": [],
    "kernels": [],
    "reading": [],
    "draw": ["--nodes", "1000", "10000", "100000", "--limit", "20"],
}
QUICK = {
    "overhead": ["--workloads", "tiny SGD", "--rounds", "2", "--seconds", "1", "--limit", "10"],
    "extraction": ["--workloads", "tiny SGD", "--seconds", "1"],
    "writing": ["--workloads", "wide", "--nodes", "20000"],
    "kernels": ["--megabytes", "16"],
    "reading": ["--events", "100000", "--shape", "few"],
    "draw": ["--nodes", "100", "--shapes", "chain", "--limit", "20"],
}


def main() -> int:
    """Run what is asked for; the status is that of the worst."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds")
    parser.add_argument("--json", help="the file that the figures go to; others in it stay")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(asked.json or Path(folder, "figures.json"))
        options = QUICK if asked.quick else PARTS
        status = 0
        for part in asked.only:
            status = max(status, run(part, [*options[part], "--json", str(file)]))
            if status == INTERRUPTED:
                break
        sys.stdout.write("\n\n" + "\n\n".join(comparison(read_figures(file))) + "\n")
    return status


def run(part: str, options: list[str]) -> int:
    """Run one benchmark in a process of its own; the next one runs even if this one fails."""
    sys.stdout.write(f"\n---- {part}, {time.strftime('%H:%M:%S')}\n")
    sys.stdout.flush()
    process = subprocess.Popen([sys.executable, str(HERE / f"{part}.py"), *options])
    try:
        status = process.wait()
    except KeyboardInterrupt:
        process.wait()  # which the terminal has interrupted too
        return INTERRUPTED
    if status:
        sys.stdout.write(f"{part} ended with status {status}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
