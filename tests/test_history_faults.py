"""A bad registry, archive, disk or manifest: one clear line, and the history as it was."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tracemalloc

import pytest

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.cli import run
from fa4_asv.history.commits import load_commits
from fa4_asv.history.manifest import Manifest
from fa4_asv.history.registry import Registry
from fa4_asv.history.repository import resolve
from fa4_asv.history.sync import sync
from tests.support.registry_fake import FakeRegistry, sdist
from tests.support.upstream_fake import refs


@pytest.mark.fault(
    kind="an archive that leads out of its folder",
    inputs="`../../x`, `/etc/x`, `..` inside, another folder",
    happens="one line; manifest and history as they were",
)
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
    with pytest.raises(Fa4AsvError, match="not a plain file; refused"):
        sync(project, Registry())


TOP = "flash_attn_4-4.0.0b9"


def packed(*members: tuple[tarfile.TarInfo | str, bytes]) -> bytes:
    """A .tar.gz of these members, as small as gzip makes it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def claiming(kind: bytes, size: int) -> bytes:
    """An archive whose one header says that `size` bytes follow; 80 MB of zeros do."""
    info = tarfile.TarInfo(f"{TOP}/x.py")
    info.type, info.size = kind, size
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(80 << 20), 1)


def chained(count: int) -> bytes:
    """Headers that each announce a long name of the next."""
    link = tarfile.TarInfo("././@LongLink")
    link.type, link.size = tarfile.GNUTYPE_LONGNAME, 1
    return gzip.compress((link.tobuf(tarfile.GNU_FORMAT) + b"x".ljust(512, b"\0")) * count)


ARCHIVES = {
    "empty": (lambda: packed(), "holds no pyproject.toml with Python files: it is not FA4; refused"),
    "a folder only": (lambda: packed((folder_of(TOP), b"")), "holds no pyproject.toml"),
    "no Python": (
        lambda: packed((f"{TOP}/pyproject.toml", b"x")),
        "holds no pyproject.toml with Python files",
    ),
    "no pyproject": (lambda: packed((f"{TOP}/x.py", b"x")), "holds no pyproject.toml with Python files"),
    "no archive": (lambda: b"x" * 1000, "is not a readable archive"),
    "nothing at all": (lambda: b"", "is not a readable archive|holds no pyproject.toml"),
    "gzip of no archive": (lambda: gzip.compress(b"x" * 5000), "is not a readable archive"),
    "half of one": (lambda: sdist("4.0.0b9")[:-40], "is not a readable archive"),
    "a file of 80 MB": (lambda: claiming(tarfile.REGTYPE, 80 << 20), "unpacks to more than 64 MiB; refused"),
    "a folder that has a size": (lambda: claiming(tarfile.DIRTYPE, 80 << 20), "holds no pyproject.toml"),
    "a long name of 3 GB": (
        lambda: claiming(tarfile.GNUTYPE_LONGNAME, 3 << 30),
        "unpacks to more than 64 MiB",
    ),
    "a pax header of 3 GB": (lambda: claiming(tarfile.XHDTYPE, 3 << 30), "unpacks to more than 64 MiB"),
    "3000 files": (
        lambda: packed(*((f"{TOP}/{i}.py", b"") for i in range(3000))),
        "holds more than 2000 files",
    ),
    "3000 folders": (
        lambda: packed(*((folder_of(f"{TOP}/{i}"), b"") for i in range(3000))),
        "more than 2000 files",
    ),
    "5000 headers in a chain": (
        lambda: chained(5000),
        "is not a readable archive|holds more than 2000 files",
    ),
    "a name that is not UTF-8": (
        lambda: packed((f"{TOP}/\udcff.py", b"x")),
        r"'\\udcff.py', which is not a name|udcff",
    ),
    "a name with a line end": (
        lambda: packed((f"{TOP}/a\nb.py", b"x")),
        r"a\\nb.py', which is not a name of text",
    ),
    "a name that steers": (lambda: packed((f"{TOP}/\x1b[31m.py", b"x")), r"x1b.*which is not a name of text"),
    "git's own folder": (lambda: packed((f"{TOP}/.git/config", b"x")), "a folder of git's own"),
    "a device": (lambda: packed((device(), b"")), "not a plain file; refused"),
}


def folder_of(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info


def device() -> tarfile.TarInfo:
    info = tarfile.TarInfo(f"{TOP}/null")
    info.type = tarfile.CHRTYPE
    return info


@pytest.mark.fault(
    kind="an archive that is not a release",
    inputs="empty, half, 3 GB behind a header, 3000 members, names that are no text, a device",
    happens="one line; manifest and history as they were",
)
@pytest.mark.parametrize("kind", ARCHIVES)
def test_an_archive_that_is_no_release_is_one_line_and_is_not_recorded(project, registry, kind):
    make, message = ARCHIVES[kind]
    sync(project, Registry())
    before, manifest = refs(project), project.manifest.read_bytes()
    registry.add("4.0.0b9", "2026-05-01T00:00:00Z", make())
    tracemalloc.start()
    try:
        with pytest.raises(Fa4AsvError, match=message) as told:
            sync(project, Registry())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(told.value).isprintable()
    assert peak < 300 << 20
    assert (refs(project), project.manifest.read_bytes()) == (before, manifest)


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


@pytest.mark.fault(
    kind="a package index that fails",
    inputs="a wrong digest, no upload times, no page of an index, another file for a release, no network, an empty list",
    happens="one line; manifest and history as they were",
)
@pytest.mark.parametrize(
    ("fault", "message", "synced"),
    [
        (fault_corrupt, "flash_attn_4-4.0.0b10.tar.gz is corrupt: sha256", False),
        (fault_no_times, "the registry gives no upload-time for flash_attn_4-4.0.0b", False),
        (fault_malformed, "the registry failed while listing flash-attn-4", False),
        (fault_changed, "flash_attn_4-4.0.0b3.tar.gz changed on the registry", True),
        (fault_offline, "no network while listing flash-attn-4", True),
        (fault_empty, "the registry lists no sdist of flash-attn-4", True),
    ],
)
def test_a_bad_registry_is_one_line_and_loses_nothing(project, registry, capsys, fault, message, synced):
    if synced:
        sync(project, Registry())
    before = project.manifest.read_bytes() if synced else None
    fault(registry)
    with pytest.raises(SystemExit) as done:
        run(["history", "sync"])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fa4-asv:")]
    assert done.value.code == 2
    assert len(lines) == 1
    assert message in lines[0]
    assert (project.manifest.read_bytes() if synced else None) == before


@pytest.mark.fault(
    kind="a full disk",
    inputs="while the history is synced",
    happens="one line; manifest and history as they were",
)
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


@pytest.mark.fault(
    kind="a folder or an unreadable file in place of `releases.json`, `upstream.json`",
    inputs="a folder, mode 000",
    happens="one line",
)
def test_a_folder_or_an_unreadable_file_in_place_of_the_lists_is_one_line(project, registry, monkeypatch):
    """Mode 000 stops everybody but root, who runs tests in containers: then open refuses."""
    sync(project, Registry())
    project.upstream.mkdir()
    with pytest.raises(Fa4AsvError, match=r"upstream.json cannot be read: it is a folder"):
        load_commits(project.upstream)
    content = project.manifest.read_bytes()
    project.manifest.unlink()
    project.manifest.mkdir()
    with pytest.raises(Fa4AsvError, match=r"releases.json cannot be read: it is a folder"):
        sync(project, Registry())
    project.manifest.rmdir()
    project.manifest.write_bytes(content)

    def refused(path: object, *arguments: object, **more: object) -> int:
        if str(path).endswith("releases.json"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **more)

    real = os.open
    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(Fa4AsvError, match=r"releases.json cannot be read: Permission denied"):
        Manifest.load(project.manifest)
