"""``avseg data``: write, fetch, prepare and check data sets."""

from pathlib import Path
from typing import Any, Literal, get_args

from jsonargparse.typing import NonNegativeInt, PositiveInt

from avseg.commands.console import note, show
from avseg.commands.parser import Parser, add_engine
from avseg.errors import AvsegError
from avseg.progress import progress

Subset = Literal["s4", "ms3"]
ROOT = "the folder that holds Single-source/ and Multi-sources/"
WORKERS = "processes; one a core if not given"


# The knobs of an edition that the command line can turn; docs/benchmark.md lists all, which Python can.
_KNOBS: dict[str, tuple[Any, str]] = {
    "objects-per-scene": (int | tuple[int, int], "objects that could sound: a number, or [least, most]"),
    "visits": (int, "videos of one place, another object sounding in each"),
    "motion-sounding": (float, "probability that a sounding object moves"),
    "motion-silent": (float, "probability that a silent object moves"),
    "appearance-rho": (float, "how alike a second is to the one before, from -1 to 1"),
    "unseen-pictures": (float, "share of images held out of training"),
    "unseen-objects": (float, "share of categories held out of training"),
}


def synth_parser() -> Parser:
    parser = Parser(
        "avseg data synth",
        "ROOT [options]",
        "Write the generated benchmark: scenes of things that move and sound, as raw videos, masks and a CSV in "
        "AVSBench's layout. Started again after a stop, it writes only what is missing.",
        "avseg data stamps stamps\n"
        "avseg data synth bench --subset s4 --videos 200 --seed 0 --objects stamps\n"
        "avseg data prepare bench",
    )
    parser.add_argument(
        "root", metavar="ROOT", type=str, help="the folder that will hold Single-source/ or Multi-sources/"
    )
    parser.add_argument("--subset", type=Subset, default="s4", help="which layout and task")
    parser.add_argument("--videos", type=PositiveInt, default=200, help="labelled videos of all three splits together")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other scenes")
    parser.add_argument(
        "--objects",
        type=str,
        default="procedural",
        help="folder of cut-outs with sounds, such as `avseg data stamps` makes, or procedural, the built-in set",
    )
    parser.add_argument("--backgrounds", type=str | None, help="folder of photographs; generated ones if not given")
    parser.add_argument("--distant", type=NonNegativeInt, default=0, help="further unlabelled videos (ms3 only)")
    parser.add_argument("--edition", type=Literal["full", "small"], default="full", help="small is the demo's")
    parser.add_argument("--val", type=PositiveInt | None, help="videos for validation instead of 15 %")
    parser.add_argument("--test", type=PositiveInt | None, help="videos for testing instead of 15 %")
    parser.add_argument("--size", type=PositiveInt | None, help="pixels of both sides, instead of the edition's")
    parser.add_argument("--workers", type=PositiveInt | None, help=WORKERS)
    for name, (kind, text) in _KNOBS.items():
        parser.add_argument(f"--{name}", type=kind | None, metavar="X", help=f"{text}; the edition's if not given")
    return parser


def synth(options: Any) -> int:
    from avseg.synthetic import write_benchmark

    objects = None if options.objects == "procedural" else options.objects
    with progress(f"Writing {options.subset}", "videos") as update:
        info = write_benchmark(progress=update, **{**vars(options), "objects": objects})
    counts = ", ".join(f"{name} {count}" for name, count in info.counts.items())
    print(f"{info.root}: {info.subset} {info.version}, objects {info.objects}, {len(info.categories)} categories")
    print(f"videos: {counts}")
    if empty := [name for name, count in info.counts.items() if not count and name != "distant"]:
        note(f"{' and '.join(empty)} stay{'s' * (len(empty) == 1)} empty: --videos counts all splits, give 3 or more.")
    print(f"next: avseg data prepare {info.root} --subset {info.subset}")
    return 0


def stamps_parser() -> Parser:
    parser = Parser(
        "avseg data stamps",
        "DIR [--archive FILE]",
        "Fetch images that sound for the generated benchmark: cut-outs, mostly photographs, with real recordings, "
        "from Debian's package tuxpaint-stamps-default (161 MB, GPL-2+). Needs apt-get and dpkg-deb; installs nothing.",
        "avseg data stamps stamps",
    )
    parser.add_argument("folder", metavar="DIR", type=str, help="where they go: a new or an empty folder")
    parser.add_argument("--archive", type=str | None, help="the package's .deb, where it is on disk already")
    return parser


def stamps(options: Any) -> int:
    from rich.table import Table

    from avseg.synthetic.stamps import fetch_stamps

    found = fetch_stamps(options.folder, None if options.archive is None else Path(options.archive))
    table = Table(title=f"{found.folder}: {found.pictures} images with {found.recordings} recordings")
    for column in ("category", "picture", "licence"):
        table.add_column(column, overflow="fold")
    for row in found.rows:
        if row["role"] == "object":
            table.add_row(row["category"], row["picture"], row["licence"])
    show(table)
    for reason in found.dropped:
        note(f"left out: {reason}")
    return 0


def prepare_parser() -> Parser:
    parser = Parser(
        "avseg data prepare",
        "ROOT [options]",
        "Turn raw videos into what training reads: frames, 16 kHz sound, log-mel and optical flow. Stopped and started "
        "again, it makes only what is missing.",
        "avseg data prepare AVSBench --subset s4",
    )
    parser.add_argument("root", metavar="ROOT", type=str, help=ROOT)
    parser.add_argument("--subset", type=Subset | None, metavar="{s4,ms3}", help="those that are there if not given")
    parser.add_argument("--size", type=PositiveInt | None, help="side of the frames; that of the masks if not given")
    parser.add_argument(
        "--flow_method",
        type=Literal["farneback", "dis"],
        default="farneback",
        help="how optical flow is computed; each method has a folder of its own",
    )
    parser.add_argument(
        "--front_end",
        type=Literal["clean", "avsbench"] | None,
        metavar="{clean,avsbench}",
        help="clean, or exactly what AVSBench's authors made of such videos; that of files that are there if not given",
    )
    parser.add_argument("--workers", type=PositiveInt | None, help=WORKERS)
    add_engine(parser)
    parser.add_argument("--overwrite", action="store_true", help="make everything anew")
    return parser


def prepare(options: Any) -> int:
    from avseg.data.cluster import cluster_of
    from avseg.data.prepare import prepare as prepare_subset

    cluster = cluster_of(options.engine, options.address)
    failures = 0
    for subset in _subsets(options.root, options.subset):
        with progress(f"Preparing {subset}", "videos") as update:
            report = prepare_subset(
                options.root,
                subset,
                size=options.size,
                flow_method=options.flow_method,
                front_end=options.front_end,
                workers=options.workers,
                overwrite=options.overwrite,
                progress=update,
                cluster=cluster,
            )
        for _, remark in report.notes:
            note(remark)
        made = ", ".join(f"{kind} {count}" for kind, count in report.written.items() if count) or "nothing was missing"
        print(f"{subset}: {report.videos} videos; made: {made}; {report.kept} files were there already")
        for _, reason in report.failures:
            print(f"failed: {reason}")
        failures += len({name for name, _ in report.failures})
    if failures:
        print(f"{failures} video{'s' * (failures > 1)} could not be prepared; the others are ready")
    return 1 if failures else 0


def check_parser() -> Parser:
    parser = Parser(
        "avseg data check",
        "ROOT [options]",
        "Read every prepared file and list what is missing, unreadable or of the wrong size. The exit code is 1 if "
        "there is anything.",
        "avseg data check AVSBench --subset s4",
    )
    parser.add_argument("root", metavar="ROOT", type=str, help=ROOT)
    parser.add_argument("--subset", type=Subset | None, metavar="{s4,ms3}", help="those that are there if not given")
    parser.add_argument("--workers", type=PositiveInt | None, help=WORKERS)
    return parser


def check(options: Any) -> int:
    from avseg.data.check import check as check_subset

    count = 0
    for subset in _subsets(options.root, options.subset):
        with progress(f"Checking {subset}", "videos") as update:
            problems = check_subset(options.root, subset, workers=options.workers, progress=update)
        for problem in problems:
            print(f"{problem.path} {problem.what}")
        print(f"{subset}: {len(problems) or 'no'} problem{'s' * (len(problems) != 1)}")
        count += len(problems)
    if count:
        print(f"`avseg data prepare {options.root}` makes what is missing and can be made")
    return 1 if count else 0


def _subsets(root: str, asked: str | None) -> list[Any]:
    """The asked subset, or all that are in ``root``."""
    from avseg.data.avsbench import avsbench

    if asked is not None:
        return [asked]
    if not Path(root).is_dir():
        raise AvsegError(f"{root} is no folder: name {ROOT}.")
    data_sets = [avsbench(root, subset) for subset in get_args(Subset)]
    found = [data.name for data in data_sets if data.index.is_file()]
    if not found:
        names = " nor ".join(str(data.index.relative_to(root)) for data in data_sets)
        raise AvsegError(f"{root} has neither {names}: name {ROOT}, or write one with `avseg data synth`.")
    return found
