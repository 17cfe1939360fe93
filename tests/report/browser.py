"""Headless Chromium, spoken to over its debugging pipe: no driver, no port, nothing to download.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 60.0

# The pipe's ends are expected at 3 (to the browser) and 4 (from it).
_START = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
_OPTIONS = (
    "--headless",
    "--no-sandbox",  # which cannot be had as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


def find() -> str | None:
    """Where a Chromium is, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One running Chromium."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._number = 0
        self._pending = b""
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        """What a method of the protocol answers; events that come before are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        os.write(
            self._write, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0"
        )
        deadline = time.monotonic() + SECONDS
        while True:
            answer = self._next(deadline, method)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def _next(self, deadline: float, waiting_for: str) -> dict[str, Any]:
        while b"\0" not in self._pending:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self._read, 1 << 20) if ready else b""
            if not chunk:
                raise AssertionError(f"the browser did not answer {waiting_for}")
            self._pending += chunk
        message, _, self._pending = self._pending.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer


@contextmanager
def running(executable: str, profile: Path) -> Iterator[Browser]:
    """A browser with its own profile; it and whatever it started are gone at the end."""
    (there_read, there_write), (here_read, here_write) = os.pipe(), os.pipe()
    child = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (there_read, here_write)]
    options = [*_OPTIONS, f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        [sys.executable, "-c", _START, *map(str, child), executable, *options, "about:blank"],
        pass_fds=child,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    for end in (there_read, here_write, *child):
        os.close(end)
    try:
        yield Browser(there_write, here_read)
    finally:
        os.close(there_write)  # which ends it; its helpers have its group
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(here_read)


class Tab:
    """A page of some width in some theme; `problems` are what it complained of or asked the network for."""

    def __init__(self, browser: Browser, width: int, height: int, theme: str = "light") -> None:
        self._browser = browser
        self.width = width
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._target = target
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Security"):
            self.call(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        self.call("Emulation.setDeviceMetricsOverride", **size, mobile=width < 500)
        self.prefer(theme)

    def call(self, method: str, **parameters: Any) -> Any:
        return self._browser.call(method, self._session, **parameters)

    def prefer(self, theme: str, media: str = "") -> None:
        """What the system prefers: light or dark, and still."""
        features = [
            {"name": "prefers-color-scheme", "value": theme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.call("Emulation.setEmulatedMedia", features=features, media=media)

    def open(self, page: Path, anchor: str = "") -> None:
        """Opens a file and waits until its script is done."""
        self.call("Page.navigate", url=page.as_uri() + anchor)
        self.until("document.readyState === 'complete' && location.protocol === 'file:'")

    def reload(self) -> None:
        """Opens the same page again."""
        self.ask("window.before = true")
        self.call("Page.reload")
        self.until("document.readyState === 'complete' && !window.before")

    def ask(self, expression: str) -> Any:
        """The value of an expression in the page; promises are awaited. An exception fails."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str, seconds: float = SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not self.ask(expression):
            assert time.monotonic() < deadline, f"never came true: {expression}"
            time.sleep(0.02)

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """Left, top, width and height of an element that is brought into view."""
        found = self.ask(
            f"""(() => {{ const e = document.querySelector({json.dumps(selector)});
            if (!e) return null;
            e.scrollIntoView({{block: "center"}});
            const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; }})()"""
        )
        assert found, f"no element {selector}"
        left, top, width, height = found
        assert width and height, f"{selector} is not shown"
        return left, top, width, height

    def click(self, selector: str, across: float = 0.5, down: float = 0.5) -> None:
        """Presses the mouse at a place of an element, given in shares of its size."""
        left, top, width, height = self.box(selector)
        place = {"x": left + across * width, "y": top + down * height}
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, **place, button="left", clickCount=1)

    def point(self, selector: str, across: float, down: float) -> None:
        """Moves the mouse to a place of an element."""
        left, top, width, height = self.box(selector)
        self.call(
            "Input.dispatchMouseEvent", type="mouseMoved", x=left + across * width, y=top + down * height
        )

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def press(self, key: str, code: int) -> None:
        text = {"text": "\r"} if key == "Enter" else {"text": " "} if key == " " else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)

    def problems(self) -> list[str]:
        """Messages of the console, exceptions, broken policies and requests that left the page."""
        return [
            text
            for event in self._browser.events
            if event.get("sessionId") == self._session
            for text in _complaints(event)
        ]

    def shot(self, file: Path, whole: bool = True) -> None:
        """A picture of the page, for people."""
        answer = self.call(
            "Page.captureScreenshot",
            format="png",
            captureBeyondViewport=whole,
            **({"clip": self._whole()} if whole else {}),
        )
        file.write_bytes(base64.b64decode(answer["data"]))

    def _whole(self) -> dict[str, float]:
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}

    def close(self) -> None:
        self._browser.call("Target.closeTarget", targetId=self._target)


def _complaints(event: dict[str, Any]) -> Iterator[str]:
    method, parameters = event["method"], event.get("params", {})
    if method == "Runtime.consoleAPICalled":
        yield f"console.{parameters['type']}: {parameters['args']}"
    elif method == "Runtime.exceptionThrown":
        yield f"exception: {parameters['exceptionDetails']}"
    elif method == "Log.entryAdded":
        yield f"log: {parameters['entry']}"
    elif method == "Network.loadingFailed":
        yield f"failed: {parameters}"
    elif method == "Network.requestWillBeSent":
        url = parameters["request"]["url"]
        if not url.startswith("data:") and parameters.get("type") != "Document":
            yield f"request: {url[:200]}"
