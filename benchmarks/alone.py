"""Running one group by itself: ``python -m benchmarks.GROUP``."""

import argparse
import json
import sys
from collections.abc import Callable

import torch

from avseg.errors import AvsegError
from benchmarks.options import check
from benchmarks.table import table
from benchmarks.timing import Row, Settings, use_threads


def run_alone(measure: Callable[[Settings], list[Row]]) -> None:
    """Measure what the command line asks for, print the table, and the rows as JSON if ``--json`` is given."""
    parser = argparse.ArgumentParser(description=sys.modules[measure.__module__].__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--options", default="eager")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    options = tuple(asked.options.split(","))
    try:
        check(options)
    except AvsegError as error:
        parser.error(str(error))
    use_threads(asked.threads)
    rows = measure(Settings.of(asked.device, asked.threads, asked.repeats, asked.quick, options))
    print(json.dumps(rows, indent=2) if asked.json else table(rows))
