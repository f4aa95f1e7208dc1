"""`check` runs documents again and says what in their pages is no longer true."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tracer.docgen import CheckResult, build, check
from tracer.docgen.blocks import Document
from tracer.docgen.making import Made, Options, make_all
from tracer.docgen.sources import read_document

BLOCKS = """# A square

```python
import torch

x = torch.tensor(float(open("value.txt").read()), requires_grad=True)
```

```python tracer name=square
(x * x).backward()
print(x.grad)
```

The end.
"""
QUICK = (
    "# Quick\n\nTwo blocks.\n\n```python\nprint(1)\n```\n\n```python\nprint(2)\n```\n\nThe end.\n"
)
DOCUMENTS = {"a_square.md": BLOCKS, "b_blocks.md": QUICK, "c_prose.md": QUICK}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three documents and their pages."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "value.txt").write_text("3")
    for name, text in DOCUMENTS.items():
        (folder / name).write_text(text, "utf-8")
    assert build(sources(folder), folder / "out", Options(jobs=2)).failures == ()
    return folder


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """A copy of them to change."""
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    return tmp_path


def sources(folder: Path) -> list[Path]:
    return [folder / name for name in DOCUMENTS]


def said(result: CheckResult, folder: Path) -> list[str]:
    assert result.failures == ()
    return [str(one).replace(f"{folder}/", "") for one in result.stale]


@pytest.fixture(scope="module")
def ran(built: Path) -> list[Made]:
    """The documents, run again once."""
    return make_all([read_document(path) for path in sources(built)], None, Options(jobs=2))


@pytest.fixture
def not_run_again(ran: list[Made], monkeypatch: pytest.MonkeyPatch) -> None:
    def make_again(documents: Sequence[Document], *_: object) -> list[Made]:
        made = {one.document.path.name: one for one in ran}
        names = [document.path.name for document in documents]
        return [
            replace(made[name], document=document)
            for name, document in zip(names, documents, strict=True)
        ]

    monkeypatch.setattr("tracer.docgen.staleness.make_all", make_again)


@pytest.mark.usefixtures("not_run_again")
def test_pages_that_were_just_built_are_not_stale(folder):
    result = check(sources(folder), folder / "out")
    assert (result.documents, said(result, folder)) == (3, [])


@pytest.mark.usefixtures("not_run_again")
def test_a_picture_a_page_or_an_output_changed_by_hand_is_stale(folder):
    page, picture = folder / "out/b_blocks.md", folder / "out/a_square/square.svg"
    page.write_text(page.read_text("utf-8").replace("```text\n1", "```text\n7"), "utf-8")
    picture.write_text(picture.read_text("utf-8").replace("x", "X"), "utf-8")
    (folder / "out/c_prose.html").unlink()
    assert said(check(sources(folder), folder / "out"), folder) == [
        "a_square.md: out/a_square/square.svg was changed by hand",
        "b_blocks.md: out/b_blocks.md was changed by hand",
        "c_prose.md: out/c_prose.html is missing",
    ]


def test_a_block_an_output_or_prose_that_has_changed_is_stale(folder):
    (folder / "value.txt").write_text("4")
    changed = QUICK.replace("print(2)", "print(3)") + "\n```python\nprint(4)\n```\n"
    (folder / "b_blocks.md").write_text(changed, "utf-8")
    (folder / "c_prose.md").write_text(QUICK.replace("The end", "To be continued"), "utf-8")
    result = check(sources(folder), folder / "out", Options(jobs=2))
    found = said(result, folder)
    timeline = found.pop(2)
    assert timeline.startswith("a_square.md:10: block 2: its timeline has changed: `1  MulBack")
    assert timeline.endswith("→ x 4   → x 4`")
    assert found == [
        "a_square.md:10: block 2: its output has changed: `tensor(6.)` is now `tensor(8.)`",
        "a_square.md:10: block 2: its picture a_square/square.svg has changed",
        "b_blocks.md:10: block 2 has changed",
        "b_blocks.md:16: block 3 is new since the page was built",
        "c_prose.md: out/c_prose.md: its prose has changed since it was built",
    ]


@pytest.mark.usefixtures("not_run_again")
def test_pages_that_were_never_built_are_said(folder):
    shutil.rmtree(folder / "out/b_blocks")
    found = said(check(sources(folder)[1:2], folder / "out"), folder)
    assert "b_blocks.md: out/b_blocks/blocks.json is missing: build it first" in found


@pytest.mark.usefixtures("not_run_again")
def test_without_pages_only_what_fails_is_said(folder):
    assert check(sources(folder), None) == CheckResult(3, (), ())
