"""The README's commands, code and links: each is tried, so that none is out of date."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from tests.cli.conftest import Prompt
from tracer.cli.program import tracer

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the fenced blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[list[str]]:
    """Return what follows `program` in each of the README's commands, less the comments.

    `tracer draw` alone, in prose, is the name of a command and not one to type.
    """
    shortest = 2 if program == "tracer" else 1
    shown = re.findall(r"^\$ (.*)", "".join(blocks("console")), re.MULTILINE)
    inline = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", README, flags=re.M | re.S))
    lines = [shlex.split(line, comments=True) for line in [*shown, *inline]]
    return [words[1:] for words in lines if words[:1] == [program] and len(words) > shortest]


@pytest.mark.parametrize("words", commands("tracer"), ids=shlex.join)
def test_each_tracer_command_is_understood(words: list[str]) -> None:
    command: click.Command | None = tracer
    while isinstance(command, click.Group):
        command, words = command.get_command(click.Context(command), words[0]), words[1:]
    assert command is not None
    command.make_context("tracer", words)


@pytest.mark.parametrize("words", commands("make"), ids=shlex.join)
def test_each_make_target_is_there(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in words:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.mark.parametrize("block", blocks("python"))
def test_the_code_runs(prompt: Prompt, block: str) -> None:
    prompt.write("block.py", block)
    result = prompt.python("block.py")
    assert (result.status, result.err) == (0, "")
    assert "loss.backward()" in result.out
    assert (prompt.folder / "loss.svg").stat().st_size > 0


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)]+)\)", README))
def test_each_link_leads_somewhere(target: str) -> None:
    assert target.startswith("https://") or (ROOT / target).exists()
