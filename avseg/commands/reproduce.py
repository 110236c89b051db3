"""``avseg reproduce``: run the paper's tables and print ours beside the paper's."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse.typing import PositiveInt

from avseg.commands.console import show
from avseg.commands.learning import quiet_lightning
from avseg.commands.parser import Parser
from avseg.errors import AvsegError

if TYPE_CHECKING:
    from avseg.reproduce.records import Record
    from avseg.reproduce.table import Request

OUT = "runs/reproduce"
SEEDS = 3

# Fields that decide which run it is, or that a table sets by itself, and what says them instead.
_FIXED = {
    "run.out": "--out names the folder",
    "run.seed": "--seeds says how many there are",
    "data.root": "--data.root names the data",
    "data.subset": "rows and columns name the subset",
    "data.labelled": "rows and columns name the share of labels",
    "weights.start": "rows and columns name the run to start from",
}


def reproduce_parser() -> Parser:
    from avseg.reproduce.definition import experiment_names, protocol_names, scale_names

    names = [*experiment_names(), *protocol_names()]
    parser = Parser(
        "avseg reproduce",
        "TABLE [options]",
        "Run one of the paper's tables and print it: means over seeds, paired gains with 95 % intervals, and the "
        "paper's own numbers beside them. What is done already is kept, and a run that was stopped goes on. "
        f"{', '.join(protocol_names()[:-1])} and {protocol_names()[-1]} run nothing: they answer questions from the "
        "results of several tables.",
        "avseg reproduce table5\n"
        "avseg reproduce table5 --only nf+df --seeds 1\n"
        "avseg reproduce overview --show\n"
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
    parser.add_argument(
        "--seeds",
        type=PositiveInt | None,
        help=f"repetitions: seeds 0, 1, …; {SEEDS} if not given, and where nothing is run all that there are",
    )
    parser.add_argument("--only", type=str | None, metavar="CELL,...", help="some cells, rows or columns of a table")
    parser.add_argument("--shard", type=str | None, metavar="K/N", help="every N-th run from the K-th on: a job array")
    parser.add_argument(
        "--set", type=str, nargs="+", metavar="FIELD=VALUE", help="change every run, such as run.accelerator=gpu"
    )
    parser.add_argument("--out", type=str, default=OUT, help="folder of data, runs, results and tables")
    parser.add_argument("--plan", action="store_true", help="only list the runs and which of them are done")
    parser.add_argument("--show", action="store_true", help="only print the results that come with avseg")
    return parser


def reproduce(options: Any) -> int:
    from avseg.reproduce.definition import protocol_names
    from avseg.reproduce.table import Request, known_records, list_plan, of_request, run_table

    quiet_lightning()
    _check(options)
    request = Request(
        table=options.table,
        scale=options.scale,
        encoder=options.encoder,
        root=options.data.root,
        seeds=options.seeds or SEEDS,
        only=_cells(options.only),
        part=options.shard,
        out=Path(options.out),
        overrides=tuple(f"--{change}" for change in options.set or ()),
    )
    if options.table in protocol_names():
        _answer(request, options.show, options.seeds)
    elif options.plan:
        for line in list_plan(request):
            _say(line)
    elif options.show:
        _print(request, of_request(known_records(), request, options.seeds), known=True)
    else:
        _print(request, run_table(request, _say), known=False)
    return 0


def _check(options: Any) -> None:
    """Refuse options that would have no say in what was asked for.

    Raises:
        AvsegError: there is one.
    """
    from avseg.reproduce.definition import protocol_names

    given = {
        "--plan": options.plan,
        "--only": options.only is not None,
        "--shard": options.shard is not None,
        "--set": options.set is not None,
        "--data.root": options.data.root is not None,
        "--out": options.show and options.out != OUT,
    }
    if options.table in protocol_names():
        for name in (name for name, there in given.items() if there and name != "--out"):
            raise AvsegError(
                f"{options.table} answers questions from the results of {_tables(options.table)} and runs nothing, so "
                f"{name} has no say in it: give it to `avseg reproduce` with one of these tables, and ask "
                f"{options.table} afterwards."
            )
    if options.show:
        for name in (name for name, there in given.items() if there and name != "--only"):
            raise AvsegError(
                f"--show prints the results that come with avseg and runs nothing, so {name} has no say in it: leave "
                f"out --show or {name}."
            )
    for change in options.set or ():
        field, equals, _ = change.partition("=")
        if not equals:
            raise AvsegError(f"--set takes FIELD=VALUE, such as run.accelerator=gpu, not {change}.")
        if field in _FIXED:
            raise AvsegError(f"--set can't change {field}: {_FIXED[field]}.")


def _cells(text: str | None) -> tuple[str, ...]:
    names = tuple(part.strip() for part in (text or "").split(",") if part.strip())
    if text is not None and not names:
        raise AvsegError("--only names no cell: leave it out, or see `avseg reproduce TABLE --plan`.")
    return names


def _tables(protocol: str) -> str:
    """The tables whose results a protocol needs, in words."""
    from avseg.reproduce.hypotheses import read_hypotheses

    names = {cell.partition(":")[0] for test in read_hypotheses(protocol).tests for cell in test.cells}
    *most, last = sorted(names)
    return f"{', '.join(most)} and {last}" if most else last


def _print(request: "Request", records: "list[Record]", known: bool) -> None:
    """The table in the terminal; of what was run here also as Markdown and HTML, and whether it is what avseg found."""
    from avseg.reproduce.definition import read_experiment
    from avseg.reproduce.document import to_terminal, write_documents
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


def _answer(request: "Request", known: bool, seeds: int | None) -> None:
    """The answers to a protocol's questions; of what was run here also as Markdown and a figure."""
    from avseg.reproduce.document import answers_to_terminal, write_answers
    from avseg.reproduce.hypotheses import answer_hypotheses, read_hypotheses
    from avseg.reproduce.records import read_records
    from avseg.reproduce.table import known_records

    records = known_records() if known else read_records(request.out / "results")
    records = [one for one in records if seeds is None or one.seed < seeds]
    protocol = read_hypotheses(request.table)
    outcomes = answer_hypotheses(records, request.image_encoder, request.scale, protocol=protocol)
    if not outcomes.data and not known:
        raise AvsegError(
            f"{request.out / 'results'} has no results of {_tables(request.table)} with {request.image_encoder} at the "
            f"scale {request.scale}, which {request.table} is about: run these tables with `avseg reproduce`, or give "
            "--show for the results that come with avseg."
        )
    show(answers_to_terminal(outcomes))
    if known:
        return
    for path in write_answers(outcomes, request.table, request.out / "tables"):
        _say(f"written: {path}")


def _say(text: str) -> None:
    print(text, flush=True)
