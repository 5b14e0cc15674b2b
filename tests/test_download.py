"""Answers of a registry that never end, are too large or lead astray: one line, and nothing of them is kept."""

from __future__ import annotations

import contextlib
import re
import time

import pytest

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.history.download import Limits
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.registry import Registry
from fa4_asv.history.sync import sync

HURRY = Limits(size=100_000, seconds=0.4, patience=0.1, rate=1)
JSON = "application/vnd.pypi.simple.v1+json"


def endless(piece: bytes, pause: float, head: bytes = b""):
    """An answer that goes on until the client has gone or 5 seconds are over."""

    def answer(handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + head)
        with contextlib.suppress(OSError):
            for _ in range(int(5 / pause) if pause else 1_000_000):
                handler.wfile.write(piece)
                handler.wfile.flush()
                time.sleep(pause)

    return answer


KINDS = {
    "silence": (endless(b"", 0.05, b"Content-Length: 9\r\n\r\n"), HURRY, "is slower than 1 bytes per second"),
    "a body by drops": (endless(b"x", 0.02, b"\r\n"), HURRY, r"takes longer than 0\.4 s|is slower than"),
    "headers without end": (endless(b"X-A: b\r\n", 0.02), HURRY, "is slower than 1 bytes per second: 0 in"),
    "a header without end": (endless(b"X", 0.02), HURRY, "is slower than 1 bytes per second: 0 in"),
    "a body without end": (
        endless(b"x" * 65536, 0, b"\r\n"),
        Limits(size=100_000),
        "has more than 100,000 bytes",
    ),
    "a slow one": (
        endless(b"x" * 5000, 0.02, b"\r\n"),
        Limits(seconds=60, patience=0.1, rate=1e9),
        "is slower than 1e[+]09 bytes per second",
    ),
}


@pytest.mark.fault(
    kind="an answer without end",
    inputs="bytes for ever, a byte a second, silence, of listing and download",
    happens="given up: 64 MiB, 10 minutes, or less than 2 KiB per second after 30 s",
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["listing", "downloading"])
def test_an_answer_without_end_is_given_up(registry, monkeypatch, tmp_path, kind, what):
    answer, limits, message = KINDS[kind]
    client = Registry(limits)
    release = Registry().releases()[0]
    client._packages = {release.version: next(iter(_packages().values()))}
    monkeypatch.setattr(registry, "answer", answer)
    with pytest.raises(Fa4AsvError, match=f"the registry failed while {what} .*{message}"):
        if what == "listing":
            client.releases()
        else:
            client.download(release, tmp_path)
    assert list(tmp_path.iterdir()) == []


def _packages():
    client = Registry()
    client.releases()
    return client._packages


def test_what_is_within_the_limits_is_read_whole(registry, tmp_path):
    client = Registry(Limits(size=100_000, seconds=60, patience=30, rate=1))
    release = client.releases()[-1]
    assert client.download(release, tmp_path).read_bytes() == registry.files[release.version]


@pytest.mark.fault(
    kind="a redirect that leads astray",
    inputs="`file:`, `ftp:`, `gopher:`, a closed port, a circle",
    happens="one line",
)
@pytest.mark.parametrize(
    "place", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://127.0.0.1:9/x", "{own}/round", "gopher:x"]
)
def test_a_page_or_redirect_that_leads_astray_is_one_line(registry, monkeypatch, tmp_path, place):
    place = place.format(own=registry.url)
    client = Registry()
    release = client.releases()[0]

    def redirect(handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", place)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    monkeypatch.setattr(registry, "answer", redirect)
    with pytest.raises(Fa4AsvError, match="while downloading flash_attn_4-4") as told:
        client.download(release, tmp_path)
    assert "\n" not in str(told.value)
    assert list(tmp_path.iterdir()) == []


def page_with(registry, **changes: object):
    """The registry's page, its last entry changed."""
    page = registry.page()
    page["files"][-1] |= changes
    return lambda: page


HOSTILE = {
    "year 9999": ({"upload-time": "9999-12-31T23:59:59Z"}, "was uploaded on 9999-12-31, expected a day from"),
    "year 9999, west of it": ({"upload-time": "9999-12-31T23:59:59-23:00"}, "was uploaded on 9999-12-31"),
    "year 1": ({"upload-time": "0001-01-01T00:00:00+23:00"}, "was uploaded on "),
    "before FA4": ({"upload-time": "2024-12-31T23:59:59Z"}, "was uploaded on 2024-12-31"),
    "no time": ({"upload-time": "soon"}, "failed while listing"),
    "a time that is a number": ({"upload-time": 5e300}, "failed while listing|was uploaded on"),
    "no sha256": ({"hashes": {"md5": "0" * 32}}, "gives no sha256"),
    "a short sha256": ({"hashes": {"sha256": "abc"}}, "gives no sha256"),
    "a version with a line end": (
        {"filename": "flash_attn_4-4.0.0b99\n.tar.gz"},
        "expected flash_attn_4|lists no",
    ),
    "a version of another spelling": (
        {"filename": "flash_attn_4-4.0.0-beta99.tar.gz"},
        "expected flash_attn_4-4.0.0b99.tar.gz",
    ),
    "another project": ({"filename": "flash_attn-4.0.0b99.tar.gz"}, "expected flash_attn_4-4.0.0b99.tar.gz"),
    "a local version": ({"filename": "flash_attn_4-4.0.0b99+.._.._x.tar.gz"}, "expected flash_attn_4|"),
    "a list": ({"filename": ["x"]}, "failed while listing"),
}


@pytest.mark.fault(
    kind="an index that lies",
    inputs="the year 9999, the year 1, odd names and digests",
    happens="one line; the manifest as it was",
)
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_index_never_reaches_the_manifest(project, registry, monkeypatch, kind):
    changes, message = HOSTILE[kind]
    sync(project, Registry())
    before = project.manifest.read_bytes()
    registry.add("4.0.0b99", "2026-05-01T00:00:00Z")
    monkeypatch.setattr(registry, "page", page_with(registry, **changes))
    try:
        sync(project, Registry())
    except Fa4AsvError as error:
        assert str(error).isprintable()
        assert re.search(message, str(error))
    else:
        assert kind in ("a local version", "a version with a line end"), "what is no version is passed over"
    assert project.manifest.read_bytes() == before


def test_words_of_a_yank_are_one_line(project, registry):
    registry.yanked["4.0.0b4"] = "\x1b[31mhangs\n\u202e" + "x" * 1000
    sync(project, Registry())
    message = Manifest.load(project.manifest).releases[1].yanked
    assert message.isprintable()
    assert len(message) == 300


@pytest.mark.fault(
    kind="an index's page that is nested",
    inputs="200,000 deep",
    happens="one line",
)
def test_a_page_200_000_deep_is_one_line(registry, monkeypatch):
    deep = b'{"meta":{"api-version":"1.1"},"name":"flash-attn-4","files":' + b"[" * 200_000
    monkeypatch.setattr(registry, "answer", lambda handler: registry.send(handler, 200, JSON, deep))
    with pytest.raises(Fa4AsvError, match="the registry failed while listing flash-attn-4"):
        Registry().releases()
