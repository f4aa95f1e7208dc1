"""Each door is gone through: Sphinx with MyST and sphinx-gallery, MkDocs, a notebook run."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docgen.browser import Seen

ROOT = Path(__file__).parents[2]
DOORS = Path(__file__).parent / "doors"


def call(command: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a Python module in a folder as its user would."""
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, text=True, capture_output=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore", **variables}, check=False,
    )  # fmt: skip


# ---- Sphinx


@pytest.fixture(scope="module")
def sphinx(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A project with MyST and sphinx-gallery, built: its pages, and what was said."""
    for name in ("sphinx", "myst_parser", "sphinx_gallery"):
        pytest.importorskip(name, reason=f"the Sphinx door is tried with {name}")
    folder = tmp_path_factory.mktemp("sphinx")
    shutil.copytree(DOORS / "sphinx", folder, dirs_exist_ok=True)
    done = call(["sphinx", "-q", "-b", "html", ".", "out"], folder)
    assert done.returncode == 0, done.stderr
    return folder / "out", done.stderr


def page_of(built: tuple[Path, str], name: str) -> str:
    return (built[0] / f"{name}.html").read_text("utf-8")


def test_the_directive_shows_output_and_picture_and_hides_setup(sphinx):
    page = page_of(sphinx, "index")
    assert page.count('class="tracer"') == 1
    assert "&lt;b&gt;printed&lt;/b&gt; tensor([3., 3.])" in page
    assert ">hidden .grad" in page or "hidden" in page
    assert 'data-box="' in page
    assert "requires_grad" not in page
    assert str(sphinx[0].parent) not in page


def test_lines_are_those_of_the_document(sphinx):
    lines = (DOORS / "sphinx/index.rst").read_text("utf-8").split("\n")
    line = next(n for n, text in enumerate(lines, start=1) if ".backward()" in text)
    assert f"index.rst:{line}" in page_of(sphinx, "index")


def test_the_directive_works_in_myst_with_options(sphinx):
    page = page_of(sphinx, "page")
    assert "page.md:13" in page
    assert page.count("<svg") == 1
    assert "<details" not in page


def test_a_block_that_fails_is_shown_and_warned_of_at_its_line_unless_it_should(sphinx):
    page = page_of(sphinx, "broken")
    assert "NameError</b> in line 6" in page
    assert "ZeroDivisionError" in page
    failures = [line for line in sphinx[1].splitlines() if "Error" in line]
    assert len(failures) == 1
    assert "broken.rst:6: WARNING: NameError: name 'never_defined' is not defined" in failures[0]


def test_the_scraper_gives_examples_their_pictures_and_timelines(sphinx):
    page = page_of(sphinx, "gallery/plot_square")
    picture = sphinx[0] / "_images/sphx_glr_plot_square_001.svg"
    assert "2 * grad" in picture.read_text("utf-8")
    assert "sphx_glr_plot_square_001.svg" in page
    assert "tensor hook" in page
    assert "y * y" in page
    assert page.count('class="tracer"') == 2


def test_the_style_of_fragments_is_there(sphinx):
    assert "tracer.css" in page_of(sphinx, "index")
    style = (sphinx[0] / "_static/tracer.css").read_text("utf-8")
    assert all(line.startswith(".tracer") for line in style.strip().splitlines())


# ---- MkDocs


@pytest.fixture(scope="module")
def mkdocs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A site with a traced page, built: its pages, and what was said."""
    pytest.importorskip("mkdocs", reason="the MkDocs door needs the extra `mkdocs`")
    folder = tmp_path_factory.mktemp("mkdocs")
    shutil.copytree(DOORS / "mkdocs", folder, dirs_exist_ok=True)
    declared = folder / "declared"
    declare_entry_points(declared)
    path = os.pathsep.join(map(str, (declared, ROOT)))
    done = call(["mkdocs", "build", "-d", "out"], folder, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    return folder / "out", done.stderr


def declare_entry_points(folder: Path) -> None:
    """Declare what setup.cfg does, whichever version of it the environment was installed from."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    info = folder / "autograd_tracer-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: autograd-tracer\nVersion: 0.1.0\n")
    groups = config["options.entry_points"].items()
    text = "".join(f"[{group}]\n{lines.strip()}\n" for group, lines in groups)
    (info / "entry_points.txt").write_text(text)


def test_a_traced_fence_is_followed_by_what_it_did(mkdocs):
    page = page_of(mkdocs, "index")
    assert page.count('class="tracer"') == 2
    assert "&lt;b&gt;printed&lt;/b&gt; tensor(6.)" in page
    assert "index.md:17" in page
    assert page.count("<svg") == 1
    assert "tracer" not in page.partition("<body>")[2].partition("<style>")[0]


def test_other_fences_and_pages_are_left_alone(mkdocs):
    assert "not_run()" in page_of(mkdocs, "index")
    assert "import torch" not in page_of(mkdocs, "index")
    plain = page_of(mkdocs, "plain/index")
    assert "not_run()" in plain
    assert "tracer" not in plain


def test_a_fence_that_fails_is_shown_and_warned_of_at_its_line(mkdocs):
    assert "NameError</b> in line 24" in page_of(mkdocs, "index")
    assert "index.md:24: NameError: name 'never_defined' is not defined" in mkdocs[1]


# ---- Jupyter


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory):
    """A notebook, run by nbclient: its cells."""
    nbclient = pytest.importorskip("nbclient", reason="the notebook door is tried with nbclient")
    nbformat = pytest.importorskip("nbformat", reason="the notebook door needs `notebook`")
    pytest.importorskip("ipykernel", reason="the notebook door is tried with ipykernel")
    cells = [
        "%load_ext tracer\nimport torch\nx = torch.tensor(3.0, requires_grad=True)",
        "%%tracer graph name=t\ny = x * x\ny.backward()\nx.grad",
        "print(type(t).__name__, len(t.passes), y.item())",
        "%%tracer\nz = 1",
        "%%tracer\n(x * 2).backward()\n1 / 0",
        "%%tracer grph\n1",
    ]
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    folder = tmp_path_factory.mktemp("notebook")
    client = nbclient.NotebookClient(
        made, allow_errors=True, timeout=300, kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("PYTHONWARNINGS", "ignore")
        patch.setenv("IPYTHONDIR", str(folder))
        client.execute()
    return made.cells


def html_of(cell) -> str:
    return "".join(output.get("data", {}).get("text/html", "") for output in cell.outputs)


def test_the_magic_shows_a_picture_and_the_value_of_the_cell(notebook):
    shown = html_of(notebook[1])
    assert "<svg" in shown
    assert "In [2]:3" in shown
    assert "y = x * x" in shown
    assert "<details" not in shown
    values = [output.data["text/plain"] for output in notebook[1].outputs]
    assert "tensor(6.)" in values


def test_the_magic_leaves_names_and_the_trace_behind(notebook):
    assert notebook[2].outputs[0].text == "Trace 1 9.0\n"


def test_a_cell_that_only_defines_shows_nothing(notebook):
    assert notebook[3].outputs == []


def test_a_cell_that_fails_shows_what_happened_until_then_and_fails(notebook):
    assert "<svg" in html_of(notebook[4])
    (error,) = [output for output in notebook[4].outputs if output.output_type == "error"]
    assert error.ename == "ZeroDivisionError"
    assert "magic.py" not in "".join(error.traceback)


def test_a_mark_that_is_not_understood_is_said(notebook):
    (error,) = [output for output in notebook[5].outputs if output.output_type != "display_data"]
    assert "there is no mark `grph` (did you mean `graph`?)" in str(error)


# ---- nothing is imported that is not asked for


def test_importing_tracer_imports_no_door():
    code = (
        "import sys, tracer, tracer.docgen\n"
        "doors = {'sphinx', 'docutils', 'mkdocs', 'IPython', 'nbformat', 'torch'}\n"
        "print(sorted(doors & set(sys.modules)), hasattr(tracer, 'nothing'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "[] False\n"


# ---- in a browser


@pytest.mark.parametrize("name", ["index", "page", "broken", "gallery/plot_square"])
def test_pages_of_sphinx_are_sound_and_stay_on_this_machine(browser, sphinx, name):
    assert_local(browser.open(sphinx[0] / f"{name}.html"))


def test_pages_of_mkdocs_are_sound_and_stay_on_this_machine(browser, mkdocs):
    assert_local(browser.open(mkdocs[0] / "index.html"))


def assert_local(seen: Seen) -> None:
    assert seen.errors == []
    assert seen.missing == []
    assert [url for url in seen.requests if not url.startswith("file://")] == []
