"""The project's own documentation is built by it, and nothing in it is out of date."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import click
import pytest

import tracer
from tests.docgen.browser import Browser
from tests.docgen.test_browser import WIDTHS, assert_sound
from tests.report.html_pages import read_page
from tracer.cli.program import COMMANDS
from tracer.cli.program import tracer as command_line
from tracer.docgen import BuildResult, build
from tracer.docgen.marks import FLAGS, SHOWN, VALUES
from tracer.records.events import EVENT_KINDS
from tracer.store.schema import DDL, FRAMES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GENERATED = DOCS / "generated"
WRITTEN = sorted(DOCS.glob("*.md"))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages that are made of the code."""
    folder = tmp_path_factory.mktemp("documentation") / "reference"
    subprocess.run([sys.executable, str(GENERATED / "pages.py"), str(folder)], check=True, cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def pages(reference: Path) -> BuildResult:
    """The documentation, built, but for the examples, which other tests build."""
    return build([DOCS, reference], reference.parent / "out")


def test_no_block_in_it_fails(pages):
    assert pages.failures == ()


def test_its_links_lead_somewhere(pages):
    folder = pages.index.parent
    built_elsewhere = (*(ROOT / "examples").glob("*.py"), *(DOCS / "pictures").glob("*.py"))
    examples = {path.name for path in built_elsewhere}
    for path in (pages.index, *pages.pages):
        page = read_page(path.read_text("utf-8"))
        for link in page.links:
            name, _, anchor = unquote(link).partition("#")
            if link.startswith("https://") or name in examples:
                continue
            assert (folder / name).is_file() or not name, f"{path.name}: {link}"
            if anchor and name in ("", path.name):
                assert anchor in page.ids, f"{path.name}: {link}"


def test_its_pages_are_sound_in_a_browser(browser: Browser, pages):
    for path in (pages.index, *pages.pages):
        for width in WIDTHS:
            seen = browser.open(path, width=width)
            assert_sound(seen, path)
            assert seen.overflow <= 0, f"{path.name} is wider than {width}"


def test_every_kind_of_event_is_there_with_an_example(reference):
    text = (reference / "recorded.md").read_text("utf-8")
    for kind in EVENT_KINDS:
        section = text.partition(f"## `{kind.kind}`\n")[2].partition("\n## ")[0]
        (example,) = re.findall(r"```json\n(.*?)\n```", section, re.DOTALL)
        assert json.loads(example)["event"] == kind.kind


def test_the_schema_is_there_to_the_letter(reference):
    text = (reference / "file_format.md").read_text("utf-8")
    assert DDL.strip() in text
    assert FRAMES.strip() in text


def test_every_command_and_every_public_name_is_there(reference):
    commands = (reference / "command_line.md").read_text("utf-8")
    assert [name for name in COMMANDS if f"## `tracer {name}`\n" not in commands] == []
    names = (reference / "python_api.md").read_text("utf-8")
    assert [name for name in tracer.__all__ if f"## `tracer.{name}`\n" not in names] == []


def test_every_mark_is_explained():
    text = (DOCS / "documents.md").read_text("utf-8")
    assert [mark for mark in (*FLAGS, *SHOWN) if f"`{mark}`" not in text] == []
    assert [mark for mark in VALUES if f"`{mark}=" not in text] == []


MACHINE = {
    **dict.fromkeys(("date", "processor", "cores", "system", "python", "torch"), "x"),
    "tracer": "0.1.0", "load": 0.0,
}  # fmt: skip


def tables(part: str, *rows: dict[str, object], complete: bool = True) -> str:
    """Return the tables that are made of the figures of one benchmark."""
    comparison = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))["comparison"]
    told = {part: {"machine": MACHINE, "complete": complete, "rows": rows}}
    return "\n".join(comparison(told))


def test_figures_are_set_side_by_side():
    spread = {"ratio": 1.25, "lower_quartile": 1.2, "upper_quartile": 1.301}
    text = tables(
        "overhead",
        {"workload": "MLP", "watcher": "untraced", **spread},
        {"workload": "MLP", "watcher": "tracer", **spread},
        {"workload": "MLP", "watcher": "torchlens", "ratio": None, "failure": "not installed"},
        {"workload": "wide", "watcher": "torchlens", **spread, "ratio": 1079.2},
        complete=False,
    )
    assert "| workload | tracer | torchlens |\n|---|---:|---:|" in text
    assert "| MLP | 1.25 (1.20–1.30) | not installed |\n| wide | – | 1,079 |" in text
    assert "Measured on x: x, x cores" in text
    assert text.endswith("It was stopped before it had measured all.")


def test_a_graph_too_deep_for_a_way_has_a_star():
    text = tables(
        "extraction",
        {"workload": "MLP", "way": "walk", "nodes": 5002, "ms": 1.5, "recursion": False},
        {"workload": "MLP", "way": "torchviz", "nodes": 5002, "ms": 2345.6, "recursion": True},
    )
    assert "| MLP | 5,002 | 1.5 | 2,345.6* |" in text


def test_the_page_of_comparisons_has_a_table_for_each_benchmark_that_was_run(reference):
    figures = json.loads((ROOT / "benchmarks" / "figures.json").read_text("utf-8"))
    page = (reference / "comparison.md").read_text("utf-8")
    assert "overhead" in figures
    assert [part for part in figures if f"with `benchmarks/{part}.py`" not in page] == []


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_each_command_that_is_shown_is_understood(path):
    shown = re.findall(r"^\$ (tracer .*)", path.read_text("utf-8"), re.MULTILINE)
    for words in (shlex.split(line, comments=True)[1:] for line in shown):
        command: click.Command | None = command_line
        while isinstance(command, click.Group):
            command, words = command.get_command(click.Context(command), words[0]), words[1:]
        assert command is not None
        command.make_context("tracer", words)


def test_the_pictures_in_the_readme_are_those_of_the_examples(built):
    sys.path.insert(0, str(GENERATED))
    try:
        import images
    finally:
        sys.path.remove(str(GENERATED))
    shown = json.loads((DOCS / "images" / images.DIGESTS).read_text("utf-8"))
    stale = [
        name
        for name, now in images.digests_in(built.index.parent).items()
        if now != shown.get(name)
    ]
    assert stale == [], "what docs/images show is no longer true: run make docs, and look at them"
    readme = (ROOT / "README.md").read_text("utf-8")
    assert set(re.findall(r"docs/images/(\w+)\.svg", readme)) == set(images.SHOWN)
