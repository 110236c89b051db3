"""``avseg reproduce``: run the paper's tables and print ours beside the paper's."""

from pathlib import Path
from typing import Any

from jsonargparse.typing import PositiveInt

from avseg.commands.learning import quiet_lightning
from avseg.commands.parser import Parser


def reproduce_parser() -> Parser:
    from avseg.reproduce.definition import experiment_names
    from avseg.reproduce.scale import scale_names

    names, scales = ", ".join(experiment_names()), " or ".join(scale_names())
    parser = Parser(
        "avseg reproduce",
        "TABLE [options]",
        "Run one of the paper's tables and print it: means over seeds, paired gains with 95 % intervals, and the "
        "paper's own numbers beside them. What is done already is kept, and a run that was stopped goes on.",
        "avseg reproduce table5\n"
        "avseg reproduce table5 --data.root AVSBench --scale paper --shard 3/8\n"
        "avseg reproduce table5 --only nf+df --seeds 1",
    )
    parser.add_argument("table", metavar="TABLE", type=str, help=f"one of {names}")
    parser.add_argument(
        "--data.root",
        type=str | None,
        metavar="ROOT",
        help="AVSBench, or anything prepared in its layout; a benchmark is generated if not given",
    )
    parser.add_argument("--scale", type=str, default="small", help=f"{scales}: the recipe that all runs share")
    parser.add_argument("--encoder", type=str | None, help="image encoder; the scale's first if not given")
    parser.add_argument("--seeds", type=PositiveInt, default=3, help="repetitions: seeds 0, 1, …")
    parser.add_argument("--only", type=str | None, metavar="CELL,...", help="some cells, rows or columns")
    parser.add_argument("--shard", type=str | None, metavar="K/N", help="every N-th run from the K-th on: a job array")
    parser.add_argument(
        "--set", type=str, nargs="+", metavar="FIELD=VALUE", help="change every run, such as run.accelerator=gpu"
    )
    parser.add_argument("--out", type=str, default="runs/reproduce", help="folder of data, runs, results and tables")
    parser.add_argument("--plan", action="store_true", help="only list the runs and which of them are done")
    parser.add_argument("--show", action="store_true", help="only print the results that come with avseg")
    return parser


def reproduce(options: Any) -> int:
    from avseg.reproduce.table import Request, run_table

    quiet_lightning()
    request = Request(
        table=options.table,
        scale=options.scale,
        encoder=options.encoder,
        root=options.data.root,
        seeds=options.seeds,
        only=tuple(options.only.split(",")) if options.only else (),
        part=options.shard,
        out=Path(options.out),
        overrides=tuple(f"--{change}" for change in options.set or ()),
    )
    for record in run_table(request, lambda text: print(text, flush=True)):
        print(record.experiment, record.cell, record.seed, record.miou, record.f_score)
    return 0
