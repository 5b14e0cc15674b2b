"""What the suite itself costs: benchmarks of the suite, run on purpose; docs/ keeps what they gave.

    python -m tools.suite_benchmarks run        # `asv run` against a bare loop that compiles the same kernels
    python -m tools.suite_benchmarks publish    # the site of 500 synthetic commits against plain asv
    python -m tools.suite_benchmarks first_page # bytes and seconds of the report's first page in a browser
    python -m tools.suite_benchmarks ray        # backfill on two local Ray workers against plain backfill
    python -m tools.suite_benchmarks record     # files, bytes and hours of the record
    python -m tools.suite_benchmarks isolation  # the start of a compile worker within its bounds and without
    python -m tools.suite_benchmarks sweep      # a sweep's calls bare, without guard, journals and asv; needs a card

`-h` after a name says what is measured. Exit code 1 where an aim is missed; meant for an idle machine of two cores.
"""

from __future__ import annotations

import argparse
import sys
from types import ModuleType

from tools.suite_benchmarks import first_page, isolation, publish, ray, record, run, sweep

BENCHMARKS: dict[str, ModuleType] = {
    "run": run,
    "publish": publish,
    "first_page": first_page,
    "ray": ray,
    "record": record,
    "isolation": isolation,
    "sweep": sweep,
}


def main(words: list[str]) -> int:
    """Run the one that is named; its exit code."""
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m tools.suite_benchmarks", description=__doc__, formatter_class=shape
    )
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, module in BENCHMARKS.items():
        summary = (module.__doc__ or "").partition("\n")[0]
        subparser = names.add_parser(name, help=summary, description=module.__doc__, formatter_class=shape)
        module.add_arguments(subparser)
    arguments = parser.parse_args(words)
    return int(BENCHMARKS[arguments.name].main(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
