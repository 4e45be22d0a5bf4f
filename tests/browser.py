"""A real browser, spoken to over a pipe in its own protocol (Chrome DevTools), for what only one can tell of a page."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
# The browser reads commands from file descriptor 3 and answers on 4.
_LAUNCH = """
import os, sys
high = [os.dup2(int(fd), 100 + i) for i, fd in enumerate(sys.argv[1:3])]
os.dup2(high[0], 3)
os.dup2(high[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")


class Browser:
    """One headless page; use it as a context."""

    def __enter__(self) -> Browser:
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        assert CHROMIUM is not None

        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ]
        pipes = (str(to_browser), str(from_browser))
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-c", _LAUNCH, *pipes, CHROMIUM, *flags, "--remote-debugging-pipe"),
                f"--user-data-dir={self._profile.name}",
                "about:blank",
            ],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer, self._number, self.events = b"", 0, []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)
        self._profile.cleanup()

    def open(self, page: Path, width: int) -> None:
        """Show a file at a width in pixels; waits until all of it is loaded."""
        self.events.clear()
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        self._call("Page.navigate", url=page.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._receive()

    def ask(self, expression: str) -> Any:
        """The value of an expression of JavaScript in the page."""
        return self._call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get(
            "value"
        )

    def complaints(self) -> list[str]:
        """Errors of scripts and of loading since the page was opened."""
        found = [
            e["params"]["exceptionDetails"]["text"]
            for e in self.events
            if e["method"] == "Runtime.exceptionThrown"
        ]
        entries = [e["params"]["entry"] for e in self.events if e["method"] == "Log.entryAdded"]
        return found + [entry["text"] for entry in entries if entry["level"] == "error"]

    def requests(self) -> list[str]:
        """The addresses that the page asked for."""
        return [
            e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"
        ]

    def _call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if hasattr(self, "_session"):
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def _receive(self) -> Any:
        while b"\0" not in self._buffer:
            self._buffer += os.read(self._read, 1 << 16)
        text, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message


def assert_sound(browser: Browser, page: Path) -> None:
    """No error, no broken picture, nothing from the network, and readable on a phone and on a desk."""
    for width in (360, 1400):
        browser.open(page, width)
        problems = list(browser.complaints())
        problems += [
            f"asks for {url}" for url in browser.requests() if not url.startswith(("file:", "data:"))
        ]
        broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)"
        problems += [f"broken picture {source}" for source in browser.ask(broken)]
        wide = browser.ask("document.documentElement.scrollWidth")
        problems += [f"{wide} pixels wide at a width of {width}"] if wide > width else []
        small = """[...document.querySelectorAll("p, li, td, th, h1, h2, h3, summary, a")]
            .filter(e => parseFloat(getComputedStyle(e).fontSize) < 12).map(e => e.textContent)"""
        problems += [f"too small to read: {text}" for text in browser.ask(small)]
        assert not problems, problems
