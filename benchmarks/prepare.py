"""Videos a second that `avseg data prepare` makes ready: frames, optical flow, sound and log-mel of raw mp4 files.

The videos are generated: 5 s of 224×224. One process against one a core, each on a fresh copy; if quick one process
alone, because others take seconds to start.

    python benchmarks/prepare.py [--quick] [--json FILE]
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from avseg.data.parallel import cores
from avseg.data.prepare import prepare
from avseg.synthetic import write_benchmark

SIDE = 224


def measure(quick: bool = False) -> list[dict[str, Any]]:
    """Videos a second of one process and of one a core.

    Returns:
        Rows of ``name``, ``value``, ``unit``, ``reference`` (one process) and ``ratio``.
    """
    videos = 6 if quick else 40
    rates: dict[int, list[float]] = {1: []} if quick else {1: [], cores(): []}
    with tempfile.TemporaryDirectory() as folder:
        raw, copy = Path(folder) / "raw", Path(folder) / "copy"
        write_benchmark(raw, "s4", videos=videos, val=1, test=1, size=SIDE)
        for _ in range(1 if quick else 3):
            for workers, found in rates.items():
                shutil.copytree(raw, copy)
                started = time.perf_counter()
                report = prepare(copy, "s4", size=SIDE, workers=workers)
                found.append(videos / (time.perf_counter() - started))
                assert not report.failures, report.failures
                shutil.rmtree(copy)
    alone = statistics.median(rates[1])
    rows = []
    for workers, found in rates.items():
        value = statistics.median(found)
        rows.append(
            {
                "name": f"prepare, {workers} process{'es' * (workers > 1)}",
                "value": round(value, 2),
                "unit": "videos/s",
                "reference": round(alone, 2) if workers > 1 else None,
                "ratio": round(value / alone, 2) if workers > 1 else None,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer videos and repeats")
    parser.add_argument("--json", type=Path, help="also write the rows there")
    options = parser.parse_args()
    rows = measure(options.quick)
    for row in rows:
        against = f", {row['ratio']:.2f} times one process" if row["ratio"] else ""
        print(f"{row['name']}: {row['value']:.2f} {row['unit']}{against}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
