"""What crosses the network: orders, answers, parcels; and what of them reaches the record."""

from __future__ import annotations

import io
import json
import stat
import zipfile

import pytest

from fa4_asv.backfill.cluster.archive import pack, unpack
from fa4_asv.backfill.cluster.order import Answer, Order
from fa4_asv.backfill.cluster.record_gate import RecordGate, Site, package
from fa4_asv.backfill.tasks import BackfillRequest, Task
from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.project import Project
from fa4_asv.integrity.verify import verify
from fa4_asv.record.store import iter_results
from tests.support.backfills import CODEGEN, ENVIRONMENT, record
from tests.support.cluster_site import answer, zipped

pytest_plugins = ["tests.support.cluster_site"]


@pytest.mark.fault(
    kind="a node's archive that leads out of its folder",
    inputs="`..`, absolute names, other ends, line ends, backslashes",
    happens="the node's answer is refused",
)
@pytest.mark.parametrize(
    "name",
    [
        "../x.json",
        "nogpu/../../x.json",
        "/etc/x.json",
        "..",
        "a/b/x.json",
        ".git/x.json",
        "nogpu/.x.json",
        "nogpu/x.py",
        "nogpu/x.json\n",
        "nogpu\\x.json",
        "nogpu/",
        "nogpu/x.json/",
        "no gpu/x.json",
        "nogpu/\u00e4.json",
        "",
    ],
)
def test_a_parcel_leads_nowhere_else(tmp_path, name):
    inside = tmp_path / "a" / "results"
    inside.mkdir(parents=True)
    with pytest.raises(Fa4AsvError, match="which is not a file of a record; refused"):
        unpack(zipped({"nogpu/good.json": b"{}", name: b"{}"}), inside)
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "results"]


def test_a_link_in_a_parcel_is_a_plain_file(tmp_path):
    parcel = zipped({"nogpu/x.json": b"/etc/passwd"}, external_attr=(stat.S_IFLNK | 0o777) << 16)
    unpack(parcel, tmp_path)
    assert not (tmp_path / "nogpu" / "x.json").is_symlink()
    assert (tmp_path / "nogpu" / "x.json").read_bytes() == b"/etc/passwd"


@pytest.mark.fault(
    kind="a node's archive that is none",
    inputs="65 MB behind 65 KB, 1001 files, empty, half, a wrong checksum",
    happens="the node's answer is refused",
)
def test_a_bomb_and_what_is_no_archive_are_refused(tmp_path):
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("nogpu/x.json", bytes(65 << 20))
    whole = zipped({"nogpu/x.json": b"content"})
    for parcel, message in (
        (bomb.getvalue(), "unpacks to 1 files of 68157440 bytes; refused"),
        (zipped({f"m/{number}.json": b"" for number in range(1001)}), "unpacks to 1001 files"),
        (b"", "the archive cannot be read"),
        (b"PK", "the archive cannot be read"),
        (whole[:-30], "the archive cannot be read"),
        (whole.replace(b"content", b"contenT", 1), "the archive cannot be read: Bad CRC"),
    ):
        with pytest.raises(Fa4AsvError, match=message):
            unpack(parcel, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_messages_survive_a_round_trip_and_nothing_else_is_taken_for_one():
    order = Order(["-c", "x"], "cu13", "nogpu", "", 3.0, b"\0\xff", {"a": "b"}, {"C": "d"})
    assert Order.load(order.dump()) == order
    answer = Answer("task", "why", "host", 1.5, "log", b"\0\xff")
    assert Answer.load(answer.dump()) == answer
    for kind in (Order, Answer):
        for text in (
            b"",
            b"{]",
            b"[]",
            b"7",
            b'{"known": 1}',
            b'{"x": 1}',
            b'{"known": "%", "results": "%"}',
        ):
            with pytest.raises(Fa4AsvError):
                kind.load(text)


def gate(site, request=CODEGEN, where=Site()) -> RecordGate:  # noqa: B008 - frozen
    return RecordGate(site.project, request, "", where, 60.0)


def task(site, number: int = 0, environment: str = "") -> Task:
    return Task(
        site.commits[number], ("4.0.0b3", "4.0.0b4", "4.0.0b10")[number], "cu13", ("codegen",), environment
    )


def test_an_order_brings_what_is_known_and_what_decides_how_to_measure(site, monkeypatch):
    record(site.project, site.commits[0], "4.0.0b3")
    monkeypatch.setenv("FA4_ASV_TOOLCHAIN", "day")
    monkeypatch.setenv("FA4_ASV_INDEX_URL", "//user:password@index")
    order = Order.load(gate(site, where=Site(2, "", "/scratch", "/wheels")).order(task(site, 0, ENVIRONMENT)))
    unpack(order.known, site.template / "known")
    assert len(list(iter_results(site.template / "known"))) == 1
    assert (order.flavour, order.machine, order.work, order.timeout) == ("cu13", "nogpu", "/scratch", 60.0)
    assert order.variables == {
        "FA4_ASV_TOOLCHAIN": "day",
        "FA4_ASV_CORES": "2",
        "CUDA_VISIBLE_DEVICES": "",
        "UV_OFFLINE": "1",
        "UV_FIND_LINKS": "/wheels",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": "/wheels",
    }
    assert b"password" not in order.dump()
    assert not list((site.project.work / "backfill").glob("*-cu13"))


def test_all_cards_of_a_kind_write_one_machine(site):
    request = BackfillRequest("lab-h100", flavours=("cu13",))
    order = Order.load(gate(site, request, Site(4, "H100")).order(task(site)))
    assert "CUDA_VISIBLE_DEVICES" not in order.variables  # the engine's, which gave the card
    told = json.loads(order.variables["FA4_ASV_MACHINE_RECORD"])
    assert told["machine"] == "lab-h100" and set(told.values()) == {"lab-h100", "any"}
    folder = site.project.results / "lab-h100"
    folder.mkdir()
    (folder / "machine.json").write_text('{"machine": "lab-h100", "ram": "2 TB", "version": 1}')
    order = Order.load(gate(site, request, Site(4, "H100")).order(task(site)))
    assert json.loads(order.variables["FA4_ASV_MACHINE_RECORD"]) == {"machine": "lab-h100", "ram": "2 TB"}


def test_a_sound_answer_is_moved_and_its_log_kept(site):
    recording = gate(site)
    recording.order(task(site, 1))
    moved = recording.keep(task(site, 1), answer(site, 1))
    assert [path.suffix for path in moved] == [".sidecar", ".json"]
    assert verify(site.project) == [] and site.recorded() == [site.commits[1][:8]]
    log = site.project.work / "backfill" / "logs" / "4.0.0b4-cu13.log"
    assert log.read_text() == "on far, 2.0 s\nasv said\n"
    recording.keep(task(site, 1), answer(site, 1))  # once more changes nothing
    assert len(site.recorded()) == 1


@pytest.mark.fault(
    kind="a node's answer that is not what was asked for",
    inputs="nothing, another commit, an empty archive, `..`",
    happens="nothing of it reaches the record",
)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a, site: Answer(fault="task", why="asv recorded nothing"), "asv recorded nothing; log: "),
        (lambda a, site: answer(site, 2), r"is of nogpu \w{40} cu13 day \w{16}, expected .*; refused"),
        (lambda a, site: Answer(results=zipped({})), "the answer holds no result file"),
        (lambda a, site: Answer(results=zipped({"../nogpu/x.json": b""})), "not a file of a record; refused"),
    ],
)
def test_nothing_else_is_moved(site, spoil, message):
    recording = gate(site)
    recording.order(task(site, 1))
    with pytest.raises(Fa4AsvError, match=message):
        recording.keep(task(site, 1), spoil(answer(site, 1), site))
    assert not list(site.project.results.rglob("*.*"))


def test_what_verify_refuses_stays_out(site):
    for path in (site.template / "results" / "nogpu").glob(f"{site.commits[1][:8]}-*.json"):
        path.write_text(path.read_text().replace("[[16,", "[[17,", 1))
    recording = gate(site)
    recording.order(task(site, 1))
    with pytest.raises(
        Fa4AsvError, match="the result file has 17, the sidecar 16.*not moved into results/; log: "
    ):
        recording.keep(task(site, 1), answer(site, 1))
    assert not list(site.project.results.rglob("*.*"))


def test_the_package_is_a_checkout_without_a_record(site, tmp_path, monkeypatch):
    (site.project.work / "base").mkdir()
    made = package(site.project, tmp_path / "package")
    assert sorted(path.name for path in made.iterdir()) == [
        ".asv",
        "asv.conf.json",
        "benchmarks",
        "fa4_asv",
        "history",
        "requirements",
    ]
    assert [path.name for path in (made / ".asv").iterdir()] == ["history.git"]
    assert not list(made.rglob("__pycache__")) and not (made / "fa4_asv").is_symlink()
    monkeypatch.chdir(made)
    assert Project.find() == Project(made)


def test_pack_takes_what_belongs_to_a_record(site):
    (site.template / "results" / "nogpu" / ".x.json.tmp").touch()
    (site.template / "results" / "notes.txt").touch()
    with zipfile.ZipFile(io.BytesIO(pack(site.template / "results"))) as archive:
        names = archive.namelist()
    assert len(names) == 8 and all(name.endswith((".json", ".sidecar")) for name in names)
