"""What a build found out in; a file of it beside the pages, for later builds and checks, out.

The file is JSON and holds no picture: those are the files that the pages refer to. It is read as
what a stranger may have written: whatever is not as it should be counts as not being there.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import cache
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import tracer
from tracer.docgen.blocks import Document
from tracer.docgen.page import CodeStep, Page, picture_path, plot_path
from tracer.docgen.run import stretches

FILE = "blocks.json"


@dataclass(frozen=True, slots=True)
class Kept:
    """What a page was made of: for each block its key and what was found out of it.

    `files` are the pages and pictures by their paths relative to the pages, `modules` the modules
    beside the document that it imported, each with the digest of what it held.
    """

    keys: tuple[str, ...] = ()
    code: tuple[CodeStep, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)


def keep(document: Document, page: Page, modules: Sequence[str], out: Path) -> None:
    """Write what a page, whose files lie in `out`, was made of."""
    files = [*page.pictures, f"{page.stem}.html", f"{page.stem}.md"]
    kept = Kept(
        keys(document),
        tuple(_without_svg(step) for step in page.code),
        {name: digest(out / name) for name in files},
        {module: digest(Path(module)) for module in modules},
    )
    (out / page.stem).mkdir(exist_ok=True)
    text = json.dumps(asdict(kept), ensure_ascii=False, indent=1, default=sorted)
    (out / page.stem / FILE).write_text(text + "\n", "utf-8")


def read_kept(out: Path, stem: str) -> Kept | None:
    """Read what a page was made of; None where that cannot be read."""
    try:
        kept = decode(Kept, json.loads((out / stem / FILE).read_text("utf-8")))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return kept if isinstance(kept, Kept) else None


def reusable(document: Document, kept: Kept | None, out: Path, stem: str) -> dict[int, CodeStep]:
    """Return the blocks that need not run: nothing has changed in the process that they share.

    Those that failed run again, since what they lacked may be there now.
    """
    if kept is None or any(digest(Path(file)) != now for file, now in kept.modules.items()):
        return {}
    wanted = keys(document)
    found: dict[int, CodeStep | None] = {}
    for numbers in stretches(document.code):
        steps = [_reused(kept, wanted, out, stem, number) for number in numbers]
        if all(step is not None and not step.wrong for step in steps):
            found.update(zip(numbers, steps, strict=True))
    return {number: step for number, step in found.items() if step is not None}


def _reused(
    kept: Kept, wanted: Sequence[str], out: Path, stem: str, number: int
) -> CodeStep | None:
    if not number < min(len(kept.keys), len(kept.code)) or kept.keys[number] != wanted[number]:
        return None
    step = kept.code[number]
    try:
        figures = tuple(
            replace(
                figure,
                drawings=tuple(
                    replace(one, svg=_svg(kept, out, picture_path(stem, step, one)))
                    for one in figure.drawings
                ),
            )
            for figure in step.scraped.figures
        )
        plots = tuple(
            replace(one, svg=_svg(kept, out, plot_path(stem, step, one)))
            for one in step.scraped.plots
        )
    except OSError:
        return None
    return replace(step, scraped=replace(step.scraped, figures=figures, plots=plots))


def _svg(kept: Kept, out: Path, name: str) -> str:
    """Read a picture; raise `OSError` where it is not the one that was written."""
    if digest(out / name) != kept.files.get(name, "-"):
        raise OSError(f"{name} has changed")
    return (out / name).read_text("utf-8")


def _without_svg(step: CodeStep) -> CodeStep:
    figures = tuple(
        replace(figure, drawings=tuple(replace(one, svg="") for one in figure.drawings))
        for figure in step.scraped.figures
    )
    plots = tuple(replace(one, svg="") for one in step.scraped.plots)
    return replace(step, scraped=replace(step.scraped, figures=figures, plots=plots))


# ---- what a block's results depend on


def keys(document: Document) -> tuple[str, ...]:
    """Return for each block a digest of what its results depend on.

    That is its code and marks, where it stands, all blocks before it in its process, and the
    versions of what runs it.
    """
    base = _digest_of(document.path.name, made_with())
    found = [""] * len(document.code)
    for numbers in stretches(document.code):
        so_far = base
        for number in numbers:
            block = document.code[number]
            so_far = _digest_of(so_far, repr(block))
            found[number] = so_far
    return tuple(found)


@cache
def made_with() -> str:
    """Return what runs the blocks: the versions of Python and PyTorch, and this very `tracer`."""
    folder = Path(tracer.__file__).parent
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    )
    code = sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    return f"{sys.version} torch {metadata.version('torch')} {code}"


def digest(path: Path) -> str:
    """Return a digest of what a file holds; empty where there is none."""
    return sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _digest_of(*parts: str) -> str:
    return sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


# ---- JSON


def decode(kind: Any, value: Any) -> Any:
    """Build a value of a type (dataclasses, tuples, mappings, plain values) from JSON.

    Raises `TypeError`, `KeyError` or `ValueError` where the value is of another.
    """
    if is_dataclass(kind) and isinstance(kind, type):
        hints = _hints(kind)
        return kind(**{one.name: decode(hints[one.name], value[one.name]) for one in fields(kind)})
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple:
        inner = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
        return tuple(decode(one, part) for one, part in zip(inner, value, strict=True))
    if origin is frozenset:
        return frozenset(decode(arguments[0], part) for part in value)
    if origin in (Union, types.UnionType):
        rest = [one for one in arguments if one is not type(None)]
        return None if value is None and len(rest) < len(arguments) else decode(rest[0], value)
    if origin is not None:
        return {str(key): decode(arguments[1], part) for key, part in value.items()}
    if kind is float and isinstance(value, int):
        return float(value)
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
