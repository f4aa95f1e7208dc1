"""Draw the models beside this file as `docs/images` shows them: `python docs/pictures/draw.py`."""

from __future__ import annotations

import hashlib
import json
import re
import runpy
import sys
from pathlib import Path

import tracer

HERE = Path(__file__).parent
IMAGES = HERE.parent / "images"
DRAWN = ("gpt2", "lstm", "resnet50")
DIGESTS = "models.json"
"""What each of the pictures shows: for the test that says when they are no longer true."""

_OTHER_EACH_TIME = re.compile(
    r"""\w*(?:URL|tooltip)="[^"]*"|\#[0-9a-f]{6}\b|-?\d[\d.,]*(?:e-?\d+)?(?:[ ]m?s\b)?""",
    re.VERBOSE,
)
"""Places of this machine, shades, numbers of which the last digit is another machine's, times."""


def main() -> None:
    """Trace and draw those that were named, or all that the documentation shows."""
    file = IMAGES / DIGESTS
    digests = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    for name in sys.argv[1:] or DRAWN:
        trace = traced(name)
        picture = trace.draw(IMAGES / f"{name}.png", dpi=88)
        digests[name] = digest_of(trace)
        sys.stdout.write(f"{name}: {len(picture.data) >> 10} KiB\n")
    file.write_text(json.dumps(digests, indent=1) + "\n", "utf-8")


def traced(name: str) -> tracer.Trace:
    """Run a model's script under a trace."""
    with tracer.trace() as trace:
        runpy.run_path(str(HERE / f"{name}.py"), run_name="__main__")
    return trace


def digest_of(trace: tracer.Trace) -> str:
    """Return the digest of a picture's DOT text, but for what is another each time."""
    text = _OTHER_EACH_TIME.sub("0", trace.dot())
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


if __name__ == "__main__":
    main()
