"""A headless Chromium in; what it thinks of a page (errors, requests, pictures, widths) out.

It is spoken to over a pair of pipes in the DevTools protocol, so that nothing but the browser is
needed.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
MISSING = "no Chromium here: as root, .ci/run installs Debian's; else apt-get install chromium"
PATIENCE = 120.0
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
_BECOME = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for number, end in zip((3, 4), ends):
    os.dup2(end, number)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Chromium finds the pipes at descriptors 3 and 4."""

_LOOK = """({
  missing: [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src),
  overflow: document.documentElement.scrollWidth - window.innerWidth,
  links: [...document.links].map(a => a.href),
  paper: getComputedStyle(document.body).backgroundColor,
})"""


@dataclass
class Seen:
    """What came of opening a page."""

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    overflow: int = 0
    paper: str = ""


class Browser:
    """One Chromium with one tab."""

    def __init__(self) -> None:
        program = next(filter(None, map(shutil.which, NAMES)), None)
        if program is None:
            pytest.skip(MISSING)
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        ends = (theirs_in, theirs_out)
        command = [sys.executable, "-c", _BECOME, *map(str, ends), program, *_FLAGS]
        self._process = subprocess.Popen(
            [*command, f"--user-data-dir={self._profile.name}", "about:blank"], pass_fds=ends,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._number = 0
        self._buffer = b""
        self._events: list[dict[str, Any]] = []
        targets = self._call("Target.getTargets", session="")["targetInfos"]
        page = next(one["targetId"] for one in targets if one["type"] == "page")
        attached = self._call("Target.attachToTarget", session="", targetId=page, flatten=True)
        self._session = str(attached["sessionId"])
        for domain in ("Page", "Network", "Log", "Runtime"):
            self._call(f"{domain}.enable")

    def close(self) -> None:
        """End the browser."""
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        self._profile.cleanup()

    def open(self, page: Path, *, width: int = 1300, dark: bool = False) -> Seen:
        """Open a page and look at it."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=1000, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        self._events.clear()
        self._call("Page.navigate", url=page.resolve().as_uri())
        self._wait_for("Page.loadEventFired")
        looked = self._call("Runtime.evaluate", expression=_LOOK, returnByValue=True)
        found = looked["result"]["value"]
        seen = Seen(missing=found["missing"], overflow=found["overflow"], paper=found["paper"])
        for event in self._events:
            _take_in(seen, event)
        return seen

    def _call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        asked: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        session = self._session if session is None else session
        if session:
            asked["sessionId"] = session
        os.write(self._out, json.dumps(asked).encode() + b"\0")
        while True:
            message = self._read()
            if message.get("id") == self._number:
                assert "error" not in message, f"{method}: {message['error']}"
                return dict(message["result"])
            self._events.append(message)

    def _wait_for(self, method: str) -> None:
        while not any(event.get("method") == method for event in self._events):
            self._events.append(self._read())

    def _read(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(deadline - time.monotonic(), 0))
            data = os.read(self._in, 1 << 20) if ready else b""
            assert data, "Chromium has gone, or says nothing"
            self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(text))


def _take_in(seen: Seen, event: dict[str, Any]) -> None:
    method, parameters = event.get("method"), event.get("params", {})
    if method == "Network.requestWillBeSent":
        url = parameters["request"]["url"]
        seen.requests += [] if url.startswith("data:") else [url]
    elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
        seen.errors.append(parameters["entry"]["text"])
    elif method == "Runtime.exceptionThrown":
        seen.errors.append(str(parameters["exceptionDetails"]))
    elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning"):
        seen.errors.append(str(parameters["args"]))
