"""A frame, a code position or a function comes in; the `Site` in the user's source goes out."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from itertools import count
from types import CodeType, FrameType, FunctionType, MappingProxyType
from typing import Any

from tracer.capture.expressions import LoopAround, Place, find_place
from tracer.capture.functions import code_of, enclosing_name, find_definition, innermost, name_of
from tracer.capture.source import ParsedSource, find_source
from tracer.capture.user_code import UserCode
from tracer.records.graph import Site

_CELL = "Cell In["


class SiteTable:
    """Gives each place in the user's source one `Site`; ids are dense and begin with 1.

    Code objects seen here are kept, so that the address of one stands for it as long as the table
    lives. `show_library` and `script` are those of `UserCode`.
    """

    def __init__(self, *, show_library: bool = False, script: str | None = None) -> None:
        self.is_user = UserCode(show_library=show_library, script=script)
        self._codes: dict[int, CodeType] = {}
        # By the code's address: its sites by instruction; None for a library's code.
        self._places: dict[int, dict[int, Site] | None] = {}
        self._sites: dict[tuple[str, str, Place], Site] = {}
        self._ids = count(1)
        self._loops: dict[int, tuple[LoopAround, ...]] = {}
        self._origins: dict[int, ParsedSource | None] = {}
        self._definitions: dict[int, tuple[Place, str]] = {}
        self._parsed: dict[str, list[ParsedSource]] = {}
        self._texts: dict[str, str | None] = {}
        self._files: dict[str, str] = {}

    def site_of(self, frame: FrameType | None) -> Site | None:
        """Find the site of the nearest user frame, from `frame` outward; None without one."""
        while frame is not None:
            code = frame.f_code
            try:
                places = self._places[id(code)]
            except KeyError:
                places = self._admit(code)
            if places is not None:
                lasti = frame.f_lasti
                site = places.get(lasti)
                return site if site is not None else self.lookup(code, lasti, frame.f_lineno)
            frame = frame.f_back
        return None

    def sites_around(self, frame: FrameType | None) -> Iterator[Site]:
        """Find the sites of all user frames, from `frame` outward."""
        while frame is not None:
            code = frame.f_code
            places = self._places[id(code)] if id(code) in self._places else self._admit(code)
            if places is not None:
                yield places.get(frame.f_lasti) or self.lookup(code, frame.f_lasti, frame.f_lineno)
            frame = frame.f_back

    def lookup(self, code: CodeType, lasti: int, line: int | None) -> Site:
        """Find the site of the instruction at byte offset `lasti`, on the line Python reports."""
        places = self._places[id(code)] if id(code) in self._places else self._admit(code)
        site = places.get(lasti) if places is not None else None
        if site is not None:
            return site
        with _lock:
            place = self._place_at(code, lasti, line if line and line > 0 else code.co_firstlineno)
            site = self._intern(code, place, getattr(code, "co_qualname", code.co_name))
        if places is not None:
            places[lasti] = site
        return site

    def function_site(self, function: object) -> tuple[Site | None, str]:
        """Find where a callable was defined, and a short text for it.

        The text is a lambda's body, a function's qualified name, the name of a builtin or the class
        of a callable object; partials, bound methods and wrappers are looked through.
        """
        try:
            found = innermost(function)
            code = code_of(found)
            if code is None:
                return None, name_of(found)
            if type(found) is not FunctionType and not self.is_user(code):
                return None, name_of(found)
            with _lock:
                place, text = self._definition_of(code)
                return self._intern(code, place, enclosing_name(code)), text or name_of(found)
        except Exception:
            return None, type(function).__name__

    def loops_around(self, site: Site) -> tuple[LoopAround, ...]:
        """The loops around a site, outermost first."""
        return self._loops.get(site.id, ())

    def user_frame(self, frame: FrameType | None) -> FrameType | None:
        """The frame that `site_of` finds the site of, once it has."""
        while frame is not None and self._places.get(id(frame.f_code)) is None:
            frame = frame.f_back
        return frame

    def loops_under_way(self, frame: FrameType | None) -> set[tuple[str, int]]:
        """File and line of the loops that the user frames from `frame` outward stand in."""
        found: set[tuple[str, int]] = set()
        while frame is not None:
            site = self.site_of(frame)
            frame = self.user_frame(frame)
            if frame is not None and site is not None:
                found |= {(site.file, loop.line) for loop in self.loops_around(site)}
                frame = frame.f_back
        return found

    def sources(self) -> Mapping[str, str]:
        """Give the text of each user file that a site is in, unless the file has changed since."""
        with _lock:
            found = {file: text for file, text in self._texts.items() if text is not None}
        return MappingProxyType(found)

    def text_of(self, file: str) -> str | None:
        """The text of a file that a site is in; None where it was not read, or has changed."""
        return self._texts.get(file)

    def _admit(self, code: CodeType) -> dict[int, Site] | None:
        self._codes[id(code)] = code
        try:
            is_user = self.is_user(code)
        except Exception:
            is_user = False
        return self._places.setdefault(id(code), {} if is_user else None)

    def _place_at(self, code: CodeType, lasti: int, line: int) -> Place:
        try:
            source = self._origin_of(code)
            return Place(line) if source is None else find_place(source, code, lasti, line)
        except Exception:
            return Place(line)

    def _definition_of(self, code: CodeType) -> tuple[Place, str]:
        if id(code) not in self._definitions:
            source = self._origin_of(code)
            known = (Place(code.co_firstlineno), "")
            self._definitions[id(code)] = find_definition(source, code) if source else known
        return self._definitions[id(code)]

    def _origin_of(self, code: CodeType) -> ParsedSource | None:
        """Find the text of a code object; one that fitted other code of the file comes first."""
        self._codes[id(code)] = code
        if id(code) not in self._origins:
            parsed = self._parsed.setdefault(code.co_filename, [])
            source = next((known for known in parsed if known.holds(code)), None)
            source = source or find_source(code)
            if source is not None and source not in parsed:
                parsed.append(source)
            self._origins[id(code)] = source
        return self._origins[id(code)]

    def _intern(self, code: CodeType, place: Place, function: str) -> Site:
        file = self._shown(code.co_filename)
        site = self._sites.get((file, function, place))
        if site is None:
            site = self._sites[file, function, place] = Site(
                id=next(self._ids),
                file=file,
                line=place.line,
                function=function,
                expression=place.expression,
                targets=place.targets,
                statement=place.statement,
            )
            self._loops[site.id] = place.loops
        if self.is_user(code):
            self._note_text(file, self._origins.get(id(code)))
        return site

    def _shown(self, name: str) -> str:
        """Name a file as a traceback does, but no two cells alike: their numbers may repeat."""
        if name not in self._files:
            shown = _shown_file(name)
            is_taken = shown.startswith(_CELL) and shown in self._files.values()
            self._files[name] = name if is_taken else shown
        return self._files[name]

    def _note_text(self, file: str, source: ParsedSource | None) -> None:
        """Keep a file's text; none where some of the code that ran is not in it."""
        text = source.text if source is not None else None
        if self._texts.setdefault(file, text) != text:
            self._texts[file] = None


_lock = threading.RLock()


def _renew_lock() -> None:
    """Give a forked child a lock of its own: nobody there would open one that was held."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def _shown_file(name: str) -> str:
    """Name a file as a traceback does: a notebook's cell by its number, a file by its full path."""
    cell = _cell_number(name)
    if cell is not None:
        return f"{_CELL}{cell}]"
    return os.path.abspath(name) if os.path.exists(name) else name


def _cell_number(name: str) -> int | None:
    interactive: Any = sys.modules.get("IPython.core.interactiveshell")
    if interactive is None:
        return None
    try:
        numbers = interactive.InteractiveShell._instance.compile._filename_map
        number = numbers.get(name)
    except AttributeError:
        return None
    return number if isinstance(number, int) else None
