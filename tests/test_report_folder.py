"""Where the report goes: an old one is replaced, a stranger's folder never."""

from __future__ import annotations

from pathlib import Path

import pytest

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.cli import run
from fa4_asv.report import site
from fa4_asv.report.site import write_report
from tests.support import ROOT
from tests.support.fake_record import kernels, write_pair, write_releases


@pytest.fixture
def checkout(project):
    """A checkout with one release."""
    (release,) = write_releases(project, 1)
    write_pair(project, release, kernels())
    return project


def test_a_strangers_site_is_never_replaced(checkout, tmp_path):
    folder = tmp_path / "homepage"
    folder.mkdir()
    (folder / "style.css").write_text("a {}")
    (folder / "index.html").write_text("<title>My page</title>")
    with pytest.raises(Fa4AsvError, match="homepage holds files that are not a report; choose an empty"):
        write_report(checkout, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["index.html", "style.css"]


def test_an_old_report_is_replaced_as_a_whole(checkout, tmp_path):
    folder = tmp_path / "report"
    write_report(checkout, folder)
    (folder / "gone.html").touch()
    write_report(checkout, folder)
    assert not (folder / "gone.html").exists()
    assert (folder / "style.css").is_file()


def test_the_committed_report_is_known_as_one():
    assert site._is_report(ROOT / "html" / "report")


def test_a_file_in_its_place_is_one_line(checkout, tmp_path, capsys):
    (tmp_path / "taken").touch()
    with pytest.raises(SystemExit) as ended:
        run(["report", "--output", str(tmp_path / "taken")])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("taken: Not a directory; choose an empty folder")


def test_the_folder_in_which_one_stands_is_kept(checkout, monkeypatch):
    folder = checkout.root / "report"
    write_report(checkout, folder)
    monkeypatch.chdir(folder)
    with pytest.raises(Fa4AsvError, match="it is the current folder"):
        write_report(checkout, Path())
    assert (folder / "index.html").is_file()
