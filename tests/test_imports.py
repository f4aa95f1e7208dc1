"""The direction of imports, read from the source: down the layers, never up or sideways."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "tracer"
WORKERS = ("capture", "store", "transforms", "render")
LAYERS = (("cli",), ("docgen",), ("api",), ("report",), WORKERS, ("records",), ("errors",))
HEIGHT = {room: height for height, layer in enumerate(reversed(LAYERS)) for room in layer}
ENTRANCES = {"__init__": ("api", "errors", "records", "docgen"), "__main__": ("cli",)}
ONLY_IN = {"torch": "capture", "torchviz": "capture", "triton": "capture", "sqlite3": "store"}
DOORS = {"nbformat", "IPython", "sphinx", "sphinx_gallery", "docutils", "mkdocs"}
THIRD_PARTY = {
    "capture": {"torch", "torchviz", "triton"},
    "store": set(),
    "transforms": set(),
    "render": {"graphviz", "pygraphviz", "rich"},
    "report": {"jinja2", "markdown_it", "pygments"},
    "docgen": {"jinja2", "markdown_it", "pygments", *DOORS},
    "api": set(),
    "cli": {"click", "rich"},
    "records": set(),
    "errors": set(),
}
LAZY_ROOMS = ("api", "cli")


def modules() -> list[Path]:
    """Return every source file of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    """Return the room that a file is in: the first part of its path below the package."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and full name of each import, also inside functions and by `import_module`.

    What is imported for type checkers alone counts where it is our own.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unseen = {inner for block in ast.walk(tree) for inner in for_type_checkers(block)}
    for node in ast.walk(tree):
        if node in unseen:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "__import__"):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant):
                    yield node.lineno, str(argument.value)


def for_type_checkers(block: ast.AST) -> list[ast.stmt]:
    """Return the imports of others' modules under `if TYPE_CHECKING:`."""
    if not isinstance(block, ast.If) or ast.unparse(block.test) != "TYPE_CHECKING":
        return []
    return [inner for inner in block.body if "tracer." not in ast.unparse(inner)]


def called(node: ast.Call) -> str:
    """Return the last name of what is called."""
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def may_import(room: str, name: str) -> bool:
    """Return whether a file in `room` may import the module of that full name."""
    top, *rest = name.split(".")
    if top != "tracer":
        return ONLY_IN.get(top, room) == room and (
            top in sys.stdlib_module_names
            or top in THIRD_PARTY.get(room, set()) | {"sitecustomize"}
        )
    target = rest[0] if rest and rest[0] in HEIGHT else "api"  # what `import tracer` gives is api's
    if room in ENTRANCES:
        return target in ENTRANCES[room]
    return target == room or HEIGHT[target] < HEIGHT[room]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    room = room_of(path)
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for line, name in imports_of(path)
        if not may_import(room, name)
    ]
    assert wrong == []


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_only_api_and_cli_import_inside_functions(path: Path) -> None:
    if room_of(path) in LAZY_ROOMS:
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    inner = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for function in ast.walk(tree)
        if isinstance(function, functions)
        for node in ast.walk(function)
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    assert inner == []


@pytest.mark.parametrize(
    ("room", "name", "allowed"),
    [
        ("cli", "tracer.api", True),
        ("api", "tracer.capture.session", True),
        ("render", "tracer.records.graph", True),
        ("render", "tracer.render.colours", True),
        ("render", "tracer.store.reader", False),
        ("transforms", "tracer.render.dot", False),
        ("records", "tracer.api", False),
        ("errors", "tracer.records.graph", False),
        ("store", "torch", False),
        ("render", "sqlite3", False),
        ("capture", "torch.autograd", True),
        ("render", "tracer", False),
        ("docgen", "tracer.trace", True),
        ("records", "rich", False),
    ],
)
def test_the_rule_itself(room: str, name: str, allowed: bool) -> None:
    assert may_import(room, name) is allowed


def test_every_room_is_in_a_layer() -> None:
    rooms = {room_of(path) for path in modules()} - set(ENTRANCES)
    assert rooms <= set(HEIGHT)
