"""The figures of asv's result file against the records of its sidecar, and samples against their statistics."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from itertools import groupby

from asv_runner.statistics import compute_stats

from fa4_asv.catalog.benchmarks import GROUPS, Group, group_of, key_of
from fa4_asv.record.schema import CaseRecord
from fa4_asv.record.store import Key, Result, Value, is_number

AGAIN = "restore both files from git or measure again"
POOLED = "samples that repeat one block: rounds pooled twice"
_ROUNDED = 1e-4  # asv writes its statistics with 5 digits


def wrong_figures(result: Result, groups: dict[str, dict[str, CaseRecord]]) -> Iterator[str]:
    """asv's figures against the sidecar's, benchmark by benchmark, in both directions."""
    seen: dict[tuple[str, str], set[str]] = {}
    unknown: set[str] = set()
    # asv's file has one benchmark after the other.
    for name, figures in groupby(result.figures.items(), key=_benchmark):
        group_and_metric = group_of(name)
        if group_and_metric is None:
            if any(value is not None and is_number(value) for _, value in figures):
                unknown.add(name)
            continue
        group, metric = group_and_metric
        records = groups.get(group.name, {})
        asked = seen.setdefault((group.name, metric), set())
        for key, value in figures:
            case = key_of(key[1]) or group.only_case
            asked.add(case)
            if wrong := _wrong_figure(result, key, value, records.get(case), metric):
                yield f"{case} {metric}: {wrong}; {AGAIN}"
    for name in sorted(unknown):
        yield f"has no record of {name}, which this suite does not know; update the suite or measure again"
    for name, cases in sorted(groups.items()):
        if name not in GROUPS:
            yield f"has records of {name!r}, which this suite does not know; update the suite or measure again"
        elif cases and not any(group == name for group, _ in seen):
            yield f"has {name} records, the result file no {name} benchmark; {AGAIN}"
        else:
            yield from _unseen(GROUPS[name], cases, seen)


def _wrong_figure(result: Result, key: Key, value: Value, record: CaseRecord | None, metric: str) -> str:
    alone = record and value is not None and not record.samples and key not in result.samples
    if record and alone and value == record.figures.get(metric):
        return ""  # an exact figure, as nearly all are
    wrong = disagreement(value, record, metric)
    return wrong or _other_samples(result, key, record.samples.get(metric, []) if record else [])


def _benchmark(figure: tuple[Key, Value]) -> str:
    return figure[0][0]


def _unseen(
    group: Group, cases: dict[str, CaseRecord], seen: dict[tuple[str, str], set[str]]
) -> Iterator[str]:
    """Measured in the sidecar, without a figure there, or unknown to the result file."""
    for case, record in sorted(cases.items()):
        if record.state != "measured":
            continue
        known = record.figures if group.exact else record.samples
        for metric in group.metrics:
            names = seen.get((group.name, metric))
            if names is None:
                continue  # `asv rm benchmark=...` took its figures from both files
            if (metric in known and case in names) or record.says_why_not(metric):
                continue
            if metric not in known:
                yield f"{case} {metric}: measured, but the sidecar holds no figure; {AGAIN}"
            if case not in names:
                yield f"{case} {metric}: in the sidecar, but not among the result file's parameters; {AGAIN}"


def disagreement(value: Value, record: CaseRecord | None, metric: str) -> str:
    """What the sidecar's record says against asv's `value`, "" where they agree.

    asv: a number is measured, NaN is n/a (unsupported or not selected), None is failed. Of samples asv
    keeps the median.
    """
    state = record.state if record else "not run"
    if value is not None and is_number(value):
        if record is None or state != "measured":
            return f"the result file has {value}, the sidecar says {state}"
        samples = record.samples.get(metric)
        figure = statistics.median(samples) if samples else record.figures.get(metric)
        same = figure is not None and (math.isclose(value, figure) if samples else value == figure)
        return "" if same else f"the result file has {value}, the sidecar {figure}"
    if value is None:
        return "" if state == "broken" else f"failed in the result file, the sidecar says {state}"
    if state in ("unsupported", "not run") or (record and record.says_why_not(metric)):
        return ""
    return f"n/a in the result file, the sidecar says {state}"


def _other_samples(result: Result, key: Key, counts: list[float]) -> str:
    """What is wrong with the samples that the sidecar `counts` of a figure, "" for nothing."""
    samples = result.samples.get(key)
    if samples and sorted(samples) != sorted(counts):
        return "the result file has other samples than the sidecar"
    if counts and is_repeated(counts):  # asv itself keeps none, so that only this shows it
        return f"the sidecar has {len(counts)} {POOLED}"
    recorded = result.statistics.get(key)
    return other_statistics(recorded, counts) if recorded and counts else ""


def other_statistics(recorded: dict[str, float], samples: list[float]) -> str:
    """Which of asv's statistics (5 digits of interval and quartiles) `samples` do not give, "" for none.

    asv itself keeps no samples unless told to: an edited sample that leaves the median alone shows here.
    """
    _, expected = compute_stats(samples, 1)
    for name, value in recorded.items():
        if name in expected and not math.isclose(value, expected[name], rel_tol=_ROUNDED):
            return f"the result file has {name} {value}, the sidecar's samples {expected[name]:.5g}"
    return ""


def is_repeated(samples: list[float]) -> bool:
    """Whether six or more samples are one block of at least three, repeated exactly.

    Constant samples are sound: bytes do not scatter.
    """
    count = len(samples)
    if count < 6 or len(set(samples)) == 1:
        return False
    sizes = (size for size in range(3, count // 2 + 1) if count % size == 0)
    return any(samples == samples[:size] * (count // size) for size in sizes)
