"""What pip makes of the project: the wheel's files, its requirements, and a command that starts."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.test_imports import imports_of, modules

ROOT = Path(__file__).parent.parent
CORE = Path("tracer/capture/_core.c")
SWITCH = "autograd_tracer.pth"
IMPORTED_AS = {"markdown-it-py": "markdown_it", "ipython": "IPython"}
USED_IF_THERE = {"triton"}
"""What nobody is asked to install: PyTorch's wheels for CUDA bring it, and there is another way."""
COMES_WITH = {"sphinx": {"docutils", "sphinx_gallery"}}  # the latter is there when it calls us
DOORS = ("sphinx", "mkdocs", "notebook")


def build_wheel(folder: Path, *, env: dict[str, str], without: Path | None = None) -> Path:
    """Build a wheel from a copy of what git would hand out, with no network; return its path."""
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
    shutil.copytree(ROOT / "tracer", source / "tracer", ignore=ignored)
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE", SWITCH):
        shutil.copy(ROOT / name, source / name)
    if without is not None:
        (source / without).unlink()
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run(command, check=True, env={**os.environ, **env}, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def plain_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that a machine without a compiler builds."""
    return build_wheel(tmp_path_factory.mktemp("plain"), env={"CC": "no-such-compiler"})


@pytest.fixture(scope="module")
def unpacked(plain_wheel: Path) -> Path:
    """The folder that the wheel without the C core unpacks to."""
    folder = plain_wheel.parent / "unpacked"
    with zipfile.ZipFile(plain_wheel) as wheel:
        wheel.extractall(folder)
    return folder


def names_in(wheel: Path) -> set[str]:
    """Return the package's files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def tracked_files() -> set[str]:
    """Return the package's files that belong to the project, from the folder itself."""
    left_out = {".pyc", ".so", ".pyd"}
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tracer").rglob("*")
        if path.is_file() and path.suffix not in left_out
    }


def requirements(*extras: str) -> Iterator[Requirement]:
    """Yield what installing the project asks for, and some of its extras."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = [config["options"]["install_requires"]]
    lines += [config["options.extras_require"][extra] for extra in extras]
    for line in filter(None, "\n".join(lines).splitlines()):
        yield Requirement(line)


def test_without_a_compiler_the_wheel_holds_every_file_but_the_core(plain_wheel: Path) -> None:
    assert names_in(plain_wheel) == tracked_files() | {SWITCH}


@pytest.mark.skipif(shutil.which(os.environ.get("CC", "cc")) is None, reason="no C compiler here")
def test_with_a_compiler_one_wheel_serves_every_python(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path, env={"CFLAGS": "-O0"})
    assert "-cp310-abi3-" in wheel.name
    added = names_in(wheel) - tracked_files() - {SWITCH}
    assert [Path(name).name.partition(".")[0] for name in added] == ["_core"]


def test_without_the_source_of_the_core_the_wheel_is_pure(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path, env={}, without=CORE)
    assert wheel.name.endswith("-py3-none-any.whl")


def test_the_metadata_say_what_pip_and_people_need(unpacked: Path) -> None:
    (metadata,) = unpacked.glob("*.dist-info/METADATA")
    headers = HeaderParser().parsestr(metadata.read_text(encoding="utf-8"))
    assert headers["Name"] == "autograd-tracer"
    assert headers["Requires-Python"] == ">=3.10"
    assert headers["Description-Content-Type"] == "text/markdown"
    assert "Apache-2.0" in (headers["License-Expression"] or headers["License"])
    assert list(metadata.parent.rglob("LICENSE"))
    scripts = metadata.with_name("entry_points.txt").read_text(encoding="utf-8")
    assert "tracer = tracer.cli:main" in scripts
    assert "tracer = tracer.docgen.traced_fences:TracedFences" in scripts


def test_the_unpacked_wheel_runs_a_script(unpacked: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("print('ran')")
    done = subprocess.run(
        [sys.executable, "-m", "tracer", "run", "script.py"],
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "ran\n"
    assert done.stderr.startswith("tracer: script.py did not import torch")


def test_what_is_imported_is_asked_for() -> None:
    asked = {IMPORTED_AS.get(one.name, one.name) for one in requirements(*DOORS)}
    asked |= {name for one in asked for name in COMES_WITH.get(one, ())}
    tops = {name.partition(".")[0] for path in modules() for _, name in imports_of(path)}
    assert (
        tops - set(sys.stdlib_module_names) - {"tracer", "sitecustomize", *USED_IF_THERE} <= asked
    )


LINUX = {"sys_platform": "linux", "platform_python_implementation": "CPython"}
MAC = {"sys_platform": "darwin", "platform_python_implementation": "CPython"}
WINDOWS = {"sys_platform": "win32", "platform_python_implementation": "CPython"}


@pytest.mark.parametrize(
    ("machine", "wanted"),
    [
        ({**LINUX, "platform_machine": "x86_64"}, True),
        ({**LINUX, "platform_machine": "aarch64"}, True),
        ({**LINUX, "platform_machine": "ppc64le"}, False),
        ({**LINUX, "platform_machine": "armv7l"}, False),
        ({**MAC, "platform_machine": "arm64"}, True),
        ({**MAC, "platform_machine": "x86_64"}, True),
        ({**WINDOWS, "platform_machine": "AMD64"}, True),
        ({**WINDOWS, "platform_machine": "ARM64"}, False),
        ({**LINUX, "platform_machine": "x86_64", "platform_python_implementation": "PyPy"}, False),
    ],
)
def test_pygraphviz_is_asked_for_only_where_it_has_wheels(
    machine: dict[str, str], wanted: bool
) -> None:
    asked = [one for one in requirements() if one.name == "pygraphviz"]
    assert sum(one.marker is None or one.marker.evaluate(machine) for one in asked) == wanted


@pytest.mark.parametrize(("python", "wanted"), [("3.10", False), ("3.12", True), ("3.14", True)])
def test_setuptools_is_asked_for_where_python_has_no_distutils(python: str, wanted: bool) -> None:
    (asked,) = (one for one in requirements() if one.name == "setuptools")
    assert asked.marker is not None
    assert asked.marker.evaluate({"python_version": python}) is wanted


def test_the_constraints_satisfy_the_requirements() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    assert pinned["torch"] == "2.13.0"
    for one in requirements():
        if one.name in pinned:
            assert one.specifier.contains(pinned[one.name])


def test_the_switch_comes_with_the_wheel_and_goes_with_it(
    plain_wheel: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path, with_pip=False, symlinks=True)
    python = str(tmp_path / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", plain_wheel], check=True)
    (switch,) = tmp_path.rglob(SWITCH)
    assert switch.parent.name == "site-packages"
    watching = [python, "-c", "import sys; print(type(sys.meta_path[0]).__name__)"]
    told = [
        subprocess.run(
            watching, env={**os.environ, "TRACER": on}, check=True, capture_output=True
        ).stdout
        for on in ("1", "")
    ]
    assert told == [b"TorchWatch\n", b"type\n"]
    subprocess.run([*pip, "uninstall", "--quiet", "--yes", "autograd-tracer"], check=True)
    assert not switch.exists()
