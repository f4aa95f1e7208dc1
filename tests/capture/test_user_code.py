"""Whose file it is."""

from __future__ import annotations

import functools
import operator
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.capture.probes import SCRIPT, run_file
from tracer.capture.sites import SiteTable
from tracer.capture.user_code import TRACER, UserCode
from tracer.records.graph import Site

INSTALLED = "/venv/lib/python3/site-packages"


@pytest.mark.parametrize(
    ("file", "options", "is_user"),
    [
        ("/home/me/train.py", {}, True),
        ("train.py", {}, True),
        ("<string>", {}, True),
        ("<stdin>", {}, True),
        ("<ipython-input-1-abc>", {}, True),
        ("/tmp/ipykernel_12/34.py", {}, True),
        (f"{INSTALLED}/transformers/trainer.py", {}, False),
        (f"{INSTALLED}/transformers/trainer.py", {"show_library": True}, True),
        (f"{INSTALLED}/app/train.py", {"script": f"{INSTALLED}/app/main.py"}, True),
        (f"{INSTALLED}/application/train.py", {"script": f"{INSTALLED}/app/main.py"}, False),
        (f"{INSTALLED}/one.py", {"script": f"{INSTALLED}/one.py"}, True),
        (f"{INSTALLED}/two.py", {"script": f"{INSTALLED}/one.py"}, False),
        ("/usr/lib/python3/dist-packages/numpy/core.py", {}, False),
        (operator.__file__, {}, False),
        (operator.__file__, {"show_library": True}, True),
        (functools.__file__, {"show_library": True}, False),
        (f"{Path(sys.executable).parent}/torchrun", {}, False),
        (f"{TRACER}/api.py", {"show_library": True}, False),
        (f"{TRACER}-user/api.py", {}, True),
        ("<frozen importlib._bootstrap>", {"show_library": True}, False),
        ("<eval_with_key>.7 from /home/me/train.py", {"show_library": True}, False),
        ("/tmp/torchinductor_me/ab/cab.py", {"show_library": True}, False),
    ],
)
def test_a_file_is_the_users_unless_it_was_installed(
    file: str, options: dict[str, Any], is_user: bool
) -> None:
    assert UserCode(**{"script": "/home/me/train.py"} | options).wrote(file) is is_user


def test_pytorch_is_no_user_even_where_it_runs_as_the_script(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch = type(sys)("torch")
    torch.__path__ = ["/src/pytorch/torch"]
    monkeypatch.setitem(sys.modules, "torch", torch)
    is_user = UserCode(script="/src/pytorch/torch/distributed/run.py")
    assert not is_user.wrote("/src/pytorch/torch/distributed/run.py")
    assert is_user.wrote("/src/pytorch/test/test_autograd.py")


def test_library_frames_are_walked_over(tmp_path: Path) -> None:
    file = tmp_path / "snippet.py"
    file.write_text("import heapq\nz = heapq.nsmallest(2, [1, 2], x)\n")
    seen = run_file(file)
    assert {site.text for site in seen.sites} == {"z = heapq.nsmallest(2, [1, 2], x)"}


def test_library_frames_are_shown_on_demand(tmp_path: Path) -> None:
    file = tmp_path / "snippet.py"
    file.write_text("import heapq\nz = heapq.nsmallest(2, [1, 2], x)\n")
    assert Path(run_file(file, show_library=True).last.file).name == "heapq.py"


def test_a_method_that_dataclass_wrote_is_not_the_users(tmp_path: Path) -> None:
    file = tmp_path / "snippet.py"
    file.write_text(
        "from dataclasses import dataclass, field\n@dataclass\nclass A:\n"
        "    b: object = field(default_factory=x)\nA()\n"
    )
    assert run_file(file).last.text == "A()"


def test_no_user_frame_is_no_site() -> None:
    found: list[Site | None] = []
    table = SiteTable(script=SCRIPT)
    code = compile("found.append(table.site_of(sys._getframe()))", f"{INSTALLED}/a.py", "exec")
    names = {"sys": sys, "table": table, "found": found}
    thread = threading.Thread(target=eval, args=(code, names))
    thread.start()
    thread.join()
    assert found == [None]
