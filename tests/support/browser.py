"""A headless Chromium, driven over its own pipe (the DevTools protocol); no driver package is needed."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


class Browser:
    """One page of a headless Chromium.

    Args:
        profile: an empty folder.
        patience_s: how long an answer or a condition is waited for.
    """

    def __init__(self, profile: Path, patience_s: float = 120.0) -> None:
        assert CHROMIUM is not None
        self._patience_s, self._numbers = patience_s, itertools.count(1)
        to_read, self._to = os.pipe()
        self._from, from_write = os.pipe()

        def wire() -> None:
            kept = [os.dup(to_read), os.dup(from_write)]
            os.dup2(kept[0], 3)
            os.dup2(kept[1], 4)

        self._process = subprocess.Popen(
            [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"],
            preexec_fn=wire, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read)
        os.close(from_write)
        self._held, self.errors, self.requested = b"", [], []
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **given: Any) -> dict[str, Any]:
        """A command's result; what happens meanwhile goes to ``errors`` and ``requested``."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": given}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._held:
                part = os.read(self._from, 1 << 16)
                if not part:
                    raise EOFError("the browser has ended")
                self._held += part
            raw, _, self._held = self._held.partition(b"\0")
            found = json.loads(raw)
            if found.get("id") == number:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']}")
                return found["result"]  # type: ignore[no-any-return]
            if found.get("method") == "Runtime.exceptionThrown":
                self.errors.append(found["params"]["exceptionDetails"]["text"])
            if found.get("method") == "Network.requestWillBeSent":
                self.requested.append(found["params"]["request"]["url"])

    def run(self, script: str) -> Any:
        """A JavaScript expression's value."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"]))
        return found["result"].get("value")

    def wait(self, script: str) -> Any:
        """The value as soon as it is true."""
        until = time.monotonic() + self._patience_s
        while not (value := self.run(script)):
            assert time.monotonic() < until, f"never true: {script}\n{self.run('document.body.innerText')}"
            time.sleep(0.1)
        return value

    def key(self, key: str) -> None:
        """Press a key, e.g. ``Tab`` or ``Enter``."""
        code = {"Tab": 9, "Enter": 13}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            given = text if kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **given)

    def look(self, width: int, *, dark: bool, file: Path | None = None) -> None:
        """Take on a width and a colour scheme, and a picture of the whole page where a file is given."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        if file is not None:
            time.sleep(0.3)
            shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
            file.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)
