"""Records on their way to a sidecar: rounds in the order they were taken, damage named."""

from __future__ import annotations

import pytest

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.spool import has_spooled, read_records, spool, spooled, write_records

KEY = "fa4/b1_s128_h2_d64_full"


def of(*seconds: float) -> dict[str, CaseRecord]:
    return {KEY: CaseRecord("measured", samples={"seconds": list(seconds)})}


def test_rounds_of_a_case_become_one_record_in_the_order_they_were_taken(tmp_path):
    assert not has_spooled(tmp_path) and spooled(tmp_path) == {}
    for seconds in (3.0, 1.0, 2.0):
        spool(tmp_path, "forward", of(seconds))
    spool(tmp_path, "codegen", {"sm_90/x": CaseRecord("broken", why="killed")})
    result = spooled(tmp_path)
    assert has_spooled(tmp_path)
    assert result["forward"] == of(3.0, 1.0, 2.0)
    assert result["codegen"]["sm_90/x"].why == "killed"


@pytest.mark.parametrize(
    "text", ["", "[]", '{"group": "x"}', '{"group": "x", "cases": {"a": {"state": "odd"}}}']
)
def test_what_is_no_spool_is_named(tmp_path, text):
    path = tmp_path / "x-1.json"
    path.write_text(text)
    with pytest.raises(Fa4AsvError, match=r"x-1\.json .*measure again") as refused:
        spooled(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "[]", '{"a": {"state": "odd"}}', '{"a": 1}'])
def test_what_is_no_records_is_named(tmp_path, text):
    path = tmp_path / "x.round"
    write_records(path, of(1.0))
    assert read_records(path) == of(1.0)
    path.write_text(text)
    with pytest.raises(Fa4AsvError, match=r"x\.round.*measure again"):
        read_records(path)
