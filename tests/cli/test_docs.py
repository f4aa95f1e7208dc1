"""`tracer docs build`: what it hands on, prints and ends with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.cli.conftest import Prompt
from tracer import docgen
from tracer.cli.program import tracer


def stand_in(
    monkeypatch: pytest.MonkeyPatch, *failures: docgen.BuildFailure
) -> list[tuple[Sequence[Path], Path, docgen.Options]]:
    """Replace the building by one that notes what it is asked for, and fails as told."""
    asked = []

    def build(
        sources: Sequence[Path],
        out: Path,
        options: docgen.Options,
        *,
        progress: Callable[[str, int, int], None],
    ) -> docgen.BuildResult:
        asked.append((sources, out, options))
        progress("first.py", 0, 2)
        pages = (out / "a.html", out / "b.html")
        return docgen.BuildResult(out / "index.html", pages, failures, 5, 3 * (not failures))

    monkeypatch.setattr(docgen, "build", build)
    return asked


def test_sources_folder_and_options_are_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = stand_in(monkeypatch)
    words = ["docs", "build", "one.py", "more", "-o", "out", "-j", "3", "--timeout", "5"]
    result = CliRunner().invoke(tracer, [*words, "--again", "--raw-html"])
    options = docgen.Options(3, 5.0, again=True, raw_html=True)
    assert asked == [((Path("one.py"), Path("more")), Path("out"), options)]
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        f"{Path('out/index.html')}: an index of 2 pages (3 of 5 blocks as before)\n"
    )


def test_what_failed_is_a_line_each_and_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, docgen.BuildFailure(Path("one.py"), 7, "ValueError: no"))
    result = CliRunner().invoke(tracer, ["docs", "build", "one.py", "-o", "out"])
    assert result.exit_code == 1
    assert result.stderr == "tracer: one.py:7: ValueError: no\n"
    assert result.stdout == f"{Path('out/index.html')}: an index of 2 pages\n"


@pytest.mark.parametrize(
    ("words", "stale", "status", "out", "err"),
    [
        (["-o", "out"], (), 0, "4 documents ran, as out shows\n", ""),
        ([], (), 0, "4 documents ran\n", ""),
        (["-o", "out"], (7,), 1, "", "tracer: one.md:7: block 2 has changed\n"),
    ],
)
def test_check_says_what_is_stale(
    monkeypatch: pytest.MonkeyPatch, words: list[str], stale: tuple[int, ...], status: int,
    out: str, err: str,
) -> None:  # fmt: skip
    found = tuple(docgen.BuildFailure(Path("one.md"), n, "block 2 has changed") for n in stale)
    monkeypatch.setattr(docgen, "check", lambda *_, **__: docgen.CheckResult(4, (), found))
    result = CliRunner().invoke(tracer, ["docs", "check", "one.md", *words])
    assert (result.exit_code, result.stdout, result.stderr) == (status, out, err)


def test_a_script_becomes_a_page(prompt: Prompt) -> None:
    prompt.write(
        "square.py",
        '''
        """A square and its slope"""

        import torch

        x = torch.tensor(3.0, requires_grad=True)
        (x * x).backward()
        print(x.grad)
        ''',
    )
    result = prompt.tracer("docs", "build", "square.py", "-o", "pages")
    assert (result.status, result.err) == (0, "")
    assert result.out == f"{Path('pages/index.html')}: an index of 1 page\n"
    page = (prompt.folder / "pages" / "square.html").read_text(encoding="utf-8")
    assert "A square and its slope" in page
    assert "tensor(6.)" in page
    assert "<svg" in page


def test_a_source_that_is_not_there_is_status_2(prompt: Prompt) -> None:
    result = prompt.tracer("docs", "build", "absent.py", "-o", "pages")
    assert (result.status, result.out) == (2, "")
    assert result.err == "tracer: no such document: absent.py\n"
