"""Letters that no font of the machine has are told apart by script."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tracer.render.fonts import missing_scripts


@pytest.fixture
def fontconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An `fc-list` on PATH that knows a font for Arabic only."""
    program = tmp_path / "fc-list"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nprint('Kufi' if sys.argv[1] == ':charset=644' else '')\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("fontconfig")
def test_only_scripts_without_a_font_are_named() -> None:
    assert missing_scripts("x = قلب + 梯度") == ("CJK",)


@pytest.mark.usefixtures("fontconfig")
def test_what_every_machine_has_is_not_asked_for() -> None:
    assert missing_scripts("‖g‖ = αβγ → ∞ ×12 жщ") == ()


def test_without_fontconfig_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert missing_scripts("梯度") == ()
