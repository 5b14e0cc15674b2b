"""Every row of docs/asv-commands.md: real asv on releases of the stand-in, whose kernels are constants."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fa4_asv.asv_plugin.result_rows import ResultRows
from fa4_asv.integrity.verify import verify
from fa4_asv.record.store import read_sidecar, write_sidecar
from tests.support.real_checkout import ENVIRONMENT, ROOT, asv
from tests.support.standin_checkout import Checkout, standin_checkout

pytestmark = pytest.mark.slow
# In place of compiling: six figures a case, larger from 4.0.0b3 on; one case is refused, one is broken.
MEASURE = r"""

def measure(context, cases):
    from fa4_asv.record.schema import CaseRecord
    figures = dict.fromkeys(
        ("spill_bytes", "local_loads", "local_stores", "instructions", "text_bytes", "registers"),
        200 if context.release >= "4.0.0b3" else 100,
    )
    states = {"fwd_d96_full": CaseRecord("unsupported", why="refused"), "fwd_d96_causal": CaseRecord("broken", why="no")}
    with (Path(context.root) / "measured").open("a") as stream:
        stream.writelines(f"{context.release} {arch} {case}\n" for arch, case in cases)
    return {f"{arch}/{case}": states.get(case, CaseRecord("measured", figures=figures)) for arch, case in cases}
"""
RELEASES = [f"4.0.0b{number}" for number in (1, 2, 3, 4)]
TAGS = [f"fa4-v{version}" for version in RELEASES]
SPILLS = "codegen.Kernels.track_spill_bytes"
ONE = rf"{SPILLS}\('sm_90', 'fwd_d64_full'\)"
NARROW = r"track_(spill_bytes|registers)\('sm_90', 'fwd_(d64_full|d64_causal|d96_full)'\)"
Check = Callable[["Place"], None]
ROWS: dict[str, Check] = {}


@dataclass
class Place:
    """A git checkout with recorded releases; each test leaves it as it was."""

    checkout: Checkout

    @property
    def root(self) -> Path:
        return self.checkout.project.root

    def asv(self, *arguments: str, code: int = 0) -> str:
        """What asv said; its exit code is `code`, and no Python traceback reaches the user."""
        done = asv(self.root, *arguments, **self.checkout.environment)
        output = done.stdout + done.stderr
        assert done.returncode == code, output
        assert "Traceback" not in output
        return output

    def run(self, *arguments: str, code: int = 0) -> str:
        return self.asv("run", "-E", "fa4:same", "-b", NARROW, *arguments, code=code)

    def git(self, *arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=self.root, capture_output=True, text=True, check=True
        ).stdout

    def changed(self) -> list[str]:
        return self.git("status", "--porcelain", "--no-renames").splitlines()

    def measured(self) -> list[str]:
        """Release, architecture and case of each measurement since the last question."""
        path = self.root / "measured"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def releases(self) -> list[str]:
        return sorted({line.split()[0] for line in self.measured()})

    def commit(self, tag: str) -> str:
        return subprocess.run(
            ["git", f"--git-dir={self.checkout.project.repository}", "rev-parse", f"{tag}^{{commit}}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    def file(self, tag: str) -> Path:
        """The result file of a release, there or not."""
        return self.checkout.project.results / "nogpu" / f"{self.commit(tag)[:8]}-{ENVIRONMENT}.json"

    def drop(self, tag: str) -> None:
        for path in (self.file(tag), self.file(tag).with_suffix(".sidecar")):
            path.unlink()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Place:
    """The four releases recorded and committed."""
    place = Place(standin_checkout(tmp_path_factory.mktemp("commands"), dict.fromkeys(RELEASES, "")))
    for variable, value in (("NAME", "x"), ("EMAIL", "x@example.org")):
        place.checkout.environment.update(
            {f"GIT_{role}_{variable}": value for role in ("AUTHOR", "COMMITTER")}
        )
    with (place.root / "fa4_asv" / "measure" / "kernels" / "collect.py").open("a") as stream:
        stream.write(MEASURE)
    shutil.copy(ROOT / ".gitignore", place.root)
    with (place.root / ".gitignore").open("a") as stream:
        stream.write("measured\n")
    place.run("ALL")
    assert place.releases() == RELEASES
    broken = ("run", "-E", "fa4:same", "-b", rf"{SPILLS}.*sm_90', 'fwd_d96_causal'", f"{TAGS[3]}^!")
    assert asv(place.root, *broken, **place.checkout.environment).returncode == 2
    place.git("init", "-q")
    place.git("add", "-A")
    place.git("-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-q", "-m", "recorded")
    return place


@pytest.fixture
def place(recorded) -> Iterator[Place]:
    yield recorded
    recorded.git("reset", "-q", "--hard")
    recorded.git("clean", "-fdq", "results", "html")
    recorded.measured()


def row(command: str) -> Callable[[Check], Check]:
    def add(check: Check) -> Check:
        ROWS[command] = check
        return check

    return add


@row("asv run RANGE")
def ranges(place: Place) -> None:
    place.run(f"{TAGS[1]}..{TAGS[3]}")
    assert place.releases() == RELEASES[2:]
    assert place.changed() == [], "the same figures again change no file"
    assert "unknown release or commit 'no'" in place.run("no..where", code=1)


@row("asv run")
def no_range(place: Place) -> None:
    place.drop(TAGS[3])
    place.run()
    assert place.releases() == RELEASES[3:], "the head of `releases`; `main` is not here"
    assert json.loads(place.file(TAGS[3]).read_text())["results"][SPILLS][0][0] == 200
    assert verify(place.checkout.project) == []


@row("asv run EXISTING")
def existing(place: Place) -> None:
    place.drop(TAGS[0])
    place.run("EXISTING")
    assert place.releases() == RELEASES[1:]


@row("asv run NEW")
def new(place: Place) -> None:
    assert "No commit hashes selected" in place.run("NEW", code=1)
    place.drop(TAGS[3])
    place.run("NEW")
    assert place.releases() == RELEASES[3:]


@row("asv run TAGS")
def tags(place: Place) -> None:
    output = place.run("TAGS", code=1)
    assert f"{TAGS[3]} is not a hash of a commit; write `asv run ALL`" in output
    assert place.changed() == []


@row("asv run HASHFILE:FILE")
def hashfile(place: Place) -> None:
    chosen = place.root / ".asv" / "chosen"
    chosen.write_text(f"{place.commit(TAGS[1])}\n{TAGS[2]}\nnosuch\n")
    output = place.run(f"HASHFILE:{chosen}")
    assert "Unknown commit hash nosuch" in output
    assert place.releases() == RELEASES[1:3]


@row("asv run --steps N")
def steps(place: Place) -> None:
    place.run("--steps", "2", "ALL")
    assert len(place.releases()) == 2


@row("asv run --quick")
def quick(place: Place) -> None:
    place.drop(TAGS[3])
    before = place.changed()
    place.run("--quick", f"{TAGS[3]}^!")
    assert place.releases() == RELEASES[3:] and place.changed() == before


@row("asv run --dry-run")
def dry_run(place: Place) -> None:
    place.drop(TAGS[3])
    known = place.root / "results" / "benchmarks.json"
    known.write_text("{}")
    before = place.changed()
    place.run("--dry-run", "-m", "nogpu", f"{TAGS[3]}^!")
    assert place.releases() == RELEASES[3:] and place.changed() == before
    assert known.read_text() == "{}"


@row("asv run --skip-existing")
def skip_existing(place: Place) -> None:
    place.drop(TAGS[3])
    place.run("--skip-existing", "ALL")
    assert place.releases() == RELEASES[3:]


@row("asv run --python=same")
def python_same(place: Place) -> None:
    for arguments in (["--python=same"], ["-E", "existing:same"], ["--environment", "existing"]):
        output = place.asv("run", *arguments, f"{TAGS[3]}^!", code=1)
        assert "holds no commit of FA4; write `-E fa4:same`" in output and output.count("\n") == 1
    assert "fa4 has no Python '3.9'" in place.asv("run", "-E", "fa4:3.9", f"{TAGS[3]}^!", code=1)


@row("asv run --bench just-discover")
def discover(place: Place) -> None:
    source = place.root / "benchmarks" / "codegen.py"
    source.write_text("# a line\n" + source.read_text())
    place.asv("run", "-E", "fa4:same", "--bench", "just-discover")
    assert place.changed() == [" M benchmarks/codegen.py"], "no line number in benchmarks.json"


@row("asv run --parallel N")
def parallel(place: Place) -> None:
    place.drop(TAGS[3])
    place.run("--parallel", "2", f"{TAGS[3]}^!")
    assert place.file(TAGS[3]).with_suffix(".sidecar").is_file()


@row("asv run --set-commit-hash HASH")
def set_commit(place: Place) -> None:
    output = place.run("--set-commit-hash", TAGS[0], f"{TAGS[3]}^!")
    assert "nothing ran, so nothing is recorded" in output and place.changed() == []


@row("asv continuous BASE HEAD")
def continuous(place: Place) -> None:
    output = place.asv("continuous", "-E", "fa4:same", "-b", ONE, TAGS[1], TAGS[2], code=1)
    assert re.search(r"\+ +\| +100 +\| +200 +\|", output) and "PERFORMANCE DECREASED" in output
    assert place.releases() == RELEASES[1:3] and place.changed() == []


@row("asv find RANGE BENCHMARK")
def find(place: Place) -> None:
    arguments = ("find", "-E", "fa4:same", "--launch-method", "forkserver", f"{TAGS[0]}..{TAGS[3]}", ONE)
    assert f"Greatest regression found: {place.commit(TAGS[2])[:8]}" in place.asv(*arguments)
    assert {line.split()[2] for line in place.measured()} == {"fwd_d64_full"}, (
        "the benchmark selects the cases"
    )
    assert place.changed() == []


@row("asv rm benchmark=NAME")
def rm_benchmark(place: Place) -> None:
    path, before = place.file(TAGS[3]), ResultRows.read(place.file(TAGS[3]))
    output = place.asv("rm", "-y", f"commit_hash={place.commit(TAGS[3])}", f"benchmark={SPILLS}")
    assert "Removing 1 benchmarks in 1 files" in output
    assert list(json.loads(path.read_text())["results"]) == ["codegen.Kernels.track_registers"]
    record = read_sidecar(path.with_suffix(".sidecar")).groups["codegen"]["sm_90/fwd_d64_full"]
    assert "registers" in record.figures and "spill_bytes" not in record.figures
    assert verify(place.checkout.project) == []
    place.run(f"{TAGS[3]}^!")
    assert ResultRows.read(path).same_figures(before), "measured again as it was"


@row("asv rm commit_hash=HASH")
def rm_commit(place: Place) -> None:
    place.asv("rm", "-y", f"commit_hash={place.commit(TAGS[3])}")
    assert place.changed() == [
        f" D results/nogpu/{place.file(TAGS[3]).stem}{end}" for end in (".json", ".sidecar")
    ]
    assert "Removing 0 files" in place.asv("rm", "-y", f"commit_hash={TAGS[2]}"), "asv knows no tags here"


@row("asv profile BENCHMARK [COMMIT]")
def profile(place: Place) -> None:
    assert "function calls" in place.asv("profile", "-E", "fa4:same", ONE)
    assert place.measured() == [f"{RELEASES[3]} sm_90 fwd_d64_full"]
    assert place.changed() == []


@row("asv update")
def update(place: Place) -> None:
    place.asv("update")
    assert place.changed() == []


@row("asv check")
def check(place: Place) -> None:
    assert "No problems found." in place.asv("check", "-E", "fa4:same")
    assert place.changed() == []


@row("asv setup")
def setup(place: Place) -> None:
    place.asv("setup", "-E", "fa4:same", code=1)  # asv returns its list of environments as exit code
    assert place.changed() == []


@row("asv show [COMMIT]")
def show(place: Place) -> None:
    output = place.asv("show", "-E", ENVIRONMENT, "-b", NARROW, TAGS[3])
    cells = dict(re.findall(r"sm_90 +(\w+) +([\w/]+)", output))
    expected = {"fwd_d64_full": "200", "fwd_d96_full": "n/a", "fwd_d96_causal": "failed"}
    assert {case: cells[case] for case in expected} == expected
    assert "<setup_cache codegen.Kernels>" in place.asv("show", "--durations", TAGS[3])
    assert place.commit(TAGS[3])[:8] in place.asv("show")


@row("asv compare COMMIT COMMIT")
def compare(place: Place) -> None:
    table = place.asv("compare", "--only-changed", TAGS[1], TAGS[2])
    assert re.search(
        r"\+ +\| +100 +\| +200 +\| +2 +\| codegen.Kernels.track_registers\('sm_90', 'fwd_d64_full'\)", table
    )
    assert place.asv("compare", "-m", "nogpu", "-E", ENVIRONMENT, "--only-changed", TAGS[1], TAGS[2]) == table
    assert "Results for machine 'nosuch" in place.asv("compare", "-m", "nosuch", TAGS[1], TAGS[2], code=1)
    assert "Did not find results" in place.asv("compare", "-E", "fa4-other", TAGS[1], TAGS[2], code=1)
    shutil.copytree(place.root / "results" / "nogpu", place.root / "results" / "other")
    other = place.root / "results" / "other" / "machine.json"
    other.write_text(other.read_text().replace("nogpu", "other"))
    assert "specify which one to use with the --machine" in place.asv("compare", TAGS[1], TAGS[2], code=1)


@row("asv publish")
def publish(place: Place) -> None:
    place.asv("publish")
    index = json.loads((place.root / "html" / "index.json").read_text())
    assert index["params"]["branch"] == ["releases"], "no selector for a branch that is not here"
    assert (place.root / "html" / "report" / "index.html").is_file()
    assert [line for line in place.changed() if not line.startswith("?? html/")] == []
    site = {path: path.read_bytes() for path in (place.root / "html").rglob("*") if path.is_file()}
    (place.root / "results" / "benchmarks.json").write_text("{")
    assert "Error parsing JSON" in place.asv("publish", code=1)
    assert site == {path: path.read_bytes() for path in (place.root / "html").rglob("*") if path.is_file()}
    held = place.root / "held"
    held.mkdir()
    (held / "thesis.tex").write_text("mine")
    assert "held holds thesis.tex but no site of asv" in place.asv("publish", "--html-dir", "held", code=1)
    assert (held / "thesis.tex").read_text() == "mine"
    shutil.rmtree(held)


@row("asv preview")
def preview(place: Place) -> None:
    (place.root / "html").mkdir(exist_ok=True)
    (place.root / "html" / "index.html").write_text("the site")
    arguments = [sys.executable, "-u", "-m", "asv", "preview"]
    served = subprocess.Popen(arguments, cwd=place.root, stdout=subprocess.PIPE, text=True)
    try:
        url = re.search(r"Serving at (\S+)", served.stdout.readline())[1]
        assert urllib.request.urlopen(url, timeout=20).read() == b"the site"
    finally:
        served.terminate()
        served.wait()
        served.stdout.close()


@row("asv gh-pages --no-push")
def gh_pages(place: Place) -> None:
    place.asv("gh-pages", "--no-push")
    files = place.git("ls-tree", "-r", "--name-only", "gh-pages").splitlines()
    assert {"index.html", "report/index.html", ".nojekyll"} <= set(files)
    assert [line for line in place.changed() if not line.startswith("?? html/")] == []


@row("asv machine --yes")
def machine(place: Place) -> None:
    home = Path(place.checkout.environment["HOME"])
    place.asv("machine", "--yes", "--machine", "my-box")
    assert "my-box" in json.loads((home / ".asv-machine.json").read_text())
    assert place.changed() == []


@row("asv quickstart")
def quickstart(place: Place) -> None:
    assert "Template content already exists" in place.asv("quickstart", "--no-top-level", code=1)
    assert place.changed() == []


def test_a_new_case_of_one_architecture_leaves_the_other_as_not_measured(place):
    """The list of cases grew since a release was recorded, and `--bench` selects the new case of one architecture only."""
    without_case(place.file(TAGS[3]), "fwd_d64_causal")
    place.git(
        "-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-q", "-a", "-m", "before the case"
    )
    try:
        only = rf"{SPILLS}\('sm_90', 'fwd_d64_causal'\)"
        place.asv("run", "-E", "fa4:same", "-b", only, f"{TAGS[3]}^!")
        rows = ResultRows.read(place.file(TAGS[3]))
        values = dict(zip(dict(rows.cases(SPILLS)).values(), rows.rows[SPILLS]["result"], strict=True))
        assert values["sm_90", "fwd_d64_causal"] == 200
        assert math.isnan(values["sm_100", "fwd_d64_causal"]), "n/a, not failed"
        assert values["sm_90", "fwd_d64_full"] == 200 and values["sm_90", "fwd_d96_causal"] is None
        assert [
            problem
            for problem in verify(place.checkout.project)
            if problem.path.name.startswith(place.commit(TAGS[3])[:8])
        ] == []
    finally:
        place.git("reset", "-q", "--hard", "HEAD~1")


def without_case(path: Path, case: str) -> None:
    """Result file and sidecar as they were before the list of cases had `case`."""
    rows = ResultRows.read(path)
    for name, row in rows.rows.items():
        if name.startswith("codegen."):
            left = [index for index, labels in rows.cases(name) if case not in labels]
            row["result"] = [row["result"][index] for index in left]
            row["params"] = [[word for word in axis if word != repr(case)] for axis in row["params"]]
    path.write_text(json.dumps(rows.to_json()))
    sidecar = read_sidecar(path.with_suffix(".sidecar"))
    groups = {
        group: {key: record for key, record in cases.items() if not key.endswith(f"/{case}")}
        for group, cases in sidecar.groups.items()
    }
    write_sidecar(path.with_suffix(".sidecar"), replace(sidecar, groups=groups))


@pytest.mark.parametrize("command", ROWS)
def test_a_command_does_what_its_row_says(command, place):
    ROWS[command](place)


def test_every_row_of_the_page_has_a_test_and_every_test_a_row():
    text = (ROOT / "docs" / "asv-commands.md").read_text(encoding="utf-8")
    assert re.findall(r"(?m)^\| `(asv [^`]+)` \|", text) == list(ROWS)


def test_the_page_names_every_command_of_asv():
    done = subprocess.run([sys.executable, "-m", "asv", "--help"], capture_output=True, text=True, cwd=os.sep)
    commands = re.search(r"\{([\w,-]+)\}", done.stdout)[1].split(",")
    assert {command.split()[1] for command in ROWS} == set(commands) - {"help"}
