"""What the tests of documents share: the examples built once, and a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docgen.browser import Browser
from tracer.docgen import BuildResult, build

EXAMPLES = Path(__file__).parents[2] / "examples"
Told = list[tuple[str, int, int]]


@pytest.fixture(scope="session")
def told() -> Told:
    """What was said of progress while the examples were built."""
    return []


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, told: Told) -> BuildResult:
    """The four examples, built."""
    out = tmp_path_factory.mktemp("site") / "docs"
    return build([EXAMPLES], out, progress=lambda *said: told.append(said))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium; without one the test is skipped."""
    made = Browser()
    yield made
    made.close()
