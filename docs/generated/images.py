"""Pages that have been built in; the README's pictures, taken from them, out.

python docs/generated/images.py build/docs docs/images
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tracer.docgen.kept import read_kept
from tracer.docgen.page import CodeStep, drawings_of, picture_path, plot_path

SHOWN = {
    "vector_jacobian": "01_vector_jacobian/block-4-pass-1.svg",
    "hooks": "02_hooks/block-4-pass-2.svg",
    "no_grad": "03_no_grad/block-4-pass-9.svg",
    "sgd": "04_sgd_by_hand/block-3-plot-1.svg",
}
"""The pictures by name, and where they stand in the pages."""

DIGESTS = "digests.json"
"""What each of the pictures shows: for the test that says when they are no longer true."""


def digests_in(pages: Path) -> dict[str, str]:
    """Return what each of the pictures shows now."""
    return {name: digest_of(pages, path) for name, path in SHOWN.items()}


def digest_of(pages: Path, path: str) -> str:
    """Return the digest of what one picture of a page shows."""
    stem = path.partition("/")[0]
    kept = read_kept(pages, stem)
    found = {one: digest for step in kept.code for one, digest in shown(stem, step)} if kept else {}
    if path not in found:
        raise SystemExit(f"{pages} has no picture {path}: run make docs")
    return found[path]


def shown(stem: str, step: CodeStep) -> list[tuple[str, str]]:
    """Return path and digest of each picture below a block."""
    drawings = [(picture_path(stem, step, one), one.digest) for one in drawings_of(step)]
    plots = [(plot_path(stem, step, one), one.digest) for one in step.scraped.plots]
    return drawings + plots


def copy_pictures(pages: Path, out: Path) -> None:
    """Copy those pictures that show something else than the ones that are there."""
    file = out / DIGESTS
    before = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    now = digests_in(pages)
    for name, digest in now.items():
        if before.get(name) != digest or not (out / f"{name}.svg").is_file():
            (out / f"{name}.svg").write_bytes((pages / SHOWN[name]).read_bytes())
    file.write_text(json.dumps(now, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    copy_pictures(Path(sys.argv[1]), Path(sys.argv[2]))
