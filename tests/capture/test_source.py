"""The text that was compiled, and no other."""

from __future__ import annotations

import linecache
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.capture.probes import HAS_POSITIONS, Holder, Probe, Seen, run_code, run_file
from tracer.records.graph import Site

ROOT = Path(__file__).parent.parent.parent
CELL = "/tmp/ipykernel_1/234.py"
TWO = "def f(x):\n    return x * 2\n\ndef g(x):\n    return x * 3\n"


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], tuple[Path, dict[str, Any]]]:
    """Write source to a file and run that, as an import does."""

    def execute(source: str) -> tuple[Path, dict[str, Any]]:
        file, names = tmp_path / "loaded.py", {}
        file.write_text(source)
        exec(compile(source, str(file), "exec"), names)
        return file, names

    return execute


Load = Callable[[str], tuple[Path, dict[str, Any]]]


def test_what_was_edited_since_it_was_loaded_gives_no_text(load: Load) -> None:
    file, loaded = load(TWO)
    file.write_text(TWO.replace("x * 3", "x * 4"))
    seen = Seen()
    loaded["g"](Probe(seen))
    loaded["f"](Probe(seen))
    assert [(site.line, site.text, site.statement) for site in seen.sites] == [
        (5, "", ""),
        (2, "x * 2", "return x * 2"),
    ]
    assert dict(seen.table.sources()) == {}


def test_what_is_edited_while_it_is_traced_keeps_the_text_that_runs(load: Load) -> None:
    file, loaded = load(TWO)
    seen = Seen()
    loaded["f"](Probe(seen))
    file.write_text("# another file\n")
    loaded["g"](Probe(seen))
    assert [site.text for site in seen.sites] == ["x * 2", "x * 3"]
    assert dict(seen.table.sources()) == {str(file): TWO}


def test_what_is_loaded_again_gives_its_new_text(load: Load) -> None:
    seen = Seen()
    for source in (TWO, TWO.replace("x * 3", "x + 4")):
        load(source)[1]["g"](Probe(seen))
    assert [site.text for site in seen.sites] == ["x * 3", "x + 4"]


def test_code_without_source_has_a_line_and_no_text() -> None:
    seen = Seen()
    run_code(compile("\nz = x * 2", "<string>", "exec"), seen)
    assert seen.sites == [Site(1, "<string>", 2)]
    assert dict(seen.table.sources()) == {}


def test_the_text_of_each_file_is_given_once(tmp_path: Path) -> None:
    file = tmp_path / "snippet.py"
    file.write_text("x * w\nx + w\n")
    assert dict(run_file(file).table.sources()) == {str(file): "x * w\nx + w\n"}


def test_a_relative_file_is_shown_by_its_full_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here.py").write_text("x * 2")
    seen = run_file(Path("here.py"))
    assert seen.last.file == str(tmp_path / "here.py")
    assert dict(seen.table.sources()) == {seen.last.file: "x * 2"}


# ---- where text can be


@pytest.fixture
def cell() -> Iterator[str]:
    """The source of a notebook's cell, known to `linecache` alone."""
    source = "z = x * 2\nif z:\n    z.relu()\n"
    linecache.cache[CELL] = (len(source), None, source.splitlines(True), CELL)
    yield source
    linecache.cache.pop(CELL, None)


def test_a_cell_is_read_although_its_statements_are_compiled_one_by_one(cell: str) -> None:
    seen = Seen()
    first, rest = cell.split("\n", 1)
    run_code(compile(first, CELL, "single"), seen)
    run_code(compile("\n" + rest, CELL, "exec"), seen, z=Probe(seen))
    assert [site.text for site in seen.sites] == ["z = x * 2", "if z", "z.relu()"]
    assert dict(seen.table.sources()) == {CELL: cell}


def test_a_cell_is_called_as_its_notebook_calls_it(
    cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, shell, running, compiler = Holder(), Holder(), Holder(), Holder()
    vars(module)["InteractiveShell"] = shell
    vars(shell)["_instance"] = running
    vars(running)["compile"] = compiler
    vars(compiler)["_filename_map"] = {CELL: 3, "<ipython-input-5-abc>": 3}
    monkeypatch.setitem(sys.modules, "IPython.core.interactiveshell", module)
    seen = Seen()
    for name in (CELL, "<ipython-input-4-abc>", "<ipython-input-5-abc>"):
        run_code(compile("x * 2", name, "exec"), seen)
    assert [site.file for site in seen.sites] == [
        "Cell In[3]",
        "<ipython-input-4-abc>",
        "<ipython-input-5-abc>",
    ]


def test_source_is_read_in_the_encoding_it_declares(tmp_path: Path) -> None:
    source = "# -*- coding: latin-1 -*-\nd = {}; d['é'] = x.relu('ü', w) # ö\n"
    file = tmp_path / "latin.py"
    file.write_bytes(source.encode("latin-1"))
    seen = run_file(file)
    assert seen.last.text == "d['é'] = x.relu('ü', w)"
    assert dict(seen.table.sources()) == {str(file): source}


def test_a_byte_order_mark_and_windows_newlines_do_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "windows.py"
    file.write_bytes(b"\xef\xbb\xbfz = (x *\r\n     w)\r\n")
    seen = run_file(file)
    assert seen.last.text == "z = x * w"
    assert dict(seen.table.sources()) == {str(file): "z = (x *\n     w)\n"}


def test_source_in_a_zip_archive_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "packed.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a_packed_module.py", TWO)
    monkeypatch.syspath_prepend(str(archive))
    module = import_module("a_packed_module")
    monkeypatch.setitem(sys.modules, "a_packed_module", module)
    seen = Seen()
    module.g(Probe(seen))
    assert (seen.last.file, seen.last.text) == (str(archive / "a_packed_module.py"), "x * 3")


def test_code_given_on_the_command_line_is_found() -> None:
    program = (
        "import sys; from tracer.capture.sites import SiteTable\n"
        "site = SiteTable().site_of(sys._getframe())\nprint(site.text)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("site = SiteTable().site_of(sys._getframe())\n", "")


@pytest.mark.skipif(not HAS_POSITIONS, reason="code has no positions before Python 3.11")
def test_asserts_that_pytest_rewrote_are_still_read() -> None:
    seen = Seen()
    assert Probe(seen) * 2
    assert seen.sites[0].expression == "Probe(seen) * 2"


@pytest.mark.parametrize(
    "content", [b"def (:", b"\xff\xfe\x00", b"# coding: nonsense\n", b"a\x00b"]
)
def test_a_file_that_cannot_be_parsed_gives_no_text(tmp_path: Path, content: bytes) -> None:
    file, seen = tmp_path / "broken.py", Seen()
    file.write_bytes(content)
    run_code(compile("x * 2", str(file), "exec"), seen)
    assert seen.sites == [Site(1, str(file), 1)]


def test_a_folder_gives_no_text(tmp_path: Path) -> None:
    seen = Seen()
    run_code(compile("x * 2", str(tmp_path), "exec"), seen)
    assert seen.sites == [Site(1, str(tmp_path), 1)]


# ---- harmless


def test_warnings_about_the_users_source_are_not_shown_again(tmp_path: Path) -> None:
    file = tmp_path / "warned.py"
    file.write_text("z = x * w if w is not 1 else '\\d'\nassert (x, 'always')\n")
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        code = compile(file.read_text(), str(file), "exec")
        before = len(shown)
        seen = Seen()
        run_code(code, seen)
        table_lambda = eval("lambda g: g")
        seen.table.function_site(table_lambda)
        after = len(shown)
    assert seen.last.text == "x * w"
    assert (before, after) == (3, 3)


def test_python_still_knows_which_warnings_it_has_shown(tmp_path: Path) -> None:
    file, registry, filters = tmp_path / "snippet.py", {}, list(warnings.filters)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        warnings.warn_explicit("once", UserWarning, "a.py", 1, registry=registry)
        file.write_text("x * w")
        code, seen = compile("x * w", str(file), "exec"), Seen()
        run_code(code, seen)
        warnings.warn_explicit("once", UserWarning, "a.py", 1, registry=registry)
    assert seen.last.text == "x * w"
    assert [str(warning.message) for warning in shown] == ["once"]
    assert list(warnings.filters) == filters


def test_linecache_knows_no_more_than_before(tmp_path: Path) -> None:
    file = tmp_path / "snippet.py"
    file.write_text("x * w")
    before = dict(linecache.cache)
    assert run_file(file).last.text == "x * w"
    assert linecache.cache == before
