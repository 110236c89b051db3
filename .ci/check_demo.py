"""Check what `avseg demo` left: the files, the streams of the overlay, and that the scores come again.

Usage: python .ci/check_demo.py runs/demo
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import av


def main(folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    for arm in ("baseline", "ufe"):
        assert {"miou", "f_score"} <= set(summary[arm])
    needed = {"seconds", "machine", "objects", "seed", "steps", "benchmark", "revision", "test_root"}
    assert needed <= set(summary), needed - set(summary)
    assert {"version", "hash"} <= set(summary["benchmark"])
    assert (folder / "report.html").stat().st_size > 100_000
    with av.open(str(folder / "overlay.mp4")) as container:
        assert len(container.streams.video) == 1
        assert len(container.streams.audio) == 1
        assert sum(1 for _ in container.decode(video=0)) > 100

    for arm in ("baseline", "ufe"):
        with tempfile.TemporaryDirectory() as temporary:
            out = Path(temporary) / "scores.json"
            command = [Path(sys.executable).parent / "avseg", "evaluate", folder / arm, "--data.root"]
            command += [summary["test_root"], "--data.subset", "s4", "--data.split", "test", "--json", out]
            subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
            again = json.loads(out.read_text())["protocols"][summary["protocol"]]
        for metric in ("miou", "f_score"):
            assert abs(again[metric] - summary[arm][metric]) < 1e-6, (arm, metric, again[metric], summary[arm][metric])
    print(
        f"demo checked: baseline {100 * summary['baseline']['miou']:.1f}, UFE {100 * summary['ufe']['miou']:.1f} mIoU, "
        f"{summary['seconds']:.0f} s"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
