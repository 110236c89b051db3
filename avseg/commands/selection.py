"""``avseg data mine`` and ``avseg data labels``: which distant frames and which labels training learns from."""

from collections import Counter
from typing import Any, Literal

from jsonargparse.typing import PositiveInt

from avseg.commands.console import note, show
from avseg.commands.data import ROOT, WORKERS, Subset
from avseg.commands.parser import Parser
from avseg.errors import AvsegError
from avseg.progress import progress


def mine_parser() -> Parser:
    parser = Parser(
        "avseg data mine",
        "SOURCE --like MS3_ROOT --out ROOT [options]",
        "Pick distant frames for MS3 from a folder like VGGSound's: the middle frame, its motion and the sound around "
        "it, of videos whose label is one of AVSBench's categories. Categories take turns, a smaller --count is a "
        "subset of a larger one, and videos of the data set itself are left out. They are written as ROOT/MS3_Extend, "
        "which training reads; mined.csv there lists them. Stopped and started again, it makes only what is missing.",
        "avseg data mine VGGSound --like AVSBench --out AVSBench --count 12990",
    )
    parser.add_argument(
        "source", metavar="SOURCE", type=str, help="folder of <id>_<start>.mp4, also in sub-folders, with a CSV"
    )
    parser.add_argument("--like", type=str, required=True, help="the data set that the frames are for: " + ROOT)
    parser.add_argument("--out", type=str, required=True, help="the folder that will hold MS3_Extend/")
    parser.add_argument("--count", type=PositiveInt | None, help="how many; all there are if not given")
    parser.add_argument("--seed", type=int, default=0, help="another seed picks others")
    parser.add_argument(
        "--csv", type=str | None, help="CSV of id,start,label with or without a header; the one in SOURCE if not given"
    )
    parser.add_argument(
        "--mapping", type=str | None, help="CSV of label,category; avseg's table of VGGSound's labels if not given"
    )
    parser.add_argument(
        "--flow_method", type=Literal["farneback", "dis"], default="farneback", help="optical flow, as of the data set"
    )
    parser.add_argument("--workers", type=PositiveInt | None, help=WORKERS)
    return parser


def mine(options: Any) -> int:
    from rich.table import Table

    from avseg.data.mine import mine as mine_frames

    with progress("Mining", "videos") as update:
        report = mine_frames(
            options.source,
            options.like,
            options.out,
            count=options.count,
            seed=options.seed,
            labels=options.csv,
            mapping=options.mapping,
            flow_method=options.flow_method,
            workers=options.workers,
            progress=update,
        )
    for _, remark in report.notes:
        note(remark)
    for _, reason in report.failures:
        note(f"left out: {reason}")
    taken = Counter(frame.video.category for frame in report.frames)
    table = Table()
    table.add_column("category")
    for column in ("taken", "found"):
        table.add_column(column, justify="right")
    for category, found in report.found.items():
        table.add_row(category, str(taken[category]), str(found))
    show(table)
    print(f"{report.folder}: {len(report.frames)} distant frames, listed in mined.csv")
    made = ", ".join(f"{kind} {count}" for kind, count in report.written.items()) or "nothing was missing"
    print(f"made: {made}; left out: {report.known} videos of the data set, {len(report.failures)} that are broken")
    if options.count is not None and len(report.frames) < options.count:
        note(f"--count asks for {options.count}, and there are no more than {len(report.frames)}")
    return 0


def labels_parser() -> Parser:
    parser = Parser(
        "avseg data labels",
        "ROOT [options]",
        "Write nested subsets of the labelled training videos, spread over categories, as text files: with "
        "--data.labelled FILE a model learns from those labels alone, and the other frames are distant frames.",
        "avseg data labels AVSBench --subset s4 --fractions 0.05,0.1",
    )
    parser.add_argument("root", metavar="ROOT", type=str, help=ROOT)
    parser.add_argument("--subset", type=Subset, default="s4", help="whose labels")
    parser.add_argument(
        "--fractions", metavar="X,Y,...", type=str, default="0.05,0.1,0.25,0.5", help="shares of the labels"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other videos")
    parser.add_argument("--out", metavar="DIR", type=str | None, help="where the files go; ROOT/labels if not given")
    return parser


def labels(options: Any) -> int:
    from avseg.data.avsbench import avsbench, read_frames
    from avseg.data.lists import write_label_subsets

    shares = _shares(options.fractions)
    frames = read_frames(avsbench(options.root, options.subset))
    for path, count in write_label_subsets(frames, shares, options.seed, options.out).items():
        print(f"{path}: {count} video{'s' * (count != 1)}")
    return 0


def _shares(text: str) -> list[float]:
    try:
        shares = [float(part) for part in text.strip("[]").split(",")]
    except ValueError:
        shares = []
    if not shares or not all(0 < share <= 1 for share in shares):
        raise AvsegError(
            f"--fractions takes shares above 0 and up to 1 with commas between, such as 0.05,0.1, not {text}."
        )
    return shares
