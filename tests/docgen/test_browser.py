"""Pages open in a browser: no error, no missing picture, no request that leaves the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docgen.browser import Browser, Seen
from tests.docgen.test_page import PLACE, evil_page, page
from tracer.docgen import BuildResult
from tracer.docgen.writing import to_html
from tracer.report.page import html_report

WIDTHS = (420, 800, 1300)
LIGHT, DARK = "rgb(255, 255, 255)", "rgb(13, 17, 23)"


def assert_sound(seen: Seen, path: Path) -> None:
    assert seen.errors == []
    assert seen.requests == [path.resolve().as_uri()]
    assert seen.missing == []


def test_the_browser_sees_what_is_wrong(browser: Browser, tmp_path: Path) -> None:
    """The checks below could not fail otherwise."""
    path = tmp_path / "wrong.html"
    path.write_text(
        "<img src='gone.png'><img src='http://example.com/a.png'>"
        "<script>console.error('no')</script><div style='width: 3000px'>wide</div>"
    )
    seen = browser.open(path)
    assert len(seen.errors) == 3
    assert len(seen.missing) == 2
    assert "http://example.com/a.png" in seen.requests
    assert seen.overflow > 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_page_of_the_examples_is_sound(
    browser: Browser, built: BuildResult, dark: bool
) -> None:
    for path in (built.index, *built.pages):
        for width in WIDTHS:
            seen = browser.open(path, width=width, dark=dark)
            assert_sound(seen, path)
            assert seen.overflow <= 0, f"{path.name} is wider than {width}"
            assert seen.paper == (DARK if dark else LIGHT)


def test_a_page_with_one_of_everything_is_sound(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(to_html(page(), PLACE), "utf-8")
    for width in WIDTHS:
        seen = browser.open(path, width=width)
        assert_sound(seen, path)
        assert seen.overflow <= 0


def test_nothing_in_a_document_acts_in_a_browser(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "evil.html"
    path.write_text(to_html(evil_page(), PLACE), "utf-8")
    assert_sound(browser.open(path), path)


def test_the_report_of_a_trace_is_sound(browser: Browser, tmp_path: Path) -> None:
    from tests import builders

    path = tmp_path / "report.html"
    path.write_text(html_report(builders.sgd(5)), "utf-8")
    assert_sound(browser.open(path), path)
