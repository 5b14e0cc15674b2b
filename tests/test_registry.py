"""The registry's answers: what is taken, what is refused, and that each fault is one clear line."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.history.registry import Registry, index_url
from tests.support.registry_fake import FakeRegistry

JSON = "application/vnd.pypi.simple.v1+json"


def answering(
    monkeypatch: pytest.MonkeyPatch, fake: FakeRegistry, status: int, kind: str, body: bytes
) -> None:
    """Every request gets this answer; the index's address carries a password."""
    monkeypatch.setattr(fake, "answer", lambda handler: fake.send(handler, status, kind, body))
    monkeypatch.setenv("FA4_ASV_INDEX_URL", fake.url.replace("//", "//someone:secret@"))


def test_releases_are_major_4_sdists_in_upload_order(registry):
    result = Registry().releases()
    assert [release.version for release in result] == ["4.0.0b3", "4.0.0b4", "4.0.0b10"]
    assert result[0].uploaded == "2026-03-05T17:56:13.305233Z"
    assert all(len(release.sha256) == 64 and release.commit == "" for release in result)


def test_a_version_is_listed_once(registry, monkeypatch):
    page = registry.page()
    old = next(entry for entry in page["files"] if "4.0.0b3.tar" in entry["filename"])
    page["files"].append({**old, "filename": "flash_attn_4-4.0.0b3.zip"})
    page["files"].append({**old, "filename": "flash_attn_4-4.0.0b3-py3-none-any.whl"})
    monkeypatch.setattr(registry, "page", lambda: page)
    assert [release.version for release in Registry().releases()].count("4.0.0b3") == 1


def test_the_index_is_ours_then_pips_then_uvs_then_the_librarys(monkeypatch):
    from pypi_simple import PYPI_SIMPLE_ENDPOINT

    for name in ("FA4_ASV_INDEX_URL", "PIP_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.delenv(name, raising=False)
    assert index_url() == PYPI_SIMPLE_ENDPOINT
    for name in ("UV_DEFAULT_INDEX", "PIP_INDEX_URL", "FA4_ASV_INDEX_URL"):
        monkeypatch.setenv(name, f"http://{name.lower()}/simple")
        assert index_url() == f"http://{name.lower()}/simple"


@pytest.mark.parametrize(
    ("status", "kind", "body", "message"),
    [
        (404, "text/plain", b"", "the registry knows no flash-attn-4"),
        (401, "text/plain", b"", "401 Client Error"),
        (503, "text/plain", b"", "503 Server Error"),
        (200, "text/plain", b"x", "unsupported Content-Type 'text/plain'"),
        (200, "text/html", b"<html>please log in</html>", "lists no sdist of flash-attn-4"),
        (200, JSON, b"[]", "failed while listing"),
        (200, JSON, b"\xff{", "failed while listing"),
        (200, JSON, b'{"meta":{"api-version":"2.0"},"name":"flash-attn-4","files":[]}', "greater major"),
    ],
)
def test_an_unusable_answer_is_one_line_without_the_password(
    registry, monkeypatch, status, kind, body, message
):
    answering(monkeypatch, registry, status, kind, body)
    with pytest.raises(Fa4AsvError) as told:
        Registry().releases()
    assert message in str(told.value)
    assert "\n" not in str(told.value)
    assert "secret" not in str(told.value)


def test_a_missing_upload_time_is_named(registry):
    registry.without_upload_times = True
    with pytest.raises(Fa4AsvError, match="gives no upload-time for flash_attn_4-4.0.0b"):
        Registry().releases()


def test_no_network_and_a_dropped_connection(registry, monkeypatch):
    monkeypatch.setattr(registry, "answer", lambda handler: handler.connection.shutdown(socket.SHUT_RDWR))
    with pytest.raises(Fa4AsvError, match="no network while listing flash-attn-4"):
        Registry().releases()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("FA4_ASV_INDEX_URL", f"http://127.0.0.1:{port}/simple/")
    with pytest.raises(Fa4AsvError, match="no network while listing flash-attn-4"):
        Registry().releases()


def test_a_corrupt_download_names_file_expected_and_got_and_is_deleted(registry, tmp_path):
    registry.corrupt.add("4.0.0b10")
    client = Registry()
    release = client.releases()[-1]
    with pytest.raises(Fa4AsvError) as told:
        client.download(release, tmp_path)
    assert release.sdist in str(told.value)
    assert f"expected {release.sha256}" in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_a_download_cut_short_is_no_release(registry, monkeypatch, tmp_path):
    client = Registry()
    release = client.releases()[0]

    def half(handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        handler.wfile.write(b"half")

    monkeypatch.setattr(registry, "answer", half)
    with pytest.raises(Fa4AsvError, match=r"downloading flash_attn_4-4\.0\.0b3|is corrupt"):
        client.download(release, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_not_blamed_on_the_registry(registry, monkeypatch, tmp_path):
    client = Registry()
    release = client.releases()[0]

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(Fa4AsvError, match="^failed while downloading .*: No space left on device"):
        client.download(release, tmp_path)
