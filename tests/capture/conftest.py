"""What the tests of capture share: the cores, each under the same tests."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest
from torch.autograd.function import _HookMixin

from tests.capture.cores import load_core
from tracer.capture.core import set_up

CORES = ("compiled", "compiled, by methods", "python")


def _load(name: str) -> ModuleType:
    if name == "python":
        return load_core("core_in_python")
    try:
        return load_core("_core", exchange="methods" not in name)
    except ImportError:
        pytest.skip("the compiled core was not built here")


@pytest.fixture(autouse=True)
def _told_of_torch_as_ever() -> Iterator[None]:
    """A core that a test told otherwise knows afterwards what it is told outside of tests."""
    yield
    set_up()


@pytest.fixture(params=CORES)
def core(request: pytest.FixtureRequest) -> ModuleType:
    """Each core in turn; the compiled one also as with torch before 2.10."""
    return _load(request.param)


@pytest.fixture
def both_cores() -> tuple[ModuleType, ModuleType]:
    """The compiled core and the one in Python."""
    return _load("compiled"), _load("python")


@pytest.fixture
def probing(core: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A core whose probes PyTorch puts where the core wants them, as while recording."""
    monkeypatch.setattr(_HookMixin, "_register_hook", staticmethod(core.register_hook))
    return core
