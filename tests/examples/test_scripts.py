"""Each example runs as a plain script that needs only torch, and prints what its text promises."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))

PRINTED = {
    "01_vector_jacobian": """\
tensor([[10., 10.],
        [10., 10.],
        [10., 10.]])
tensor([[5., 5.],
        [5., 5.],
        [5., 5.]])
tensor([[2., 2.],
        [2., 2.],
        [2., 2.]])
None None None
""",
    "02_hooks": """\
tensor([1., 1., 4.])
tensor([2., 2., 5.])
""",
    "03_no_grad": """\
epoch 1, loss 0.5306
epoch 2, loss 0.0270
epoch 3, loss 0.0013
training:   True
evaluation: False
""",
    "04_sgd_by_hand": """\
epoch   1: gradient -19800.0000
epoch   2: gradient -15839.9990
epoch   3: gradient -12672.0000
epoch  10: gradient  -2657.5103
epoch  50: gradient     -0.3540
epoch 200: gradient     -0.0031
tensor([100.0000], requires_grad=True) tensor([-0.0031])
""",
}


@pytest.fixture(scope="module")
def finished() -> dict[str, tuple[int, str, str]]:
    """Exit status, output and errors of each example, all started at once."""
    running = {
        path.stem: subprocess.Popen(
            [sys.executable, path.name], cwd=path.parent, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for path in EXAMPLES
    }  # fmt: skip
    ended = {name: (process.communicate(), process) for name, process in running.items()}
    return {name: (process.returncode, *streams) for name, (streams, process) in ended.items()}


def test_each_example_has_its_numbers_here():
    assert [path.stem for path in EXAMPLES] == list(PRINTED)


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_prints_what_its_text_promises(name, finished):
    assert finished[name][:2] == (0, PRINTED[name])


def test_only_the_first_example_warns_and_the_warning_is_pytorchs_own(finished):
    warned = {name: errors for name, (_, _, errors) in finished.items() if errors}
    assert list(warned) == ["01_vector_jacobian"]
    assert warned["01_vector_jacobian"].count("Warning:") == 1
    assert "a Tensor that is not a leaf Tensor is being accessed" in warned["01_vector_jacobian"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_imports_torch_and_nothing_of_ours(path):
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        for name in _names(node)
    }
    assert imported == {"torch"}


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def test_variable_is_shown_to_work_in_one_place():
    users = [path.stem for path in EXAMPLES if "Variable(" in path.read_text("utf-8")]
    assert users == ["02_hooks"]
