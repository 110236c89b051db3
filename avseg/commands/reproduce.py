"""``avseg reproduce``: run the paper's tables and print ours beside the paper's."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse.typing import PositiveInt

from avseg.commands.console import show
from avseg.commands.learning import quiet_lightning
from avseg.commands.parser import Parser

if TYPE_CHECKING:
    from avseg.reproduce.records import Record
    from avseg.reproduce.table import Request


def reproduce_parser() -> Parser:
    from avseg.reproduce.definition import experiment_names, protocol_names
    from avseg.reproduce.scale import scale_names

    names = [*experiment_names(), *protocol_names()]
    parser = Parser(
        "avseg reproduce",
        "TABLE [options]",
        "Run one of the paper's tables and print it: means over seeds, paired gains with 95 % intervals, and the "
        "paper's own numbers beside them. What is done already is kept, and a run that was stopped goes on.",
        "avseg reproduce table5\n"
        "avseg reproduce table5 --only nf+df --seeds 1\n"
        "avseg reproduce table5 --data.root AVSBench --scale paper --shard 3/8",
    )
    parser.add_argument("table", metavar="TABLE", choices=names, help=f"one of {', '.join(names)}")
    parser.add_argument(
        "--data.root",
        type=str | None,
        metavar="ROOT",
        help="AVSBench, or anything prepared in its layout; a benchmark is generated if not given",
    )
    parser.add_argument(
        "--scale",
        choices=scale_names(),
        default="small",
        help=f"{' or '.join(scale_names())}: the recipe that all runs share",
    )
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
    from avseg.reproduce.definition import protocol_names
    from avseg.reproduce.table import Request, known_records, list_plan, run_table

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
    if options.table in protocol_names():
        _answer(request, options.show)
    elif options.plan:
        for line in list_plan(request):
            _say(line)
    else:
        _print(request, known_records() if options.show else run_table(request, _say), options.show)
    return 0


def _print(request: "Request", records: "list[Record]", known: bool) -> None:
    """The table in the terminal; of what was run here also as Markdown and HTML, and whether it is what avseg found."""
    from avseg.reproduce.definition import read_experiment
    from avseg.reproduce.document import write_documents
    from avseg.reproduce.show import to_terminal
    from avseg.reproduce.summary import summarise
    from avseg.reproduce.table import agreement, known_records

    summary = summarise(read_experiment(request.table), records, request.image_encoder, request.scale)
    show(to_terminal(summary))
    if known:
        return
    ours = known_records()
    for sentence in (agreement(record, ours) for record in summary.records):
        if sentence:
            _say(sentence)
    for path in write_documents(summary, request.out / "tables"):
        _say(f"written: {path}")


def _answer(request: "Request", known: bool) -> None:
    """The answers to a protocol's questions; of what was run here also as Markdown and a figure."""
    from avseg.reproduce.document import write_answers
    from avseg.reproduce.hypotheses import answer_hypotheses, read_hypotheses
    from avseg.reproduce.records import read_records
    from avseg.reproduce.show import answers_to_terminal
    from avseg.reproduce.table import known_records

    records = known_records() if known else read_records(request.out / "results")
    protocol = read_hypotheses(request.table)
    outcomes = answer_hypotheses(records, request.image_encoder, request.scale, protocol=protocol)
    show(answers_to_terminal(outcomes))
    if known:
        return
    for path in write_answers(outcomes, request.table, request.out / "tables"):
        _say(f"written: {path}")


def _say(text: str) -> None:
    print(text, flush=True)
