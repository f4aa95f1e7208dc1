"""Text in, the scripts in it that no font of this machine has the letters of, out."""

from __future__ import annotations

import shutil
import subprocess
import unicodedata

_COMMON = 0x52F  # Latin, Greek and Cyrillic, which every font of a machine has, end before it
_MOST_ASKED = 8
_LONGEST_S = 5.0


def missing_scripts(text: str) -> tuple[str, ...]:
    """Name them (`CJK`, `Arabic`), nothing where fontconfig's `fc-list` is not there to ask."""
    program = shutil.which("fc-list")
    letters = {_script(char): char for char in sorted(set(text)) if _is_letter(char)}
    if program is None or not letters:
        return ()
    asked = list(letters.items())[:_MOST_ASKED]
    return tuple(script for script, char in asked if not _has_font(program, char))


def _is_letter(char: str) -> bool:
    return ord(char) > _COMMON and char.isalpha()


def _script(char: str) -> str:
    name = unicodedata.name(char, "other").partition(" ")[0]
    return name if name == "CJK" else name.capitalize()


def _has_font(program: str, char: str) -> bool:
    command = [program, f":charset={ord(char):x}", "family"]
    try:
        found = subprocess.run(command, capture_output=True, timeout=_LONGEST_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return True
    return found.returncode != 0 or bool(found.stdout.strip())
