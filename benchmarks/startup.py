"""How long ``avseg --help`` and ``import avseg`` take, each in a fresh process.

python -m benchmarks.startup
"""

import statistics
import subprocess
import sys
import time

from benchmarks.alone import run_alone
from benchmarks.timing import Row, Settings

GROUP = "startup"
_LINES = {
    "avseg --help": ["-m", "avseg", "--help"],
    "import avseg": ["-c", "import avseg"],
    "python alone": ["-c", "pass"],
}


def measure(settings: Settings) -> list[Row]:
    """Medians of whole processes in milliseconds; that of Python alone is what no package can go below."""
    seconds: dict[str, list[float]] = {name: [] for name in _LINES}
    settings.tell(f"{GROUP}: {', '.join(_LINES)}")
    for repeat in range(settings.repeats + 1):
        for name, arguments in _LINES.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            if repeat:  # the first reads files from the disk
                seconds[name].append(1e3 * (time.perf_counter() - began))
    return [
        {
            "group": GROUP,
            "name": name,
            "unit": "ms",
            "ours": round(statistics.median(taken), 1),
            "spread_ours": [round(min(taken), 1), round(max(taken), 1)],
            "samples": len(taken),
            "reference": None,
            "ratio": None,
        }
        for name, taken in seconds.items()
    ]


if __name__ == "__main__":
    run_alone(measure)
