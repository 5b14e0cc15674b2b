"""A commit that is hostile when it is imported: it sees no secret, reaches nobody, and ends in one line."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fa4_asv.asv_plugin import environment
from fa4_asv.base import isolation, scratch
from fa4_asv.measure import pool
from fa4_asv.measure.driver_stubs import target_environment
from fa4_asv.measure.pool import Job, Outcome, run_jobs
from tests.support import ROOT

# What every worker of the compile lanes does: its answers apart from what is printed, then FA4.
WORKER = """
import json, sys
from fa4_asv.measure.driver_stubs import open_answers
answers = open_answers()
from flash_attn import cute
answers.write(json.dumps({"ready": True}) + "\\n")
for line in sys.stdin:
    answers.write(json.dumps(cute.found()) + "\\n")
"""
COMPILE = target_environment("sm_90", "cu12")
NO_NAMESPACE = pytest.mark.skipif(bool(isolation.why_network()), reason=isolation.why_network())


@pytest.fixture
def commit(tmp_path, monkeypatch):
    """Imports a commit whose `__init__` is `code` in a worker and asks it what it found."""

    def run(code: str, environment: tuple[tuple[str, str], ...] = COMPILE) -> Outcome:
        cute = tmp_path / "source" / "flash_attn" / "cute"
        cute.mkdir(parents=True)
        (cute / "__init__.py").write_text(code)
        path = os.pathsep.join([str(cute.parent.parent), str(ROOT)])
        job = Job("a", {}, (sys.executable, "-c", WORKER), (*environment, ("PYTHONPATH", path)), 30.0)
        (outcome,) = run_jobs([job], 1)
        return outcome

    return run


SECRETS = dict.fromkeys(
    (
        *("GH_TOKEN", "GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "HF_TOKEN", "SSH_AUTH_SOCK"),
        *(
            "NVIDIA_API_KEY",
            "FA4_ASV_INDEX_URL",
            "UV_DEFAULT_INDEX",
            "PIP_INDEX_URL",
            "HTTPS_PROXY",
            "http_proxy",
        ),
        *(
            "TORCH_HUB_TOKEN",
            "CUDA_PASSWORD",
            "XDG_CONFIG_HOME",
            "LD_PRELOAD",
            "PYTHONSTARTUP",
            "PYTHONHOME_",
        ),
    ),
    "a secret",
)
READS = """
import os
from pathlib import Path
home = Path.home()
kept = [str(path) for path in (home / ".ssh" / "id_ed25519", home / ".netrc") if path.exists()]
seen = sorted(name for name, value in os.environ.items() if value == "a secret")
try:
    parent = "a secret" in Path(f"/proc/{os.getppid()}/environ").read_text()
except OSError:
    parent = False
def found():
    return {"files": kept, "variables": seen, "parent": parent, "home": str(home), "tmp": os.environ["TMPDIR"]}
"""


@pytest.mark.parametrize("environment", [COMPILE, ()], ids=["compile lane", "card"])
def test_it_sees_no_secret(commit, tmp_path, monkeypatch, environment):
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    for path in (home / ".ssh" / "id_ed25519", home / ".netrc"):
        path.write_text("a secret")
    monkeypatch.setenv("HOME", str(home))
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    answer = commit(READS, environment).answer
    assert (answer["files"], answer["variables"]) == ([], [])
    for name in ("home", "tmp"):
        assert answer[name].startswith(str(scratch.own()))
        assert not Path(answer[name]).exists(), "removed with the process"


@NO_NAMESPACE
def test_it_cannot_read_the_variables_of_who_started_it(tmp_path):
    """/proc shows a process's variables to every process of its user, unless that is in a namespace of its own."""
    code = """
import sys
from fa4_asv.asv_plugin import environment
from fa4_asv.base import isolation, scratch
import subprocess
words = ["sh", "-c", "tr '\\\\0' '\\\\n' < /proc/$PPID/environ | grep GH_TOKEN"]
bounds = getattr(isolation, sys.argv[1])
print(subprocess.run(isolation.command(words, bounds), env=isolation.environment(scratch.own())).returncode)
"""
    for bounds, network, seen in (("COMPILE", "", False), ("CARD", "", False), ("CARD", "yes", True)):
        done = subprocess.run(
            [sys.executable, "-c", code, bounds],
            env={**os.environ, "GH_TOKEN": "a secret", "PYTHONPATH": str(ROOT), "FA4_ASV_NETWORK": network},
            capture_output=True,
            text=True,
        )
        assert ("a secret" in done.stdout) is seen, done.stdout + done.stderr


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        yield server


def connects(listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    return f"""
import socket
try:
    socket.create_connection(("127.0.0.1", {port}), timeout=5).sendall(b"secrets")
    said = "sent"
except OSError as error:
    said = str(error)
def found():
    return said
"""


@NO_NAMESPACE
def test_it_has_no_network(commit, listener):
    assert "unreachable" in commit(connects(listener)).answer
    with pytest.raises(TimeoutError):
        listener.accept()


CUDA_FAILS = "without it CUDA gives no memory: no device"


@NO_NAMESPACE
@pytest.mark.fault(
    kind="a commit that opens a connection",
    inputs="in a compile worker, beside a card, where CUDA fails without a network; `FA4_ASV_NETWORK` yes, no, unset",
    happens="unreachable, unless asked for, or CUDA needs it: then a line says so",
)
@pytest.mark.parametrize(
    ("asked", "environment", "card", "sent"),
    [
        *[("", COMPILE, CUDA_FAILS, False), ("yes", COMPILE, "", True), ("no", COMPILE, "", False)],
        *[("", (), "", False), ("yes", (), "", True), ("no", (), "", False)],
        *[("", (), CUDA_FAILS, True), ("no", (), CUDA_FAILS, False)],
    ],
)
def test_the_network_is_refused_as_asked(commit, listener, monkeypatch, asked, environment, card, sent):
    """Unset: where CUDA does not need it."""
    monkeypatch.setenv(isolation.VARIABLE, asked)
    monkeypatch.setattr(isolation, "why_card_network", lambda _: card)
    assert (commit(connects(listener), environment).answer == "sent") is sent


# A python whose torch answers as the words say: "memory" and "profile" are parts that work, "Y|X" is Y in a network namespace
# of its own and X outside.
PROBED = """#!/bin/sh
if [ "$(readlink /proc/self/ns/net)" = "{outside}" ]; then echo "{without}"; else echo "{within}"; fi
echo "RuntimeError: no \033[2Jdevice" >&2
"""


@NO_NAMESPACE
@pytest.mark.parametrize(
    ("within", "without", "lost"),
    [
        ("memory profile", "memory profile", ""),
        ("", "", ""),
        ("memory", "memory", ""),
        ("memory", "memory profile", "without it CUDA gives no profile: RuntimeError"),
        ("", "memory profile", "without it CUDA gives no memory and no profile: RuntimeError"),
        ("rubbish", "memory", "without it CUDA gives no memory: RuntimeError"),
    ],
)
def test_what_cuda_cannot_do_without_the_network_is_said(monkeypatch, tmp_path, within, without, lost):
    """What does not work with the network, either, is no reason to keep it."""
    python = tmp_path / "python"
    outside = Path("/proc/self/ns/net").readlink()
    python.write_text(PROBED.format(outside=outside, within=within, without=without))
    python.chmod(0o755)
    monkeypatch.setattr(isolation, "_CARDS", ("null",))
    monkeypatch.delenv(isolation.ANSWER, raising=False)
    why = isolation.why_card_network(str(python))
    assert why.startswith(lost) and bool(why) is bool(lost)
    assert "\x1b" not in why
    monkeypatch.setenv(isolation.ANSWER, why)


@NO_NAMESPACE
def test_cuda_is_tried_once_and_children_know(monkeypatch, tmp_path):
    tried = tmp_path / "tried"
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho >> {tried}\necho memory profile\n")
    python.chmod(0o755)
    monkeypatch.setattr(isolation, "_CARDS", ("null",))
    monkeypatch.delenv(isolation.ANSWER, raising=False)
    monkeypatch.delenv(isolation.VARIABLE, raising=False)
    for _ in range(2):
        assert not isolation.keeps_network(isolation.CARD, str(python))
    assert len(tried.read_text().splitlines()) == 1
    assert isolation.environment(scratch.own())[isolation.ANSWER] == ""
    monkeypatch.setenv(isolation.ANSWER, "")


def test_where_there_is_no_card_cuda_is_not_tried(monkeypatch):
    monkeypatch.setattr(isolation, "_CARDS", ("no such device*",))
    monkeypatch.delenv(isolation.ANSWER, raising=False)
    assert isolation.why_card_network("/nowhere/python") == isolation.why_network()


def test_the_probe_sees_that_a_processor_is_no_card():
    """The real one, with the torch of these tests: it ends in an error, of which the last line is the reason."""
    parts, reason = isolation._cuda_parts(sys.executable, isolation.Bounds(network=False))
    if torch.cuda.is_available():
        assert "memory" in parts
    else:
        assert (parts, "\n" in reason, bool(reason)) == (set(), False, True)


def test_another_word_for_the_network_is_one_line(commit, monkeypatch):
    monkeypatch.setenv(isolation.VARIABLE, "perhaps")
    assert "FA4_ASV_NETWORK is 'perhaps', expected yes or no" in commit("").lost


def test_a_system_that_cannot_refuse_the_network_says_why(commit, listener, monkeypatch):
    monkeypatch.setattr(isolation, "why_network", lambda: "user namespaces: Operation not permitted")
    assert commit(connects(listener)).answer == "sent"
    monkeypatch.undo()
    isolation.why_network.cache_clear()
    monkeypatch.setattr(
        isolation, "_launcher", lambda _: ["sh", "-c", "echo user namespaces: no >&2; exit 1"]
    )
    assert isolation.why_network() == "user namespaces: no"
    isolation.why_network.cache_clear()


ENDLESS = {
    "stdout": ("while True: print('x' * 1_000_000)", "printed more than 64 MiB and was killed"),
    "stderr": (
        "import sys\nwhile True: sys.stderr.write('x' * 1_000_000)",
        "printed more than 64 MiB and was killed",
    ),
    "an answer": (
        "import __main__\nwhile True: __main__.answers.write('x' * 1_000_000)",
        "answered more than 16 MiB and was killed",
    ),
    "a nested answer": ("import __main__\n__main__.answers.write('[' * 200_000 + '\\n')", "answered no JSON"),
    "memory": ("kept = []\nwhile True: kept.append(bytes(1 << 28))", "exit code 1: MemoryError"),
    "a file": (
        "import os, tempfile\nos.truncate(tempfile.mkstemp()[1], 1 << 40)",
        "OSError: [Errno 27] File too large",
    ),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_what_has_no_end_is_ended_in_one_line(commit, kind):
    code, message = ENDLESS[kind]
    lost = commit(code).lost
    assert message in lost
    assert "\n" not in lost and len(lost) < 400


def test_a_card_lane_has_no_limit_of_address_space(commit):
    """CUDA maps memory by the terabyte."""
    code = "import resource\ndef found(): return resource.getrlimit(resource.RLIMIT_DATA)"
    assert commit(code, ()).answer == list(resource.getrlimit(resource.RLIMIT_DATA))


def test_a_card_lane_prints_not_without_end(commit, monkeypatch):
    monkeypatch.setattr(pool, "MOST_PRINTED", 1 << 20)
    assert commit(ENDLESS["stdout"][0], ()).lost == "printed more than 1 MiB and was killed"


def test_bytes_that_come_one_by_one_do_not_extend_the_time(monkeypatch):
    script = "import sys, time\nwhile True: print('x', end='', flush=True); time.sleep(0.1)"
    monkeypatch.setattr(pool, "START_TIMEOUT", 1.0)
    (outcome,) = run_jobs([Job("a", {}, (sys.executable, "-c", script), (), 1.0)], 1)
    assert outcome.lost == "timed out after 1 s and was killed"


@pytest.mark.parametrize(
    ("name", "passing"),
    [
        *[
            (name, True)
            for name in ("PATH", "LC_ALL", "TZ", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
        ],
        *[
            (name, True)
            for name in ("CUTE_DSL_ARCH", "FLASH_ATTENTION_ARCH", "FA4_ASV_CONTEXT", "LD_LIBRARY_PATH")
        ],
        *[(name, False) for name in SECRETS],
        *[(name, False) for name in ("HOME", "TMPDIR", "USER", "EDITOR", "PYTHONHOME", "KRB5CCNAME")],
    ],
)
def test_variables_pass_by_name(name, passing):
    assert isolation.passes(name) is passing


def test_no_relative_folder_is_on_the_path(monkeypatch):
    monkeypatch.setenv("PATH", os.pathsep.join(["", ".", "bin", "/usr/bin"]))
    assert isolation.environment(scratch.own())["PATH"] == "/usr/bin"


def test_a_program_that_is_not_there_is_named():
    with pytest.raises(FileNotFoundError, match="/nowhere/python"):
        isolation.command(["/nowhere/python"], isolation.CARD)


def test_asvs_benchmark_process_is_bounded_too(monkeypatch):
    """It imports our code; but packages of a toolchain run code of theirs at the start of each interpreter."""
    seen = []
    monkeypatch.setattr(
        environment.util, "check_output", lambda command, env, **_: seen.append((command, env))
    )
    monkeypatch.setenv("GH_TOKEN", "a secret")
    for machine in ("nogpu", "box"):
        context = SimpleNamespace(machine=machine, source="source", root="root", dump=lambda: "{}")
        held = (sys.executable, context)
        fake = SimpleNamespace(
            _read_held=lambda held=held: held, name="e", env_vars={"OWN": "1"}, _global_env_vars={}
        )
        environment.Fa4Environment.run(fake, ["x"], env={"GH_TOKEN": "a secret"})
    (without, variables), (with_card, _) = seen
    assert variables["OWN"] == "1" and "a secret" not in variables.values()
    assert variables["HOME"].startswith(str(scratch.own()))
    assert without[-2:] == with_card[-2:] == [sys.executable, "x"]
    assert json.loads(with_card[-3])["network"] is bool(isolation.why_kept(isolation.CARD, sys.executable))
    assert json.loads(without[-3])["network"] is bool(isolation.why_network())
