"""How many of avseg's functions a video passes through: a measure of how much must be read to follow it.

Counts the distinct functions and methods defined in avseg that are entered while one video is prepared, and while one
is segmented by the model that comes with avseg; lambdas, comprehensions and generator expressions don't count, nor what
runs when modules are imported.

    python -m benchmarks.entered [prepare] [segment] [--list]
"""

import argparse
import shutil
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import avseg
from avseg.data.prepare import prepare
from avseg.inference import AVSegmenter, segment_video
from avseg.synthetic import write_benchmark

PACKAGE = Path(avseg.__file__).parent


def entered(work: Callable[[], Any]) -> dict[str, list[str]]:
    """The functions that ``work`` enters, in any thread, by the file below the package that defines them."""
    seen: set[CodeType] = set()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            seen.add(frame.f_code)

    sys.setprofile(note)
    threading.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    found: dict[str, list[str]] = defaultdict(list)
    for code in seen:
        path = Path(code.co_filename)
        if path.is_relative_to(PACKAGE) and not code.co_name.startswith("<"):
            found[path.relative_to(PACKAGE).as_posix()].append(code.co_qualname)
    return {name: sorted(found[name]) for name in sorted(found)}


def works(folder: Path) -> dict[str, Callable[[], Any]]:
    """What is counted, by name, with its data below ``folder``; nothing of it has been prepared or segmented yet."""
    root = folder / "data"
    write_benchmark(root, "s4", videos=1, val=0, test=0, size=64, edition="small", workers=1)
    video = next(root.rglob("raw_videos/**/*.mp4"))
    shutil.copy(video, folder / "video.mp4")
    return {
        "prepare": lambda: prepare(root, "s4", workers=1),
        "segment": lambda: segment_video(
            folder / "video.mp4", AVSegmenter.from_pretrained(device="cpu"), folder / "out", fps=2
        ),
    }


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=["prepare", "segment", []], help="both if none is named")
    parser.add_argument("--list", action="store_true", help="also name the functions")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, work in works(Path(folder)).items():
            if asked.what and name not in asked.what:
                continue
            found = entered(work)
            print(f"{name}: {sum(map(len, found.values()))} functions in {len(found)} files")
            for file, functions in found.items():
                print(f"  {file}: {', '.join(functions) if asked.list else len(functions)}")


if __name__ == "__main__":
    main()
