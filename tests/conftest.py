"""What all tests share: golden text files beside the tests, and the flag that rewrites them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-goldens", action="store_true", help="write what tests get as what they expect"
    )
    parser.addoption(
        "--programs", type=int, default=500, help="how many random programs to try (500)"
    )
    parser.addoption(
        "--every-bound", action="store_true", help="record a million nodes, not a twentieth of them"
    )
    parser.addoption(
        "--every-operation", action="store_true", help="try each operation of PyTorch, not a fifth"
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare text with the file of that name in `golden/` beside the test."""
    folder = Path(request.path).parent / "golden"
    rewrite = request.config.getoption("--rewrite-goldens")

    def compare(name: str, text: str) -> None:
        file = folder / name
        if rewrite:
            folder.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8", newline="\n")
        assert file.exists(), f"no golden {file}: run pytest --rewrite-goldens and read it"
        assert text == file.read_text(encoding="utf-8")

    return compare
