"""The data of the pages: script files of pure data for the charts, and the same figures as JSON for other programs.

Pages that are opened from a file may not fetch, so a chart's data is a script that hands one JSON value to `fa4.put`.
docs/report-data.md describes every file; FORMAT is raised when the meaning of a field changes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from fa4_asv.base.escape import visible
from fa4_asv.report import wording
from fa4_asv.report.model import Model
from fa4_asv.report.pairs import MOST
from fa4_asv.report.plots import Plot, plot_json

FORMAT = 1
RELEASES_JS, CATALOG_JS, COMPARE_JS = "data/releases.js", "data/catalog.js", "data/compare.js"


def script(name: str, value: Any) -> str:
    """A script file that holds nothing but one JSON value."""
    return f"fa4.put({safe_json(name)}, {safe_json(value)});\n"


def safe_json(value: Any) -> str:
    """JSON that is safe inside a script and inside a page: markup is escaped, and so is in every text what is not seen."""
    text = json.dumps(_visible(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _visible(value: Any) -> Any:
    """The same with `visible` texts: whoever decodes them gets none that steers a terminal."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(str(key)): _visible(each) for key, each in value.items()}
    return [_visible(each) for each in value] if isinstance(value, (list, tuple)) else value


def releases_value(model: Model) -> dict[str, Any]:
    """The x axis of every chart: the versions, their dates, and the compiler of the day by flavour."""
    return {
        "versions": model.versions,
        "dates": [release.uploaded[:10] for release in model.releases],
        "compilers": {each.key.flavour: _compilers(model, each.points) for each in model.exact()},
        "compared": MOST,
    }


def _compilers(model: Model, points: Sequence[Any]) -> list[str]:
    known = {
        point.label: point.record.sidecar.toolchain.packages.get(wording.COMPILER, "") for point in points
    }
    return [known.get(version, "") for version in model.versions]


def catalog_value(groups: Sequence[tuple[str, Sequence[Plot]]]) -> list[Any]:
    """What the first page's chart can show: a heading and its entries, each with its data file."""
    return [[title, [[plot.title, plot.data] for plot in plots]] for title, plots in groups if plots]


def chart_files(model: Model, groups: Sequence[tuple[str, Sequence[Plot]]]) -> Iterator[tuple[str, str]]:
    """The script files of all charts: name and text."""
    yield RELEASES_JS, script(RELEASES_JS, releases_value(model))
    yield CATALOG_JS, script(CATALOG_JS, catalog_value(groups))
    for _, plots in groups:
        for plot in plots:
            yield plot.data, script(plot.data, plot_json(plot))
