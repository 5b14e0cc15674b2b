"""A headless Firefox, spoken to by its own protocol, Marionette: JSON over a socket, without a driver's package.

Where there is no Firefox the tests are skipped, also in CI: what is said of Chromium is tested there.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("firefox", "firefox-esr")
_START = 60.0  # seconds, on a busy machine
# What the pages and the browser complained of: kept by the browser, read with its own rights.
_COMPLAINTS = """return Services.console.getMessageArray().filter((each) => each instanceof Ci.nsIScriptError)
  .filter((each) => each.sourceName.startsWith("file:") || each.errorMessage.includes("Content-Security-Policy"))
  .map((each) => each.errorMessage)"""


class Firefox:
    """One window of a running Firefox."""

    def __init__(self, connection: socket.socket) -> None:
        self._stream = connection.makefile("rwb")
        self._read()  # its greeting
        self._number = 0
        self._call("WebDriver:NewSession", {"capabilities": {"alwaysMatch": {"pageLoadStrategy": "normal"}}})

    def opens(self, url: str) -> None:
        self._call("WebDriver:Navigate", {"url": url})

    def value(self, script: str) -> Any:
        """What a script returns in the page; a promise is awaited."""
        return self._call("WebDriver:ExecuteScript", {"script": script, "args": [], "sandbox": None})["value"]

    def complaints(self) -> list[str]:
        """Errors and refusals since the start."""
        self._call("Marionette:SetContext", {"value": "chrome"})
        try:
            return [str(each) for each in self.value(_COMPLAINTS)]
        finally:
            self._call("Marionette:SetContext", {"value": "content"})

    def _call(self, name: str, parameters: dict[str, Any]) -> Any:
        self._number += 1
        text = json.dumps([0, self._number, name, parameters]).encode()
        self._stream.write(b"%d:%s" % (len(text), text))
        self._stream.flush()
        _, _, error, result = self._read()
        assert error is None, error
        return result

    def _read(self) -> Any:
        digits = b""
        while (byte := self._stream.read(1)) != b":":
            digits += byte
        return json.loads(self._stream.read(int(digits)))


@contextmanager
def firefox(profile: Path) -> Iterator[Firefox]:
    """A Firefox with a new profile, no network, 1440 by 900."""
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip("no Firefox here; install it, as `apt-get install firefox-esr`")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    preferences = {"marionette.port": port, "network.proxy.type": 1, "app.update.enabled": False}
    preferences |= {"network.proxy.http": "127.0.0.1", "network.proxy.http_port": 9}  # nothing listens there
    preferences |= {"network.proxy.ssl": "127.0.0.1", "network.proxy.ssl_port": 9}
    lines = [f'user_pref("{name}", {json.dumps(value)});' for name, value in preferences.items()]
    (profile / "user.js").write_text("\n".join(lines), encoding="utf-8")
    command = [path, "--headless", "--no-remote", "--marionette", "--remote-allow-system-access"]
    command += ["--width=1440", "--height=900", "--profile", str(profile)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with _connected(port, process) as connection:
            connection.settimeout(_START)
            yield Firefox(connection)
    finally:
        process.terminate()
        process.wait(timeout=_START)


def _connected(port: int, process: subprocess.Popen[bytes]) -> socket.socket:
    end = time.monotonic() + _START
    while time.monotonic() < end and process.poll() is None:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=5)
        except OSError:
            time.sleep(0.1)
    raise AssertionError("Firefox did not start")
