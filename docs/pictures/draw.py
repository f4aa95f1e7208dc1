"""Draw the models beside this file as `docs/images` shows them: `python docs/pictures/draw.py`."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import tracer

HERE = Path(__file__).parent
DRAWN = ("gpt2", "lstm", "resnet50")


def main() -> None:
    """Trace and draw those that were named, or all that the documentation shows."""
    for name in sys.argv[1:] or DRAWN:
        script = HERE / f"{name}.py"
        with tracer.trace() as trace:
            runpy.run_path(str(script), run_name="__main__")
        picture = trace.draw(HERE.parent / "images" / f"{name}.png", dpi=88)
        sys.stdout.write(f"{name}: {len(picture.data) >> 10} KiB\n")


if __name__ == "__main__":
    main()
