"""Shared fixtures: an empty checkout, a registry with three releases."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from fa4_asv.base.ending import SIGNALS
from fa4_asv.base.project import Project
from fa4_asv.report.site import write_report
from tests.support import ROOT
from tests.support.registry_fake import FakeRegistry, sdist

pytest_plugins = [
    f"tests.support.{name}"
    for name in (
        "real_checkout",
        "upstream_fake",
        "standin_runs",
        "browser",
        "backfills",
        "publishing",
        "sound_record",
        "faults",
        "foreign_words",
    )
]
WORKER = "PYTEST_XDIST_WORKER"  # pytest-xdist's name for one of several processes
# Fixtures that read the whole record, start a browser or run real asv.
SLOW = {"real_report", "chromium", "recorded"}
# Files whose tests are many processes, many calls of git, or the whole record; the fast set would take three minutes with them.
SLOW_FILES = {
    *("test_acceptance", "test_airgap", "test_audit", "test_branches", "test_cluster_node", "test_demands"),
    *("test_every_command", "test_fault_table", "test_findings", "test_history_faults", "test_output"),
    *("test_ci_night", "test_fuzz_readers", "test_mutants", "test_mutants_crash", "test_mutants_worse"),
    *("test_isolation", "test_loop_calibration", "test_policy", "test_remote", "test_repair"),
    *("test_sweep_engine", "test_worktree"),
}
# How the names of files begin that share a costly fixture: the real checkout, the report of the whole record.
REAL, SHARED = "test_real", ("test_real", "test_report")
# The longest of the other groups: begun early, so that no core waits for one of them at the end.
LONG = ("test_asv_commands.py", "test_policy.py", "test_sweep_command.py")
# Containers often forbid bytecode. Tests start hundreds of processes, and each would compile all that it imports anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# A shell's `&` starts its job with SIGINT ignored, `nohup` with SIGHUP, and children inherit that: those that tests end must hear it.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
# A busy machine is no failure: no example has a deadline.
hypothesis.settings.register_profile("fa4_asv", deadline=None)
hypothesis.settings.load_profile("fa4_asv")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A checkout without history; the current folder of the test."""
    root = tmp_path / "checkout"
    root.mkdir()
    shutil.copy(ROOT / "asv.conf.json", root)
    monkeypatch.chdir(root)
    return Project(root)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch):
    """Three releases, one with the odd file modes of a hand-made sdist; used as the index."""
    with FakeRegistry() as fake:
        fake.add("0.0.1", "2026-02-01T00:00:00Z")
        fake.add("4.0.0b3", "2026-03-05T17:56:13.305233Z", sdist("4.0.0b3", mode=0o600))
        fake.add("4.0.0b10", "2026-04-22T08:43:17.179304Z")
        fake.add("4.0.0b4", "2026-03-05T19:00:00.5Z")
        monkeypatch.setenv("FA4_ASV_INDEX_URL", fake.url)
        yield fake


@pytest.fixture(scope="session")
def real_report(tmp_path_factory) -> Path:
    """The report of this checkout's own record, made once."""
    folder = tmp_path_factory.mktemp("real") / "report"
    write_report(Project(ROOT), folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_folder() -> Iterator[None]:
    """A folder of temporary files for each of several processes that run tests: the lock of the cores lies there."""
    if WORKER in os.environ:
        # Short: Ray puts sockets below it, and a path of a socket has 107 bytes at most.
        with tempfile.TemporaryDirectory(prefix="fa4-", ignore_cleanup_errors=True) as folder:
            os.environ["TMPDIR"] = tempfile.tempdir = folder
            yield
    else:
        yield


def group_of(nodeid: str) -> str:
    """What stays in one process: the tests of a file, or of all files that share a costly fixture."""
    name = Path(nodeid.partition("::")[0]).name
    return next((shared for shared in SHARED if name.startswith(shared)), name)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """How `pytest -n` deals the tests out: group by group, in their order."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    config.option.loadscopereorder = False
    return Groups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first: a broken harness shows in seconds. One of several processes begins with the longest group."""
    for item in items:
        nightly = item.get_closest_marker("nightly") is not None
        if nightly or SLOW & set(item.fixturenames) or item.path.stem in SLOW_FILES:
            item.add_marker("slow")
    several = WORKER in os.environ
    items.sort(
        key=lambda item: (
            not (several and group_of(item.nodeid) == REAL),
            item.get_closest_marker("slow") is not None,
            not (several and group_of(item.nodeid) in LONG),
        )
    )


@pytest.fixture(autouse=True)
def signals_as_before():
    """A command that runs in this process sets handlers for good, and they ignore a second signal within a second."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)
