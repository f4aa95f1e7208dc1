"""The Triton kernel, as Triton itself plays it on a CPU, and as it compiles it for GPUs."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.capture.comparing import Gradients, same_value
from tests.capture.devices import answering_later
from tracer.capture import reductions

HAS_TRITON = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed here")


@needs_triton
def test_as_triton_plays_it_it_reads_what_is_read_at_once() -> None:
    played = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
         str(Path(__file__).with_name("played_kernel.py"))],
        env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert played.returncode == 0, played.stdout + played.stderr
    assert "7 passed" in played.stdout


@needs_triton
@pytest.mark.parametrize(
    ("backend", "architecture", "warp", "binary"),
    [("cuda", 80, 32, "cubin"), ("cuda", 90, 32, "cubin"), ("hip", "gfx942", 64, "hsaco")],
)
def test_it_compiles_for_gpus(
    backend: str,
    architecture: int | str,
    warp: int,
    binary: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    triton: Any = importlib.import_module("triton")
    fused: Any = importlib.import_module("tracer.capture.fused")
    target = triton.backends.compiler.GPUTarget(backend, architecture, warp)
    put = {"sums": "*fp64", "counts": "*i64"}
    kinds = [
        (
            fused._read,
            {"flat": f"*{kind}", **put, "numel": size, "stretch": size, "BLOCK": "constexpr"},
            {"BLOCK": fused._BLOCK},
        )
        for kind in ("fp32", "fp16", "bf16")
        for size in ("i32", "i64")
    ]
    found = {"found_sums": "*fp64", "found_counts": "*i64"}
    kinds.append(
        (
            fused._add_up,
            {**found, **put, "programs": "i32", "MOST": "constexpr"},
            {"MOST": fused._MOST_PROGRAMS},
        )
    )
    for function, signature, constants in kinds:
        source = triton.compiler.ASTSource(fn=function, signature=signature, constexprs=constants)
        compiled = triton.compile(source, target=target, options=fused._EXACT)
        assert len(compiled.asm[binary]) > 1000


def test_without_triton_or_its_compiler_operations_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(reductions, "FUSED_ON", {"cpu"})
    monkeypatch.setattr(reductions, "_FUSED", reductions._Fused())
    monkeypatch.setattr(reductions, "import_module", fail)
    tensor = torch.randn(100, generator=torch.Generator().manual_seed(0))
    at_once = Gradients()(tensor)
    with answering_later():
        assert same_value(at_once, Gradients()(tensor))
    assert not reductions._FUSED._is_there


def test_without_a_cuda_tensor_nobody_asks_for_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(reductions, "import_module", asked.append)
    with answering_later():
        Gradients()(torch.ones(100))
    assert asked == []
