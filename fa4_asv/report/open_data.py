"""What other programs read: every figure of the pages as JSON, and an Atom feed of the events. docs/report-data.md is their contract."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from fa4_asv.compare.policy import BETTER, WORSE
from fa4_asv.record.formatting import counted
from fa4_asv.report.chronicle import step_title
from fa4_asv.report.data_files import FORMAT, releases_value, safe_json
from fa4_asv.report.events import Event, Step, Timeline
from fa4_asv.report.install import Advice
from fa4_asv.report.model import Model
from fa4_asv.report.plots import SECONDS, Plot, plot_json, threads_of
from fa4_asv.report.standing import Standing, value_of

FEED = "events.atom"
_ENTRIES = 50  # of the feed: about two years of releases under one flavour
_TAG = "tag:fa4-asv,2026:"


def json_files(
    model: Model,
    timeline: Timeline,
    groups: Sequence[tuple[str, Sequence[Plot]]],
    found: Sequence[Standing],
    advised: Sequence[Advice],
) -> Iterator[tuple[str, str]]:
    """Name and text of each file; `groups` are the kernels and calls that have a page."""
    values: dict[str, Any] = {
        "releases": _releases(model),
        "figures": {title: [_figures(plot) for plot in plots] for title, plots in groups},
        "events": [_step_json(model, step) for step in timeline.steps if _told(step)],
        "standing": value_of(found),
        "install": [_advice_json(each) for each in advised],
    }
    for name, value in values.items():
        yield f"data/{name}.json", safe_json({"format": FORMAT, name: value}) + "\n"
    names = [f"{name}.json" for name in values]
    yield "data/index.json", safe_json({"format": FORMAT, "files": names, "feed": f"../{FEED}"}) + "\n"


def _releases(model: Model) -> list[dict[str, Any]]:
    compilers = releases_value(model)["compilers"]
    return [
        {
            "version": release.version,
            "uploaded": release.uploaded,
            "commit": release.commit,
            "yanked": release.yanked,
            "compilers": {flavour: versions[at] for flavour, versions in compilers.items() if versions[at]},
        }
        for at, release in enumerate(model.releases)
    ]


def _figures(plot: Plot) -> dict[str, Any]:
    """As in the data of its chart, without events and colours; times of a kernel's calls stand under the calls."""
    value = plot_json(plot)
    del value["events"], value["first"]
    value["metrics"] = [each for each in value["metrics"] if not each["name"].startswith(f"{SECONDS}@")]
    for metric in value["metrics"]:
        for curve in metric.get("curves", ()):
            del curve["colour"]
    return value


def _told(step: Step) -> bool:
    return any(event.effect for event in step.events)


def _step_json(model: Model, step: Step) -> dict[str, Any]:
    told = [event for event in step.events if event.effect]
    return {
        "after": step.after.label,
        "before": step.before.label,
        "commit": step.after.commit,
        "flavour": step.key.flavour,
        "toolchain": step.key.policy,
        "arch": step.arch,
        "page": f"events/{step.page}",
        "packages": step.packages,
        "threads": [thread.url for thread in threads_of(model, step, told)],
        "figures": [_event_json(event) for event in told],
    }


def _event_json(event: Event) -> list[Any]:
    """[group, case, metric, before, after, effect, cause]; of a state the two states."""
    change = event.change
    sides = list(change.states) if change.states else [change.base, change.head]
    return [change.group, change.case, change.metric or "state", *sides, event.effect, event.cause]


def _advice_json(each: Advice) -> dict[str, Any]:
    return {
        "cards": each.cards,
        "arch": each.arch,
        "release": each.release.text,
        "command": each.command,
        "facts": {name: [cell.text for cell in cells] for name, cells in each.facts},
        "avoid": [[name, cell.text] for name, cell in each.avoid],
    }


# The feed


def feed(timeline: Timeline) -> str:
    """The newest steps in which a figure got better or worse; its own date is that of the newest of them."""
    steps = [step for step in reversed(timeline.steps) if _told(step)][:_ENTRIES]
    updated = max(map(_date, steps), default="1970-01-01T00:00:00Z")
    head = (
        '<?xml version="1.0" encoding="utf-8"?>\n<feed xmlns="http://www.w3.org/2005/Atom">\n'
        f"<id>{_TAG}events</id>\n<title>FlashAttention-4, release by release: events</title>\n"
        f'<updated>{updated}</updated>\n<link rel="alternate" href="events.html"/>\n'
        "<author><name>fa4-asv report</name></author>\n"
    )
    return head + "".join(map(_entry, steps)) + "</feed>\n"


def _date(step: Step) -> str:
    """When the commit was made or the release uploaded, to the second."""
    time = datetime.fromtimestamp(step.after.date // 1000, tz=timezone.utc)
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _entry(step: Step) -> str:
    page = f"events/{step.page}"
    subject = f": {step.after.subject}" if step.after.subject else ""
    return (
        f"<entry>\n<id>{_TAG}{escape(page)}</id>\n<title>{escape(step_title(step) + subject)}</title>\n"
        f'<updated>{_date(step)}</updated>\n<link rel="alternate" href={quoteattr(page)}/>\n'
        f'<summary type="text">{escape(_summary(step))}</summary>\n</entry>\n'
    )


def _summary(step: Step) -> str:
    counts = [
        f"{counted(number.figures, 'figure')} of {counted(number.cases, 'case')} {effect}"
        for effect in (BETTER, WORSE)
        if (number := step.count(effect)).figures
    ]
    causes = ", ".join(cause for cause, _ in step.causes)
    moved = "; ".join(step.packages) or "the toolchain is the same"
    return f"Against {step.before.label}: {', '.join(counts)}. Cause: {causes}. {moved}."
