"""What travels to a machine without a network: packed from a made-up history, joined, laid and run there."""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from fa4_asv.backfill.airgap import contents, trees, unpack
from fa4_asv.backfill.airgap.contents import Order, write_pack
from fa4_asv.backfill.airgap.parts import Entry, members, write_index, write_parts
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.machine import python_tag
from fa4_asv.base.project import Project
from fa4_asv.history import toolchain
from fa4_asv.history.toolchain import Lock, install, packed_packages

ROOT = Path(__file__).parent.parent
RELEASES = ("4.0.0b36", "4.0.0b18")


def lay_made_up(lock: Lock, *where: str) -> None:
    """Packages with the files that matter: a large one that all share, one of their own, the plain compiler."""
    folder = Path(where[where.index("--target") + 1])
    dsl = folder / "nvidia_cutlass_dsl"
    for path in (dsl / "_ir.cu13.so", dsl / "_ir.cu12.so", dsl / "cu12" / "runtime.so", folder / "einops.py"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"the same in all")
    (folder / "version.py").write_text(lock.packages["nvidia-cutlass-dsl"])
    (folder / "bin").mkdir()
    (folder / "bin" / "tool").write_text("#!/bin/sh\n")
    (folder / "bin" / "tool").chmod(0o755)
    (folder / ".lock").touch()


def lay_suite(requirements: Path, folder: Path, python: str) -> None:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "uv").write_text("uv")


def zip_zstandard(requirements: Path, folder: Path, python: str) -> Path:
    """The zstandard that the tests run with."""
    made, package = folder / "zstandard.zip", Path(zstandard.__file__).parent
    with zipfile.ZipFile(made, "w") as archive:
        for path in package.glob("*.*"):
            archive.write(path, f"zstandard/{path.name}")
    return made


def made_up(patch: pytest.MonkeyPatch) -> None:
    """What is laid and installed is a few small files; the history is there."""
    patch.setattr(contents, "has_history", lambda project: True)
    patch.setattr(trees, "lay_packages", lay_made_up)
    patch.setattr(trees, "lay_suite", lay_suite)
    patch.setattr(trees, "zip_zstandard", zip_zstandard)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `checkout`, committed, its history does not compress, and `pack`, which is made of it.

    Both flavours of two releases are in it, in parts of 1 MiB.
    """
    folder = tmp_path_factory.mktemp("template")
    project = Project(folder / "checkout")
    project.root.mkdir()
    shutil.copy(ROOT / "asv.conf.json", project.root)
    shutil.copytree(ROOT / "history", project.root / "history")
    (project.root / ".gitignore").write_text(".asv/\n")
    subprocess.run(["git", "init", "-q"], cwd=project.root, check=True)
    commit_all(project)
    (project.repository / "refs" / "heads").mkdir(parents=True)
    (project.repository / "HEAD").write_bytes(os.urandom(5 << 19))
    order = Order(RELEASES, (), ("cu12", "cu13"), python=python_tag(), part=1 << 20)
    with pytest.MonkeyPatch.context() as patch:
        made_up(patch)
        write_pack(project, order, folder / "pack")
    return folder


@pytest.fixture
def checkout(template: Path, project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of the template's checkout."""
    shutil.copytree(template / "checkout", project.root, dirs_exist_ok=True, symlinks=True)
    made_up(monkeypatch)
    return project


@pytest.fixture
def packed(template: Path, checkout: Project, tmp_path: Path) -> Path:
    """A copy of the template's pack."""
    return shutil.copytree(template / "pack", tmp_path / "pack")


def error_line(capsys: pytest.CaptureFixture[str], code: int) -> str:
    """The one line of an error, with exit code 2."""
    line = capsys.readouterr().err
    assert (code, line.count("\n")) == (2, 1)
    return line


def join(folder: Path, work: Path) -> int:
    return unpack.main(["join", str(folder), "--work", str(work)])


def test_toolchains_arrive_as_they_were_and_share_what_is_the_same(packed: Path, tmp_path: Path):
    assert len(list(packed.glob("pack.part-*"))) == 3
    inside = unpack.unpack(packed, tmp_path / "work")
    paths = sorted((inside / "asv" / "packages").iterdir())
    assert [folder.name.split("-")[0] for folder in paths] == ["cu12", "cu12", "cu13", "cu13"]
    versions = {(folder / "version.py").read_text() for folder in paths}
    assert len(versions) == 2, "two compilers, each under two flavours"
    shared = {path.stat().st_ino for path in inside.rglob("*.so")} | {
        (folder / "einops.py").stat().st_ino for folder in paths
    }
    assert len(shared) == 1
    assert all(os.access(folder / "bin" / "tool", os.X_OK) for folder in paths)
    assert not os.access(paths[0] / "einops.py", os.X_OK)
    assert not list(inside.rglob(".lock"))
    assert (inside / "asv" / "history.git" / "refs" / "heads").is_dir(), "git needs the empty folder"


def test_a_cu13_toolchain_leaves_out_the_plain_compiler(packed: Path, tmp_path: Path):
    inside = unpack.unpack(packed, tmp_path / "work")
    for folder in (inside / "asv" / "packages").iterdir():
        names = {path.name for path in folder.rglob("*.so")}
        plain = {"_ir.cu12.so", "runtime.so"} if folder.name.startswith("cu12") else set()
        assert names == {"_ir.cu13.so"} | plain


def test_a_content_is_packed_once_beside_its_like(tmp_path: Path):
    entries = []
    for name, text in (("a/x.py", "1"), ("a/y.cu12.so", "2"), ("b/x.py", "1"), ("b/y.cu13.so", "3")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        entries.append(Entry(name, tmp_path / name))
    (tmp_path / "b" / "x.py").chmod(0o755)
    result = [(member.name, member.islnk()) for member, _ in members(entries)]
    assert result == [("a/x.py", False), ("b/x.py", False), ("a/y.cu12.so", False), ("b/y.cu13.so", False)]
    (tmp_path / "b" / "x.py").chmod(0o644)
    linked = {member.name: member.linkname for member, _ in members(entries) if member.islnk()}
    assert linked == {"b/x.py": "a/x.py"}


def test_the_same_files_make_the_same_pack(packed: Path, checkout: Project, tmp_path: Path):
    order = Order(RELEASES, (), ("cu12", "cu13"), python=python_tag(), part=1 << 20)
    again = write_pack(checkout, order, tmp_path / "again")
    assert again["sha256"] == json.loads((packed / "pack.json").read_text())["sha256"]


def test_parts_come_in_any_order_and_more_than_once(packed: Path, tmp_path: Path, capsys):
    work, arriving = tmp_path / "work", tmp_path / "arriving"
    names = ["pack.part-002", "pack.part-000", "pack.part-002", "zstandard.zip", "pack.part-001"]
    for number, name in enumerate(names):
        arriving.mkdir()
        for each in (name, *(["pack.json"] if number == 0 else [])):
            shutil.copy(packed / each, arriving)
        assert join(arriving, work) == 0
        shutil.rmtree(arriving)
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "missing: pack.part-000, pack.part-001, zstandard.zip"
    assert told[1] == told[2] == "missing: pack.part-001, zstandard.zip"
    assert told[-1] == "complete"
    inside = unpack.unpack(tmp_path, work)
    assert (inside / "releases.txt").read_text().split() == list(RELEASES)
    assert not (work / "parts").exists(), "what was unpacked takes no second place"
    assert join(packed, work) == 0
    assert capsys.readouterr().out == "unpacked already\n"


@pytest.mark.fault(
    kind="a damaged part of a pack",
    inputs="one bit",
    happens="named; the others are taken",
)
def test_a_damaged_part_is_named_and_the_whole_ones_are_taken(packed: Path, tmp_path: Path, capsys):
    part = packed / "pack.part-001"
    whole = part.read_bytes()
    part.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    line = error_line(capsys, join(packed, tmp_path / "work"))
    assert line == f"airgap: {part} is damaged: it is not what was packed; carry it again\n"
    assert {path.name for path in (tmp_path / "work" / "parts").iterdir()} == {
        "pack.json",
        "pack.part-000",
        "pack.part-002",
        "zstandard.zip",
    }
    with pytest.raises(unpack.Failure, match=r"pack.part-001 is damaged"):
        unpack.unpack(packed, tmp_path / "other")
    part.write_bytes(whole)
    assert join(packed, tmp_path / "work") == 0


@pytest.mark.parametrize("name", ["pack.part-001", "zstandard.zip"])
def test_a_missing_part_is_named(packed: Path, tmp_path: Path, capsys, name):
    (packed / name).unlink()
    code = unpack.main(["lay", "--from", str(packed), "--work", str(tmp_path / "work")])
    assert f"airgap: {name} of 4 files of the pack missing in {packed}" in error_line(capsys, code)
    assert not (tmp_path / "work" / "pack").exists()


@pytest.mark.fault(
    kind="a pack's index that is damaged",
    inputs="half, absent, another digest, another format, `..`",
    happens="one line",
)
def test_an_index_that_is_damaged_or_of_another_pack_is_said(packed: Path, tmp_path: Path, capsys):
    assert join(packed, tmp_path / "work") == 0
    text = (packed / "pack.json").read_text()
    capsys.readouterr()
    (packed / "pack.json").write_text(text.replace('"sha256": "', '"sha256": "0', 1))
    assert "holds parts of another pack; name another --work" in error_line(
        capsys, join(packed, tmp_path / "work")
    )
    (packed / "pack.json").write_text(text[:-20])
    assert "pack.json is damaged" in error_line(capsys, join(packed, tmp_path / "other"))
    (packed / "pack.json").write_text(text.replace("pack.part-000", "../part-000"))
    assert "which is not a plain name" in error_line(capsys, join(packed, tmp_path / "other"))
    (packed / "pack.json").write_text(text.replace('"format": 1', '"format": 2'))
    assert "the pack has format 2" in error_line(capsys, join(packed, tmp_path / "other"))
    (packed / "pack.json").unlink()
    assert "no pack.json in" in error_line(capsys, join(packed, tmp_path / "other"))


def test_parts_in_a_wrong_order_are_not_what_was_packed(tmp_path: Path):
    """Each part is whole, the whole is not."""
    facts = pack_of(tmp_path, [tarfile.TarInfo("a")])
    facts["sha256"] = "0" * 64
    write_index(tmp_path, facts)
    with pytest.raises(unpack.Failure, match="the joined parts are not what was packed"):
        unpack.unpack(tmp_path, tmp_path / "work")
    assert not (tmp_path / "work" / "pack").exists()


def pack_of(folder: Path, wanted: list[tarfile.TarInfo]) -> dict[str, object]:
    """A pack in one part that holds empty members of any kind."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for member in wanted:
            tar.addfile(member)
    (folder / "part").write_bytes(zstandard.ZstdCompressor().compress(stream.getvalue()))
    zipped = zip_zstandard(folder, folder, "")
    digest = unpack.digest_of(folder / "part")
    return {
        "python": python_tag(),
        "sha256": digest,
        "parts": [{"name": "part", "bytes": 1, "sha256": digest}],
        "beside": {zipped.name: unpack.digest_of(zipped)},
        "unpacked": 1,
    }


@pytest.mark.fault(
    kind="a pack's archive that leads out of its folder",
    inputs="`..`, absolute names, backslashes, nothing",
    happens="one line; nothing is laid",
)
@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b", "./a", "a//b", "a\\b", ""])
def test_a_member_outside_the_folder_is_refused(tmp_path: Path, name):
    with pytest.raises(unpack.Failure, match="would be laid outside"):
        unpack.inside_of(tmp_path, name)


@pytest.mark.fault(
    kind="a pack's archive with other members",
    inputs="a symbolic link, a pipe, hard links that lead out or nowhere",
    happens="one line; nothing is laid",
)
@pytest.mark.parametrize(
    ("kind", "link", "message"),
    [
        (tarfile.SYMTYPE, "/etc", "neither file nor folder"),
        (tarfile.FIFOTYPE, "", "neither file nor folder"),
        (tarfile.LNKTYPE, "../secret", "would be laid outside"),
        (tarfile.LNKTYPE, "nosuch", "cannot be unpacked"),
    ],
)
def test_nothing_but_files_folders_and_links_within_is_laid(tmp_path: Path, kind, link, message):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "secret").write_text("mine")
    member = tarfile.TarInfo("a")
    member.type, member.linkname = kind, link
    write_index(tmp_path, pack_of(tmp_path, [member]))
    with pytest.raises(unpack.Failure, match=message):
        unpack.unpack(tmp_path, tmp_path / "work")
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["secret"]


def index_of(change: Callable[[dict], object]) -> bytes:
    digest = "0" * 64
    part = {"name": "part", "bytes": 1, "sha256": digest}
    index = {
        "format": 1,
        "python": python_tag(),
        "sha256": digest,
        "parts": [part],
        "beside": {},
        "unpacked": 1,
    }
    change(index)
    return json.dumps(index).encode()


ODD_INDEXES = {
    "parts is a number": index_of(lambda index: index.update(parts=5)),
    "a part without a digest": index_of(lambda index: index["parts"][0].pop("sha256")),
    "a part's name is a list": index_of(lambda index: index["parts"][0].update(name=["x"])),
    "beside is a list": index_of(lambda index: index.update(beside=["x"])),
    "the size is text": index_of(lambda index: index.update(unpacked="1")),
    "the digest is a table": index_of(lambda index: index.update(sha256={})),
    "a list": b"[]",
    "nested": b"[" * 200_000,
    "no UTF-8": b"\xff",
    "17 MB": b" " * (17 << 20),
    "a digest with an escape sequence": index_of(lambda index: index.update(format="\x1b[2J")),
}


@pytest.mark.fault(
    kind="a pack's index of another shape",
    inputs="other types, missing fields, nested 200,000 deep, 17 MB, no UTF-8, a pipe",
    happens="one line, at once",
)
@pytest.mark.parametrize("kind", [*ODD_INDEXES, "a pipe"])
def test_an_index_of_another_shape_is_one_line(tmp_path: Path, capsys, kind):
    path = tmp_path / "pack.json"
    if kind == "a pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(ODD_INDEXES[kind])
    line = error_line(capsys, join(tmp_path, tmp_path / "work"))
    assert line[:-1].isprintable() and "pack" in line


@pytest.mark.fault(
    kind="a pack that unpacks to more than it says",
    inputs="a member of 3 GB behind `unpacked: 0`, a package of 65 MiB beside it",
    happens="one line; what was laid is removed",
)
@pytest.mark.parametrize("where", ["pack", "beside"])
def test_a_pack_that_unpacks_to_more_than_it_says_is_refused(tmp_path: Path, where):
    member = tarfile.TarInfo("a")
    index = pack_of(tmp_path, [])
    if where == "pack":
        member.size = 3 << 30  # its content need not be there: the header is enough
        (tmp_path / "part").write_bytes(zstandard.ZstdCompressor().compress(member.tobuf()))
        index["sha256"] = index["parts"][0]["sha256"] = unpack.digest_of(tmp_path / "part")
    else:
        (name,) = index["beside"]
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x", bytes(65 << 20))
        index["beside"][name] = unpack.digest_of(tmp_path / name)
    write_index(tmp_path, index)
    with pytest.raises(unpack.Failure, match="more than"):
        unpack.unpack(tmp_path, tmp_path / "work")
    assert not (tmp_path / "work" / "pack").exists()


def test_a_file_laid_before_is_not_written_through(tmp_path: Path):
    write_index(tmp_path, pack_of(tmp_path, [tarfile.TarInfo("a"), tarfile.TarInfo("a")]))
    with pytest.raises(unpack.Failure, match="cannot be unpacked"):
        unpack.unpack(tmp_path, tmp_path / "work")


def test_no_room_is_said_before_anything_is_written(packed: Path, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: argparse.Namespace(free=1_000_000))
    work = tmp_path / "work"
    assert "MB are needed in" in error_line(capsys, join(packed, work))
    code = unpack.main(["lay", "--from", str(packed), "--work", str(work)])
    assert "and 1 MB are free; make room or name another --work" in error_line(capsys, code)
    assert not (work / "pack").exists()


def test_a_pack_for_another_python_is_said(packed: Path, tmp_path: Path):
    text = (packed / "pack.json").read_text()
    (packed / "pack.json").write_text(text.replace(f'"python": "{python_tag()}"', '"python": "3.9"'))
    with pytest.raises(unpack.Failure, match=r"the pack is for Python 3.9, this is 3\."):
        unpack.unpack(packed, tmp_path / "work")


def test_a_toolchain_that_was_brought_is_linked_not_installed(project: Project, monkeypatch):
    monkeypatch.setenv("UV_OFFLINE", "1")
    lock = Lock(Path("4.0.0b36.txt"), "cu13", "day", {"nvidia-cutlass-dsl": "4.8.1"})
    brought = packed_packages(project.work, lock, python_tag())
    (brought / "cutlass").mkdir(parents=True)
    (brought / "cutlass" / "__init__.py").write_text("__version__ = '4.8.1'")
    monkeypatch.setattr(toolchain, "lay_packages", lambda *arguments: pytest.fail("installed"))
    python = install(project, lock, Path(sys.executable))
    code = "import cutlass, click; print(cutlass.__version__)"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "4.8.1\n"
    (laid,) = python.parent.parent.rglob("cutlass/__init__.py")
    assert laid.samefile(brought / "cutlass" / "__init__.py")


def there(packed: Path, work: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """airgap.py as a person starts it, with nothing of the suite to import."""
    command = [sys.executable, "-I", str(packed / "airgap.py"), *arguments]
    command[4:4] = ["--from", str(packed), "--work", str(work)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_command_runs_in_the_laid_checkout_and_what_it_measured_is_written(packed: Path, tmp_path: Path):
    work, output = tmp_path / "work", tmp_path / "out" / "results.tar.gz"
    code = (
        "import os, sys; from pathlib import Path; f = Path('results/box'); f.mkdir(parents=True);"
        "(f / 'a.json').write_text('{}'); (f / '.a.json.tmp').write_text('half');"
        "j = Path('.asv/sweeps/box/one'); j.mkdir(parents=True); (j / 'rounds.jsonl').write_text('{}');"
        "print(os.environ['UV_OFFLINE'], Path('.asv/history.git/HEAD').stat().st_size, sys.prefix); sys.exit(3)"
    )
    done = there(packed, work, "exec", "-o", str(output), "--", "python", "-c", code)
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.split() == ["1", str(5 << 19), str(work / "venv")]
    with tarfile.open(output) as tar:
        # What came with the project does not come back, such as history/.
        assert tar.getnames() == [".asv/sweeps/box/one/rounds.jsonl", "results/box/a.json"]
    # Unpacked once: without the parts it goes on.
    for part in packed.glob("pack.*"):
        part.unlink()
    assert there(packed, work, "exec", "--", "true").returncode == 0


def commit_all(checkout: Project) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["add", "."], [*identity, "commit", "-q", "-m", "more"]):
        subprocess.run(["git", *command], cwd=checkout.root, check=True)


def test_a_newer_project_is_laid_over_the_old_and_figures_stay(
    packed: Path, checkout: Project, tmp_path: Path
):
    work, output = tmp_path / "work", tmp_path / "results.tar.gz"
    here, laid = checkout.root / "results" / "box", work / "checkout" / "results" / "box"
    here.mkdir(parents=True)
    for name in ("a.json", "b.json"):
        (here / name).write_text("recorded here")
    commit_all(checkout)
    contents.write_project(checkout, packed)
    assert there(packed, work, "lay").stdout == f"{work / 'checkout'}\n"
    (laid / "a.json").write_text("recorded here, extended there")
    (laid / "new.json").write_text("measured there")
    (checkout.root / "new.py").write_text("new")
    (here / "b.json").write_text("recorded here later")
    commit_all(checkout)
    contents.write_project(checkout, packed)
    assert there(packed, work, "exec", "-o", str(output), "--", "true").returncode == 0
    assert (work / "checkout" / "new.py").exists()
    code = "import pynvml, sys; print(pynvml.__file__)"
    told = there(packed, work, "exec", "--", sys.executable, "-c", code)
    assert told.stdout.strip() == str(work / "checkout" / "pynvml.py"), told.stderr
    assert [(laid / name).read_text() for name in ("a.json", "b.json", "new.json")] == [
        "recorded here, extended there",
        "recorded here later",
        "measured there",
    ]
    with tarfile.open(output) as tar:
        assert tar.getnames() == ["results/box/a.json", "results/box/new.json"]
    (packed / "project.tar.gz").write_bytes((packed / "project.tar.gz").read_bytes()[:5000])
    done = there(packed, work, "lay")
    assert done.returncode == 2 and "project.tar.gz is damaged" in done.stderr


def test_a_checkout_that_is_there_is_used(packed: Path, tmp_path: Path):
    other = tmp_path / "mine"
    other.mkdir()
    done = there(packed, tmp_path / "work", "lay", "--checkout", str(other))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "is not a checkout of the suite: it has no asv.conf.json" in done.stderr
    (other / "asv.conf.json").write_text("{}")
    for _ in range(2):
        assert there(packed, tmp_path / "work", "lay", "--checkout", str(other)).returncode == 0
    assert (other / ".asv" / "history.git" / "HEAD").is_file()
    (other / "results" / "box").mkdir(parents=True)
    (other / "results" / "box" / "a.json").touch()
    output = tmp_path / "out.tar.gz"
    arguments = ["exec", "--checkout", str(other), "-o", str(output), "--", "true"]
    assert there(packed, tmp_path / "work", *arguments).returncode == 0
    with tarfile.open(output) as tar:
        assert tar.getnames() == ["results/box/a.json"]
    (other / ".asv").unlink()
    (other / ".asv" / "cache").mkdir(parents=True)
    done = there(packed, tmp_path / "work", "lay", "--checkout", str(other))
    assert done.returncode == 2 and "is a folder with contents of its own" in done.stderr


def test_a_command_that_is_not_there_is_said(packed: Path, tmp_path: Path):
    done = there(packed, tmp_path / "work", "exec", "--", "nosuch")
    assert (done.returncode, done.stderr) == (2, "airgap: cannot run 'nosuch': No such file or directory\n")
    done = there(packed, tmp_path / "work", "exec")
    assert (done.returncode, done.stderr) == (2, "airgap: exec needs a command after --\n")


def test_a_sweep_that_is_terminated_leaves_what_it_finished(packed: Path, tmp_path: Path):
    """`sweep` is `fa4-asv sweep` of the laid checkout: here a module of that name that never ends."""
    work, output = tmp_path / "work", tmp_path / "results.tar.gz"
    assert there(packed, work, "lay").returncode == 0
    module = work / "checkout" / "fa4_asv" / "__main__.py"
    module.parent.mkdir()
    module.write_text(
        "import sys, time; from pathlib import Path; f = Path('results/box'); f.mkdir(parents=True)\n"
        "(f / 'a.json').write_text(' '.join(sys.argv[1:])); Path('begun').touch(); time.sleep(600)\n"
    )
    command = [sys.executable, str(packed / "airgap.py"), "sweep", "--from", str(packed), "--work", str(work)]
    child = subprocess.Popen([*command, "-o", str(output), "--", "-m", "box", "fa4-v4.0.0b36"])
    try:
        deadline = time.monotonic() + 60
        while not (work / "checkout" / "begun").exists():
            assert time.monotonic() < deadline and child.poll() is None
            time.sleep(0.05)
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=60) == 128 + signal.SIGTERM
    finally:
        child.kill()
    with tarfile.open(output) as tar:
        stream = tar.extractfile("results/box/a.json")
        assert stream and stream.read() == b"sweep -m box fa4-v4.0.0b36"


def test_nothing_is_packed_over_another_pack_or_for_nobody(packed: Path, checkout: Project, tmp_path: Path):
    with pytest.raises(Fa4AsvError, match="holds a pack already; name an empty folder"):
        write_pack(checkout, Order(RELEASES), packed)
    with pytest.raises(Fa4AsvError, match="nothing to pack"):
        write_pack(checkout, Order(), tmp_path / "other")
    with pytest.raises(Fa4AsvError, match="no release '9.9'; `fa4-asv history list` shows them"):
        write_pack(checkout, Order(["9.9"]), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_all_releases_are_those_of_the_history_each_under_the_flavours_it_has():
    project = Project(ROOT)
    releases = contents.releases_of(project, ["all"])
    assert {"4.0.0b3", "4.0.0b36"} <= set(releases)
    oldest = contents.release_locks(project, ["4.0.0b3"], ["day"], ["cu12", "cu13"])
    assert [lock.flavour for lock in oldest] == ["cu12"]


def test_commits_bring_their_locks(checkout: Project, tmp_path: Path, monkeypatch):
    path = tmp_path / "abc.txt"
    path.write_text("nvidia-cutlass-dsl==4.5.2\n")
    lock = Lock(path, "cu13", "day", {"nvidia-cutlass-dsl": "4.5.2"})
    monkeypatch.setattr(contents, "commits_of", lambda project, ranges: ["abc"])
    monkeypatch.setattr(contents, "commit_locks", lambda project, commits, flavours: [lock])
    write_pack(checkout, Order(["4.0.0b36"], ["main"], python=python_tag()), tmp_path / "pack")
    inside = unpack.unpack(tmp_path / "pack", tmp_path / "work")
    assert (inside / "asv/toolchain-locks/day/cu13/abc.txt").read_text() == path.read_text()
    place = unpack.Place(tmp_path / "pack", tmp_path / "work", None)

    def asked(release: list[str], commits: bool) -> list[str]:
        return unpack.revisions(place, argparse.Namespace(release=release, commits=commits))

    assert asked([], False) == ["fa4-v4.0.0b36", "abc"]
    assert asked([], True) == ["abc"]
    assert asked(["4.0.0b36"], False) == ["fa4-v4.0.0b36"]


def test_a_file_that_vanishes_while_it_is_kept_is_no_fault(tmp_path: Path):
    (tmp_path / "gone").symlink_to(tmp_path / "nosuch")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        unpack.add(tar, tmp_path / "gone", "gone")
        assert tar.getnames() == []


def test_an_unreadable_file_is_said_while_packing(tmp_path: Path):
    with pytest.raises(Fa4AsvError, match="cannot read .*nosuch: No such file"):
        write_parts([Entry("a", tmp_path / "nosuch")], tmp_path, 1 << 20, 1)


def test_each_flavour_has_its_configuration_and_each_job_its_core(tmp_path: Path):
    (tmp_path / "asv.conf.json").write_text('{"matrix": {"req": {"flavour": ["cu13", "cu12"]}}}')
    unpack.one_flavour_each(tmp_path, ["cu12", "cu13"])
    for flavour in ("cu12", "cu13"):
        text = (tmp_path / unpack.configuration_of(flavour)).read_text()
        assert json.loads(text) == {"matrix": {"req": {"flavour": [flavour]}}}
    core = max(os.sched_getaffinity(0))
    command = [sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"]
    bound = subprocess.run(unpack.on_core(command, core), capture_output=True, text=True, check=True)
    assert bound.stdout == f"{{{core}}}\n"
    assert unpack.on_core(command, None) == command
