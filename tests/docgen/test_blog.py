"""A blog post in Chinese, as found on the web: four good blocks, a broken string, missing names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docgen.browser import Browser
from tests.report.html_pages import read_page
from tracer.docgen import BuildResult, build

POST = Path(__file__).parent / "documents" / "线性回归.md"


@pytest.fixture(scope="module")
def post(tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    return build([POST], tmp_path_factory.mktemp("blog"))


def test_its_page_in_markdown(post, golden):
    golden("线性回归.page.md", (post.index.parent / "线性回归.md").read_text("utf-8"))


def test_what_failed_is_said_at_its_line_and_nothing_else(post):
    assert [(one.line, one.message) for one in post.failures] == [
        (40, "SyntaxError: unterminated string literal (detected at line 40)"),
        (59, "NameError: name 'train_iter' is not defined"),
    ]


def test_the_good_blocks_ran_and_have_their_picture(post):
    page = read_page(post.pages[0].read_text("utf-8"))
    text = "".join(page.text)
    assert "w 的梯度： [-22.8666" in text
    assert page.counts["svg"] == 1
    assert "损失 = ((模型(特征) - 标签) ** 2).mean()" in text
    assert '<script>alert("博客")</script>' in text


def test_it_is_sound_in_a_browser(browser: Browser, post):
    for path in (post.index, *post.pages):
        seen = browser.open(path)
        assert (seen.errors, seen.missing, len(seen.requests)) == ([], [], 1)
