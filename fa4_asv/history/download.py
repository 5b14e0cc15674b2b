"""HTTP answers under limits: of size, of the whole time, and of how slowly they may come.

A library's own time limit is for one silence: a server that sends a byte a minute never breaks it.
"""

from __future__ import annotations

import io
import threading
import time
from dataclasses import dataclass
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter

_SILENCE = 60.0  # seconds without a byte
_CHUNK = 4096  # a read waits until it is full: small, so that what came is counted


@dataclass(frozen=True)
class Limits:
    """`size` in bytes; `seconds` for all of an answer; after `patience` seconds at least `rate` bytes
    per second must have come on average."""

    # FA4's archives have 0.5 MB, its page 40 KB; the largest page that is asked for (a CUDA package's) has 1 MB.
    size: int = 64 << 20
    seconds: float = 600.0
    patience: float = 30.0
    rate: float = 2048.0


class OverLimit(requests.RequestException):
    """An answer that is too large, too slow or takes too long; the message says which."""


class LimitedAdapter(HTTPAdapter):
    """Reads an answer whole, under limits, before anybody sees it. Raises OverLimit, and what requests raises."""

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self._limits = limits

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """See HTTPAdapter.send."""
        options = {**kwargs, "stream": True, "timeout": _SILENCE}
        answer = _Answer(lambda: super(LimitedAdapter, self).send(request, *args, **options), self._limits)
        return answer.wait()


class _Answer:
    """One answer, read by a thread: what blocks in it (a name, a header, a body) cannot hold the one that waits."""

    def __init__(self, ask: Any, limits: Limits) -> None:
        self._ask, self._limits = ask, limits
        self._received, self._given_up = 0, False
        self._done = threading.Event()
        self._response: requests.Response | None = None
        self._error: BaseException | None = None

    def wait(self) -> requests.Response:
        threading.Thread(target=self._read, daemon=True).start()
        started = time.monotonic()
        try:
            while not self._done.wait(min(0.5, self._limits.seconds / 4)):
                self._check(time.monotonic() - started)
        finally:
            self._given_up = True  # the thread ends at its next chunk
        if self._error is not None:
            raise self._error
        if self._response is None:
            raise OverLimit("the answer ended without a word")
        return self._response

    def _check(self, took: float) -> None:
        if took > self._limits.seconds:
            raise OverLimit(f"the answer takes longer than {self._limits.seconds:g} s")
        if took > self._limits.patience and self._received < self._limits.rate * took:
            raise OverLimit(
                f"the answer is slower than {self._limits.rate:g} bytes per second: {self._received} in {took:.0f} s"
            )

    def _read(self) -> None:
        try:
            response = self._ask()
            sent = response.raw
            try:
                response.raw = io.BytesIO(self._body(response))
            except urllib3.exceptions.HTTPError as error:  # it broke off
                raise requests.exceptions.ChunkedEncodingError(error) from None
            finally:
                sent.close()
            self._response = response
        except BaseException as error:
            self._error = error
        finally:
            self._done.set()

    def _body(self, response: requests.Response) -> bytes:
        """The body as it was sent. Raises OverLimit where it is larger than may be; no more than that is held."""
        parts: list[bytes] = []
        # Not decompressed: nobody asked for that, and a small answer could become a large one.
        while not self._given_up and (part := response.raw.read(_CHUNK, decode_content=False)):
            parts.append(part)
            self._received += len(part)
            if self._received > self._limits.size:
                raise OverLimit(f"the answer has more than {self._limits.size:,} bytes")
        return b"".join(parts)


def limited_session(limits: Limits) -> requests.Session:
    """A session of requests whose every answer, also behind a redirect, is read under limits."""
    session = requests.Session()
    session.headers.update({"User-Agent": "fa4-asv", "Accept-Encoding": "identity"})
    for scheme in ("http://", "https://"):
        session.mount(scheme, LimitedAdapter(limits))
    return session
