"""A bad registry, archive, disk or manifest: one clear line, and the history as it was."""

from __future__ import annotations

import io
import os
import tarfile

import pytest

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.cli import run
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.registry import Registry
from fa4_asv.history.repository import resolve
from fa4_asv.history.sync import sync
from tests.support.registry_fake import FakeRegistry, sdist
from tests.support.upstream_fake import refs


@pytest.mark.parametrize(
    "name", ["../../evil.py", "/etc/evil.py", "flash_attn_4-4.0.0b9/../../evil.py", "other/x.py"]
)
def test_an_archive_that_leaves_its_folder_is_refused(project, registry, name):
    sync(project, Registry())
    before = refs(project)
    registry.add("4.0.0b9", "2026-05-01T00:00:00Z", sdist("4.0.0b9", {name: b"evil"}))
    with pytest.raises(Fa4AsvError, match="outside of flash_attn_4-4.0.0b9/; refused"):
        sync(project, Registry())
    assert refs(project) == before
    assert not list(project.root.parent.rglob("evil.py"))


def test_a_link_in_an_archive_is_refused(project, registry):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        link = tarfile.TarInfo("flash_attn_4-4.0.0b9/x.py")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    registry.add("4.0.0b9", "2026-05-01T00:00:00Z", packed.getvalue())
    with pytest.raises(Fa4AsvError, match="no plain file; refused"):
        sync(project, Registry())


def fault_corrupt(fake: FakeRegistry) -> None:
    fake.corrupt.add("4.0.0b10")


def fault_no_times(fake: FakeRegistry) -> None:
    fake.without_upload_times = True


def fault_malformed(fake: FakeRegistry) -> None:
    fake.malformed = True


def fault_changed(fake: FakeRegistry) -> None:
    fake.files["4.0.0b3"] = sdist("4.0.0b3", {"flash_attn_4-4.0.0b3/new.py": b"changed"})


def fault_offline(fake: FakeRegistry) -> None:
    os.environ["FA4_ASV_INDEX_URL"] = "http://127.0.0.1:9/simple/"


def fault_empty(fake: FakeRegistry) -> None:
    fake.files.clear()


@pytest.mark.parametrize(
    ("fault", "words", "synced"),
    [
        (fault_corrupt, "flash_attn_4-4.0.0b10.tar.gz is corrupt: sha256", False),
        (fault_no_times, "the registry gives no upload-time for flash_attn_4-4.0.0b", False),
        (fault_malformed, "the registry failed while listing flash-attn-4", False),
        (fault_changed, "flash_attn_4-4.0.0b3.tar.gz changed on the registry", True),
        (fault_offline, "no network while listing flash-attn-4", True),
        (fault_empty, "the registry lists no sdist of flash-attn-4", True),
    ],
)
def test_a_bad_registry_is_one_line_and_loses_nothing(project, registry, capsys, fault, words, synced):
    if synced:
        sync(project, Registry())
    before = project.manifest.read_bytes() if synced else None
    fault(registry)
    with pytest.raises(SystemExit) as done:
        run(["history", "sync"])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fa4-asv:")]
    assert done.value.code == 2
    assert len(lines) == 1
    assert words in lines[0]
    assert (project.manifest.read_bytes() if synced else None) == before


def test_a_full_disk_changes_nothing(project, registry, monkeypatch):
    sync(project, Registry())
    before = project.manifest.read_bytes()
    registry.add("4.0.0b11", "2026-04-29T08:00:00Z")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Fa4AsvError, match="No space left on device; nothing was changed"):
        sync(project, Registry())
    assert project.manifest.read_bytes() == before
    assert not list(project.manifest.parent.glob(".*"))


def test_damaged_manifest_and_unknown_release(project, registry):
    sync(project, Registry())
    with pytest.raises(Fa4AsvError, match="unknown release or commit 'fa4-v9'"):
        resolve(project, "fa4-v9")
    with pytest.raises(Fa4AsvError, match="unknown release or commit '--help'"):
        resolve(project, "--help")
    project.manifest.write_text('{"format": 1}')
    with pytest.raises(Fa4AsvError, match="releases.json is damaged"):
        sync(project, Registry())


def test_a_hand_edited_manifest_is_noticed(project, registry):
    sync(project, Registry())
    text = project.manifest.read_text()
    commit = Manifest.load(project.manifest).releases[1].commit
    project.manifest.write_text(text.replace(commit, "f" * 40))
    with pytest.raises(Fa4AsvError, match="the manifest records ffff"):
        sync(project, Registry())
