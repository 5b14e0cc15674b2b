"""A commit's pyproject.toml is a stranger's: what is taken from it, what is refused, and that nothing else is obeyed."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.uv_command import uv_environment
from fa4_asv.compare.commits import pins_in
from fa4_asv.history.demands import demands_of
from fa4_asv.history.toolchain import Policy, lock_for
from tests.support.index_fake import FakeIndex

DAY = datetime(2026, 5, 1, tzinfo=timezone.utc)
HEAD = '[project]\nname = "flash-attn-4"\ndynamic = ["version"]\n'
PYPROJECT = HEAD + (
    'requires-python = ">=3.10"\n'
    'dependencies = ["nvidia-cutlass-dsl >= 4.4", "torch", "typing_extensions; python_version < \'3.10\'"]\n'
    '[project.optional-dependencies]\ncu13 = ["nvidia-cutlass-dsl[cu13]>=4.4"]\ndev = ["x @ file:///nowhere"]\n'
)
LOCKED = "nvidia-cutlass-dsl==4.6.2\nquack-kernels==0.5.3\n"


def test_what_is_taken_are_requirements_in_their_order_and_the_oldest_python():
    demands = demands_of(PYPROJECT, "4.0.0b20")
    assert demands.of_flavour("cu12").splitlines() == [
        "nvidia-cutlass-dsl>=4.4",
        "torch",
        'typing_extensions; python_version < "3.10"',
    ]
    assert demands.of_flavour("cu13") == demands.of_flavour("cu12") + "nvidia-cutlass-dsl[cu13]>=4.4\n"
    assert demands.python == "3.10"
    assert demands_of(HEAD, "x").of_flavour("cu12") == ""
    assert demands_of(HEAD, "x").cu13 is None


@pytest.mark.parametrize(
    ("bound", "python"),
    [("", "3.10"), (">=3.10.4", "3.10"), (">=3.12", "3.12"), (">3.11,<3.14", "3.11"), ("==3.11.*", "3.11")],
)
def test_a_toolchain_is_resolved_for_the_oldest_python_of_the_project(bound, python):
    assert demands_of(f"{HEAD}requires-python = {bound!r}\n", "x").python == python


REFUSED = {
    "no TOML": ("[project", "cannot be read: Expected"),
    "no table": ("[tool.x]\n", "it has no table [project]"),
    "project is a number": ("project = 5", "project is 5"),
    "project is text": ('project = "\\u001b[31m"', "project is '\\x1b[31m'"),
    "project is a list of tables": ("[[project]]\n", "project is a list"),
    "a number of 5000 digits": (f"project = 0x{'f' * 5000}", "project is a number"),
    "lists 200,000 deep": (f"x = {'[' * 200_000}", "it is nested more than 32 deep"),
    "tables 5,000 deep": ("x = " + "{a=" * 5000 + "1" + "}" * 5000, "it is nested more than 32 deep"),
    "a megabyte": ("#" * (1 << 20), "it has more than 262,144 characters"),
    "dependencies are text": (HEAD + 'dependencies = "torch"', "dependencies is 'torch', expected a list"),
    "dependencies are a table": (HEAD + "[project.dependencies]\n", "dependencies is a table"),
    "a dependency is a number": (HEAD + "dependencies = [1]", "dependencies holds 1, expected texts"),
    "a dependency is a date": (HEAD + "dependencies = [2026-01-01]", "dependencies holds a date"),
    "extras are a list": (HEAD + "optional-dependencies = []", "optional-dependencies is a list"),
    "an extra is text": (
        HEAD + '[project.optional-dependencies]\ncu13 = "x"',
        "the extra cu13 is 'x', expected a list",
    ),
    "101 dependencies": (HEAD + f"dependencies = {['torch'] * 101}", "dependencies has 101 entries"),
    "a dependency of 301 characters": (HEAD + f"dependencies = ['{'x' * 301}']", "has 301 characters"),
    "an address": (HEAD + 'dependencies = ["x @ https://127.0.0.1/x.whl"]', "names an address"),
    "a folder": (HEAD + 'dependencies = ["x @ file:///etc"]', "names an address"),
    "a repository": (HEAD + 'dependencies = ["x @ git+ssh://h/x"]', "names an address"),
    "a relative path": (HEAD + 'dependencies = ["./x"]', "is not a requirement"),
    "an option": (HEAD + 'dependencies = ["--index-url=http://127.0.0.1"]', "is not a requirement"),
    "another file": (HEAD + 'dependencies = ["-r /etc/passwd"]', "is not a requirement"),
    "a line end": (HEAD + 'dependencies = ["x\\n--index-url http://127.0.0.1"]', "is not a requirement"),
    "a line end in a marker": (
        HEAD + "dependencies = [\"x; os_name == 'a\\n-r /etc/passwd\\n'\"]",
        "of dependencies is not a requirement",
    ),
    "a variable in a marker": (
        HEAD + "dependencies = [\"x; os_name == '${HOME}'\"]",
        "holds a sign that a requirement of FA4 never has",
    ),
    "itself": (HEAD + 'dependencies = ["Flash_Attn-4[all]"]', "asks for the project itself"),
    "told by its build": ('[project]\ndynamic = ["dependencies"]', "its dependencies are dynamic"),
    "dynamic is text": ('[project]\ndynamic = "version"', "dynamic is 'version', expected a list"),
    "no Python of ours": (HEAD + 'requires-python = "<3.9"', "toolchains are made for 3.10 to 3.13"),
    "no bound": (HEAD + 'requires-python = "new"', "is not a bound of versions"),
    "the bound is a number": (HEAD + "requires-python = 3.10", "requires-python is a number, expected text"),
}


@pytest.mark.fault(
    kind="a pyproject.toml that is none, or asks for more than packages",
    inputs="no TOML, wrong types, 200,000 deep, a megabyte, addresses, paths, options, line ends",
    happens="one line that names the commit; uv is not started",
)
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_demand_of_fa4_is_one_line_that_names_it(project, monkeypatch, kind):
    text, message = REFUSED[kind]
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("something was started"))
    with pytest.raises(Fa4AsvError) as told:
        lock_for(project, "4.0.0b99", text, DAY, "cu13", Policy("day"))
    assert str(told.value).startswith("the pyproject.toml of 4.0.0b99 cannot be read: ")
    assert message in str(told.value)
    assert str(told.value).isprintable()
    assert len(str(told.value)) < 400
    assert told.value.exit_code == 2
    assert not list(project.root.rglob("*.txt"))


def test_comparing_pins_reads_under_the_same_limits():
    with pytest.raises(Fa4AsvError, match="of 'HEAD' cannot be read: project is 5"):
        pins_in("project = 5", "'HEAD'")
    with pytest.raises(Fa4AsvError, match="nested more than 32 deep"):
        pins_in("x = " + "[" * 1000, "'HEAD'")
    assert pins_in(PYPROJECT, "'HEAD'")["requires-python"] == ">=3.10"


@pytest.fixture
def indexes(monkeypatch, tmp_path):
    """The person's index and a stranger's, which has a newer compiler; the folder that a stranger would like to fill."""
    with FakeIndex() as good, FakeIndex() as evil:
        good.add("nvidia-cutlass-dsl", "4.6.2", "quack-kernels")
        good.add("nvidia-cutlass-dsl", "4.9.0.dev1")
        good.add("quack-kernels", "0.5.3")
        evil.add("nvidia-cutlass-dsl", "9.9")
        evil.add("quack-kernels", "9.9")
        monkeypatch.setenv("UV_DEFAULT_INDEX", good.url)
        monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        for name in ("UV_FIND_LINKS", "UV_INDEX", "UV_NO_INDEX", "UV_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        yield good, evil, tmp_path / "victim"


# {evil} is the stranger's index, {victim} a folder that is not there.
OBEYED_BY_UV = {
    "output-file": '[tool.uv.pip]\noutput-file = "{victim}/owned.txt"',
    "cache-dir": '[tool.uv]\ncache-dir = "{victim}/cache"',
    "pip.index-url": '[tool.uv.pip]\nindex-url = "{evil}"',
    "pip.extra-index-url": '[tool.uv.pip]\nextra-index-url = ["{evil}"]\nindex-strategy = "unsafe-best-match"',
    "pip.find-links": '[tool.uv.pip]\nfind-links = ["{evil}nvidia-cutlass-dsl/"]',
    "index-url": '[tool.uv]\nindex-url = "{evil}"',
    "index": '[[tool.uv.index]]\nname = "evil"\nurl = "{evil}"\ndefault = true',
    "no-index": "[tool.uv.pip]\nno-index = true",
    "sources of an index": (
        '[tool.uv.sources]\nnvidia-cutlass-dsl = {{ index = "evil" }}\n'
        '[[tool.uv.index]]\nname = "evil"\nurl = "{evil}"\nexplicit = true'
    ),
    "sources of an address": '[tool.uv.sources]\nnvidia-cutlass-dsl = {{ url = "{evil}x-1-py3-none-any.whl" }}',
    "sources of a folder": '[tool.uv.sources]\nnvidia-cutlass-dsl = {{ path = "{victim}" }}',
    "sources of a repository": '[tool.uv.sources]\nnvidia-cutlass-dsl = {{ git = "{evil}" }}',
    "overrides": '[tool.uv]\noverride-dependencies = ["quack-kernels==9.9"]',
    "constraints": '[tool.uv]\nconstraint-dependencies = ["quack-kernels==9.9"]',
    "prerelease": '[tool.uv.pip]\nprerelease = "allow"',
    "exclude-newer": '[tool.uv]\nexclude-newer = "2020-01-01"',
    "what the output holds": "[tool.uv.pip]\nemit-index-url = true\ngenerate-hashes = true\nuniversal = true",
    "required-version": '[tool.uv]\nrequired-version = "<0.1"',
    "a workspace": '[tool.uv.workspace]\nmembers = ["{victim}"]',
    "a build": '[build-system]\nrequires = ["x @ {evil}x.tar.gz"]\nbuild-backend = "evil"\nbackend-path = ["."]',
}


@pytest.mark.fault(
    kind="a commit's pyproject.toml configures uv",
    inputs="forms of `[tool.uv]` and `[build-system]`: an output file, a cache, an index, sources, overrides",
    happens="not read: the same lock, a stranger's index on loopback is never asked, no file or folder is made",
)
@pytest.mark.parametrize("kind", OBEYED_BY_UV)
def test_nothing_beside_the_requirements_is_obeyed(project, indexes, kind):
    good, evil, victim = indexes
    text = PYPROJECT + OBEYED_BY_UV[kind].format(evil=evil.url, victim=victim)
    lock = lock_for(project, "4.0.0b99", text, DAY, "cu12", Policy("day"))
    assert lock.path.read_text().partition("\n")[2] == LOCKED
    assert evil.asked == []
    assert good.asked, "the person's own index is the one that is asked"
    assert not victim.exists()
    assert sorted(path.name for path in project.root.iterdir()) == ["asv.conf.json", "history"]


def test_the_hostile_set_is_obeyed_where_uv_reads_it(indexes, tmp_path):
    """Each entry must be one that uv would follow: else the tests above show nothing."""
    import subprocess

    from uv import find_uv_bin

    _, evil, victim = indexes
    followed = set()
    for kind, text in OBEYED_BY_UV.items():
        folder = tmp_path / kind.replace(" ", "-")
        folder.mkdir()
        (folder / "pyproject.toml").write_text(PYPROJECT + text.format(evil=evil.url, victim=victim))
        before = len(evil.asked)
        command = [find_uv_bin(), "pip", "compile", "pyproject.toml", "--no-header", "--no-annotate", "-q"]
        command += ["--no-build", "--no-deps"] if kind == "a build" else ["--excludes", str(folder / "none")]
        (folder / "none").write_text("torch\nnumpy\n")
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=uv_environment())
        plain = done.returncode == 0 and done.stdout == LOCKED
        if not plain or len(evil.asked) > before or victim.exists():
            followed.add(kind)
    assert OBEYED_BY_UV.keys() - followed <= {"a build", "a workspace", "exclude-newer"}


@pytest.mark.fault(
    kind="a folder's, the person's or an environment's configuration of uv",
    inputs="`uv.toml` in the home, above and beside the checkout, `UV_CONFIG_FILE`, `UV_OVERRIDE` and others",
    happens="not read; the index, cache and network that `UV_*` variables name still count",
)
@pytest.mark.parametrize("place", ["home", "above", "here", "variables"])
def test_neither_the_persons_nor_a_folders_configuration_counts(
    project, indexes, tmp_path, monkeypatch, place
):
    good, evil, victim = indexes
    text = f'index-url = "{evil.url}"\noverride-dependencies = ["quack-kernels==9.9"]\n'
    text += f'cache-dir = "{victim}"\n'
    above = tmp_path / "temporary"
    folders = {"home": tmp_path / "home" / ".config" / "uv", "above": above, "here": Path.cwd()}
    folder = folders.get(place, tmp_path / "other")
    for each in (above, folder):
        each.mkdir(parents=True, exist_ok=True)
    (folder / "uv.toml").write_text(text)
    monkeypatch.setenv("TMPDIR", str(above))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    if place == "variables":
        (folder / "pins.txt").write_text("quack-kernels==9.9\n")
        monkeypatch.setenv("UV_CONFIG_FILE", str(folder / "uv.toml"))
        for name in ("UV_OVERRIDE", "UV_CONSTRAINT", "UV_EXCLUDE"):
            monkeypatch.setenv(name, str(folder / "pins.txt"))
        monkeypatch.setenv("UV_PRERELEASE", "allow")
        monkeypatch.setenv("UV_RESOLUTION", "lowest")
    lock = lock_for(project, "4.0.0b99", PYPROJECT, DAY, "cu12", Policy("day"))
    assert lock.path.read_text().partition("\n")[2] == LOCKED
    assert evil.asked == []
    assert not victim.exists()


def test_of_uvs_variables_those_pass_that_say_where_packages_come_from(monkeypatch):
    passed = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_LAB_PASSWORD", "UV_FIND_LINKS", "UV_NO_INDEX")
    passed += ("UV_OFFLINE", "UV_CACHE_DIR", "UV_HTTP_RETRIES", "SSL_CERT_FILE", "HTTPS_PROXY")
    dropped = ("UV_CONFIG_FILE", "UV_OVERRIDE", "UV_EXCLUDE_NEWER", "UV_PYTHON", "UV_SYSTEM_PYTHON")
    for name in passed + dropped:
        monkeypatch.setenv(name, "x")
    assert set(passed) <= uv_environment().keys()
    assert not set(dropped) & uv_environment().keys()


@pytest.mark.fault(
    kind="a resolved set without the compiler",
    inputs="a project that does not ask for it",
    happens="one line; no lock is kept",
)
def test_what_resolves_to_no_compiler_is_told_and_not_kept(project, indexes):
    text = HEAD + 'dependencies = ["quack-kernels"]\n'
    with pytest.raises(Fa4AsvError, match="what was resolved names no nvidia-cutlass-dsl; nothing was kept"):
        lock_for(project, "4.0.0b99", text, DAY, "cu12", Policy("day"))
    assert not list(project.root.rglob("*.txt"))
