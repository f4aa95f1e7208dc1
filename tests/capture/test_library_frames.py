"""Whose line is shown for what ran in a library: the user's own, or on demand the library's."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import tracer


@pytest.mark.parametrize(
    ("library_frames", "shown"),
    [(False, ("test_library_frames.py", "y = square(w)")), (True, ("library_of_mine.py", "x * x"))],
)
def test_a_librarys_line_is_shown_on_demand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, library_frames: bool, shown: tuple[str, str]
) -> None:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "library_of_mine.py").write_text("def square(x):\n    return x * x\n")
    monkeypatch.syspath_prepend(folder)
    from library_of_mine import square  # type: ignore[import-not-found]

    w = torch.ones(2, requires_grad=True)
    with tracer.trace(library_frames=library_frames) as trace:
        y = square(w)
        y.sum().backward()
    del sys.modules["library_of_mine"]
    (site,) = [node.site for node in trace.graph.nodes if node.name == "MulBackward0"]
    assert site is not None
    assert (Path(site.file).name, site.text) == shown
