"""A folder and commands in it: what a user does at a prompt in, what comes out of it out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest


@dataclass(frozen=True)
class Ran:
    """What a command printed and how it ended; `status` is negative for a signal."""

    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Prompt:
    """A shell prompt in a folder of its own."""

    folder: Path

    def write(self, name: str, text: str) -> Path:
        """Write a file, dedented."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text).lstrip("\n"), encoding="utf-8")
        return path

    def python(
        self,
        *arguments: str,
        options: Sequence[str] = (),
        stdin: str = "",
        env: dict[str, str | None] | None = None,
    ) -> Ran:
        """Run this Python with the arguments; `env` adds variables, or takes one away with None."""
        changed = {**os.environ, **(env or {})}
        done = subprocess.run(
            [sys.executable, *options, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            cwd=self.folder,
            env={name: value for name, value in changed.items() if value is not None},
            timeout=120,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def tracer(self, *arguments: str, **more: object) -> Ran:
        """Run the `tracer` command."""
        return self.python("-m", "tracer", *arguments, **more)  # type: ignore[arg-type]


@pytest.fixture
def prompt(tmp_path: Path) -> Prompt:
    """A prompt in an empty folder."""
    folder = tmp_path / "folder"
    folder.mkdir()
    return Prompt(folder)
