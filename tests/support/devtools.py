"""A headless Chromium for tests. It is driven through its DevTools pipe: no driver, no port, no network."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from select import select
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-default-browser-check"),
    *("--hide-scrollbars", "--remote-debugging-pipe"),
)
_PATIENCE_S = 60.0
_TWO_FRAMES = "new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))"


def browser_program() -> str | None:
    """The path of a browser that starts, or None. Some systems have a stub that only asks for another package."""
    return next((path for name in NAMES if (path := shutil.which(name)) is not None and _starts(path)), None)


def wanted_browser() -> str:
    """The path of a browser. Without one the test is skipped, or fails if BROWSER_TESTS is `required`."""
    program = browser_program()
    if program is not None:
        return program
    missing = f"no browser is installed: none of {', '.join(NAMES)} is on the path, and starts"
    if os.environ.get("BROWSER_TESTS") == "required":  # .ci/run sets this, so that no test is skipped unseen
        pytest.fail(missing)
    pytest.skip(missing)


def _starts(program: str) -> bool:
    try:
        asked = subprocess.run([program, "--version"], capture_output=True, timeout=_PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


class Page:
    """One tab of the browser. `events` has all that happened in it, such as requests and console messages."""

    def __init__(self, commands: BinaryIO, answers: BinaryIO) -> None:
        self._commands = commands
        self._answers = answers
        self._received = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one DevTools command; return its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return dict(answer["result"])

    def open(self, place: Path | str, *, width: int, dark: bool) -> None:
        """Load a file or an address as on a screen of this width and theme, and wait until it is loaded."""
        self._set_screen(width, 844)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.call("Page.navigate", url=place if isinstance(place, str) else place.resolve().as_uri())
        while not self.named("Page.loadEventFired"):
            self.events.append(self._next())

    def _set_screen(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """The value of a JavaScript expression, once it is neither false nor empty."""
        deadline = time.monotonic() + _PATIENCE_S
        while not (value := self.value(expression)):
            assert time.monotonic() < deadline, (
                f"in vain waited for {expression}: {self.value('document.body.innerText')}"
            )
            time.sleep(0.1)
        return value

    def press(self, key: str, code: int) -> None:
        """Press and release a key that writes no letter, such as Tab (9)."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def named(self, method: str) -> list[dict[str, Any]]:
        """The parameters of all events with this name since the page was opened."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def save_picture(self, path: Path) -> None:
        """Save the whole page as a PNG. The screen is made as tall as the page: what no screen shows may be undrawn."""
        width, height = self.value("[innerWidth, document.documentElement.scrollHeight]")
        self._set_screen(width, height)
        self.call("Runtime.evaluate", expression=_TWO_FRAMES, awaitPromise=True)
        answer = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(answer["data"]))

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + _PATIENCE_S
        while b"\0" not in self._received:
            ready, _, _ = select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(self._answers.fileno(), 1 << 20) if ready else b""
            assert piece, "the browser ended, or did not answer in time"
            self._received += piece
        line, _, self._received = self._received.partition(b"\0")
        return dict(json.loads(line))


@contextmanager
def open_browser(program: str) -> Iterator[Page]:
    """Start a browser with a new profile and one page; end it afterwards."""
    with TemporaryDirectory(prefix="vdvae_lr-browser-", ignore_cleanup_errors=True) as profile:
        yield from _opened(program, profile)


def _opened(program: str, profile: str) -> Iterator[Page]:
    command_out, command_in = os.pipe()
    answer_out, answer_in = os.pipe()
    # DevTools reads from descriptor 3 and writes to 4
    words = ["bash", "-c", f'exec "$@" 3<&{command_out} 4>&{answer_in}', "bash", program]
    process = subprocess.Popen(
        [*words, *_FLAGS, f"--user-data-dir={profile}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(command_out, answer_in),
    )
    os.close(command_out)
    os.close(answer_in)
    with open(command_in, "wb") as commands, open(answer_out, "rb") as answers:  # noqa: PTH123 # descriptors
        try:
            page = Page(commands, answers)
            yield page
            page._session = None
            page.call("Browser.close")
        finally:
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
