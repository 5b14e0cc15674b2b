"""Policies, locks and the words for what does not resolve; uv is real where it is called, the index is not."""

from __future__ import annotations

import sys

import pytest

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.history import toolchain
from fa4_asv.history.registry import Registry
from fa4_asv.history.repository import resolve
from fa4_asv.history.source import lay_source
from fa4_asv.history.sync import sync
from fa4_asv.history.toolchain import (
    Lock,
    Policy,
    UnsupportedFlavour,
    _reason,
    install,
    lock_for,
    read_lock,
)
from tests.support.toolchains import DAY, LOCK, PYPROJECT


def test_the_policy_is_the_day_unless_pinned(monkeypatch):
    monkeypatch.delenv("FA4_ASV_TOOLCHAIN", raising=False)
    assert Policy.from_environment() == Policy("day")
    monkeypatch.setenv("FA4_ASV_TOOLCHAIN", "quack-kernels==0.6.5, nvidia-cutlass-dsl==4.8.1")
    assert Policy.from_environment().name == "nvidia-cutlass-dsl==4.8.1_quack-kernels==0.6.5"


@pytest.mark.parametrize(
    "text", ["dsl", "nvidia-cutlass-dsl>=4", "x==1.*", "x==1; rm -rf /", "../../x==1", "x==1,==2"]
)
def test_anything_but_pins_is_refused(monkeypatch, text):
    monkeypatch.setenv("FA4_ASV_TOOLCHAIN", text)
    with pytest.raises(
        Fa4AsvError, match="is not a list of pins; write for example nvidia-cutlass-dsl==4.8.1"
    ):
        Policy.from_environment()


def test_a_committed_lock_is_used_as_it_stands(project):
    path = project.locks / "day" / "cu12" / "4.0.0b20.txt"
    path.parent.mkdir(parents=True)
    path.write_text(LOCK)
    lock = lock_for(project, "4.0.0b20", PYPROJECT, DAY, "cu12", Policy("day"))
    assert lock.packages == {"nvidia-cutlass-dsl": "4.6.0.dev0", "apache-tvm-ffi": "0.1.13.post3"}


def test_flavours_and_versions_have_digests_of_their_own(tmp_path):
    lock = Lock(tmp_path, "cu12", "day", {"a": "1", "b": "2"})
    assert lock.digest == Lock(tmp_path, "cu12", "other", {"b": "2", "a": "1"}).digest
    assert lock.digest != Lock(tmp_path, "cu13", "day", {"a": "1", "b": "2"}).digest
    assert lock.digest != Lock(tmp_path, "cu12", "day", {"a": "1", "b": "3"}).digest


def test_one_commits_toolchain_for_all(project, registry, monkeypatch):
    sync(project, Registry())
    for version, lines in (("4.0.0b3", LOCK), ("4.0.0b10", LOCK.replace("4.6.0.dev0", "4.8.1"))):
        path = project.locks / "day" / "cu12" / f"{version}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(lines)
    monkeypatch.setenv("FA4_ASV_TOOLCHAIN", "as:fa4-v4.0.0b10")
    policy = Policy.from_environment()
    newest = resolve(project, "fa4-v4.0.0b10")
    assert (policy.name, policy.as_of) == (f"as-{newest[:8]}", newest)
    source = lay_source(project, resolve(project, "fa4-v4.0.0b3"))
    day, lock = (source.lock(project, "cu12", each) for each in (Policy("day"), policy))
    assert (day.packages["nvidia-cutlass-dsl"], lock.packages["nvidia-cutlass-dsl"]) == (
        "4.6.0.dev0",
        "4.8.1",
    )
    assert (lock.flavour, lock.policy) == ("cu12", policy.name)
    assert lock.digest == lay_source(project, newest).lock(project, "cu12", Policy("day")).digest
    assert not (project.locks / policy.name).exists(), "it is another commit's lock and is kept once"
    with pytest.raises(UnsupportedFlavour, match="4.0.0b10 has no cu13 extra"):
        source.lock(project, "cu13", policy)


def test_the_toolchain_of_an_unknown_commit_is_one_line(project, registry, monkeypatch):
    monkeypatch.setenv("FA4_ASV_TOOLCHAIN", "as:fa4-v4.0.0b10")
    with pytest.raises(Fa4AsvError, match="run `fa4-asv history sync` first"):
        Policy.from_environment()
    sync(project, Registry())
    for text in ("as:", "as:nosuch", "as:--all", "as:fa4-v4.0.0b10..fa4-v4.0.0b4"):
        monkeypatch.setenv("FA4_ASV_TOOLCHAIN", text)
        with pytest.raises(Fa4AsvError, match="unknown release or commit"):
            Policy.from_environment()


@pytest.mark.fault(
    kind="a lock that cannot be read",
    inputs="a bound, an option, a hash, a path as a name",
    happens="one line that names the file and its line",
)
@pytest.mark.parametrize("line", ["einops", "einops>=1", "--index-url evil", "einops==1 --hash x", "a/b==1"])
def test_a_damaged_lock_is_named_with_its_line(tmp_path, line):
    path = tmp_path / "4.0.0b20.txt"
    path.write_text(LOCK + line + "\n")
    with pytest.raises(Fa4AsvError, match="is damaged at"):
        read_lock(path, "cu12", "day")
    path.write_text("einops==0.8\n")
    with pytest.raises(Fa4AsvError, match="names no nvidia-cutlass-dsl"):
        read_lock(path, "cu12", "day")


@pytest.mark.fault(
    kind="a lock that is not text or too large",
    inputs="no UTF-8, more than 65,536 bytes; a committed lock, and one of the machine's own",
    happens="one line: a committed lock is restored from git; the other is deleted, and then it is resolved again",
)
def test_a_bad_lock_says_what_really_helps(project, monkeypatch):
    """A committed one would be resolved to something else, perhaps: git has it. Another is resolved again."""
    committed = project.locks / "day" / "cu12" / "4.0.0b20.txt"
    cached = project.work / "toolchain-locks" / "day" / "cu12" / f"{'a' * 40}.txt"
    for path, advice in (
        (committed, f"git checkout -- {committed}"),
        (cached, "delete it and it is resolved again"),
    ):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"\xff")
        with pytest.raises(Fa4AsvError, match="is not UTF-8") as told:
            lock_for(project, path.stem, PYPROJECT, DAY, "cu12", Policy("day"), path == committed)
        assert advice in str(told.value)
        path.write_text("x" * 100_000)
        with pytest.raises(Fa4AsvError, match="has more than 65,536 bytes"):
            read_lock(path, "cu12", "day")
    monkeypatch.setattr(toolchain, "_resolve", lambda *_: LOCK)
    cached.unlink()
    assert lock_for(project, "a" * 40, PYPROJECT, DAY, "cu12", Policy("day"), False).packages


def test_a_release_without_the_extra_is_unsupported_not_broken(project):
    with pytest.raises(UnsupportedFlavour, match="4.0.0b3 has no cu13 extra"):
        lock_for(project, "4.0.0b3", PYPROJECT, DAY, "cu13", Policy("day"))
    with pytest.raises(Fa4AsvError, match="the pyproject.toml of 4.0.0b3 cannot be read"):
        lock_for(project, "4.0.0b3", "[project", DAY, "cu13", Policy("day"))


@pytest.mark.fault(
    kind="a requirement that would have to be built",
    inputs="`package @ file://...` with a `setup.py`",
    happens="one line; nothing is built",
)
def test_resolving_executes_nothing_that_a_commit_names(project, monkeypatch, tmp_path):
    """A pyproject.toml is a stranger's: a dependency that would have to be built is refused."""
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    package = tmp_path / "package"
    package.mkdir()
    (package / "setup.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    text = f'[project]\nname = "x"\nversion = "1"\ndependencies = ["package @ file://{package}"]\n'
    with pytest.raises(Fa4AsvError, match="of 4.0.0b99 cannot be read: 'package @ .* names an address"):
        lock_for(project, "4.0.0b99", text, DAY, "cu12", Policy("day"))
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def no_index(monkeypatch, tmp_path) -> None:
    """An index that does not answer, and an empty cache."""
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple/")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")


@pytest.mark.fault(
    kind="no network while a toolchain is resolved",
    inputs="an index that does not answer",
    happens="one line; no lock is kept",
)
def test_no_network_is_one_line_and_leaves_no_lock(project, no_index):
    with pytest.raises(
        Fa4AsvError, match="no toolchain for 4.0.0b20 .cu12, day.: the registry cannot be reached"
    ) as error:
        lock_for(project, "4.0.0b20", PYPROJECT, DAY, "cu12", Policy("day"))
    assert "\n" not in str(error.value)
    assert not list(project.locks.rglob("*"))


@pytest.mark.fault(
    kind="a package that cannot be installed",
    inputs="an index that does not answer",
    happens="one line; no folder stays",
)
def test_a_failed_install_leaves_no_folder(project, no_index):
    import sys
    from pathlib import Path

    lock = Lock(Path("4.0.0b20.txt"), "cu12", "day", {"nvidia-cutlass-dsl": "4.6.0.dev0"})
    with pytest.raises(Fa4AsvError, match="cannot install the toolchain 4.0.0b20.txt"):
        install(project, lock, Path(sys.executable))
    assert [path for path in (project.work / "toolchains").iterdir() if path.is_dir()] == []


def test_causes_are_named():
    assert "serves no upload times" in _reason(
        "warning: x.whl is missing an upload date, but user provided 2026"
    )
    assert _reason("× No solution\n╰─▶ because").startswith("No solution because")


@pytest.mark.fault(
    kind="a package without end",
    inputs="a file above the limit of what uv may write",
    happens="the write fails and uv ends with its reason; no toolchain is made",
)
def test_uv_writes_no_file_above_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(toolchain, "LARGEST_DOWNLOAD", 1000)
    write = "import pathlib, sys; pathlib.Path('x').write_bytes(b'x' * int(sys.argv[1]))"
    small, large = (
        toolchain._called([sys.executable, "-c", write, size], 30, tmp_path) for size in ("900", "1100")
    )
    assert small.returncode == 0 and large.returncode != 0
    assert (tmp_path / "x").stat().st_size <= 1000 and "File too large" in toolchain._reason(large.stderr)
