"""From a request for a table to its runs and their records."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from avseg.config import load_config
from avseg.data.frames import Subset
from avseg.data.parallel import working_in
from avseg.errors import AvsegError
from avseg.evaluation.evaluate import evaluate_checkpoint
from avseg.evaluation.scores import Scores, read_evaluation
from avseg.files import check_folder
from avseg.reproduce.data import TableData, generated_source, given_source, has_generated
from avseg.reproduce.definition import RESULTS, Cell, Experiment, Scale, read_experiment, read_scale
from avseg.reproduce.plan import Place, Planner, Run, chosen, needed, runnable, shard, subset_and_base
from avseg.reproduce.records import Record, read_records, write_records
from avseg.training.logs import read_metrics
from avseg.training.run import read_run, train
from avseg.training.watch import PseudoMasks

Say = Callable[[str], None]
DIGITS = 4


def carry_out(runs: Sequence[Run], scale: Scale, say: Say) -> None:
    """Do what isn't done, one run after the other. Stopped and called again, it goes on where it was.

    Runs that others start from are done first. Processes that were given the same run wait for each other.

    Raises:
        AvsegError: as `avseg.training.run.train` and `avseg.evaluation.evaluate.evaluate_checkpoint`.
    """
    before = torch.get_num_threads()
    if scale.threads is not None:
        torch.set_num_threads(scale.threads)
    try:
        todo = needed(runs)
        for number, run in enumerate(todo, start=1):
            if run.done:
                say(f"run {number} of {len(todo)}: {run.name} is done already")
                continue
            say(f"run {number} of {len(todo)}: {run.name}")
            with working_in(run.folder.with_suffix(".lock"), (), wait=True):
                _do(run, scale)
    finally:
        torch.set_num_threads(before)


def _do(run: Run, scale: Scale) -> None:
    if not (run.folder / "run.json").is_file():
        config = replace(run.config, run=replace(run.config.run, resume=True))
        train(config, [PseudoMasks(scale.watch)])
    if not run.scored:
        flow = run.config.data.flow
        subset = cast(Subset, run.source.subset)
        evaluate_checkpoint(
            run.folder, run.source.root, subset, "test", run.test_file, device=_device(run), workers=0, flow=flow
        )


def _device(run: Run) -> str:
    return "cpu" if run.config.run.accelerator == "cpu" or not torch.cuda.is_available() else "cuda"


def records_of(places: Sequence[Place], scale: Scale) -> list[Record]:
    """A record of each place whose run is done."""
    return [_record(place, scale) for place in places if place.run.done]


def _record(place: Place, scale: Scale) -> Record:
    run = place.run
    evaluation, origin = read_evaluation(run.test_file), read_run(run.folder)
    scores = evaluation.scores[scale.protocol]
    facts = {key: origin.pop(key) for key in ("steps", "seconds", "parameters")}
    for known in ("validation", "validation_size", "seed"):
        origin.pop(known, None)
    metrics = read_metrics(run.folder / "metrics.csv")
    return Record(
        experiment=place.cell.table,
        cell=place.cell.key,
        seed=place.seed,
        scale=scale.name,
        encoder=run.encoder,
        base=run.config.model.base,
        subset=run.source.subset,
        protocol=scale.protocol,
        miou=scores.miou,
        f_score=scores.f_score,
        protocols={name: {"miou": s.miou, "f_score": s.f_score} for name, s in evaluation.scores.items()},
        diagnostics=_rounded(evaluation.diagnostics[scale.protocol]),
        videos=_per_video(scores),
        validation=[(int(row["step"]), round(row["val/miou"], DIGITS)) for row in metrics if "val/miou" in row],
        pseudo=_pseudo(run.folder / "pseudo.csv"),
        run=run.name,
        config=_config(run),
        data=run.source.facts,
        origin=origin,
        size=evaluation.size,
        **facts,
    )


def _per_video(scores: Scores) -> dict[str, tuple[float, float]]:
    return {video.key: (round(video.miou, DIGITS), round(video.f_score, DIGITS)) for video in scores.videos}


def _pseudo(file: Path) -> list[dict[str, float]]:
    rows = read_metrics(file) if file.is_file() else []
    return [{key: round(value, DIGITS) for key, value in row.items()} for row in rows]


def _config(run: Run) -> dict[str, Any]:
    """The configuration without paths, which mean nothing elsewhere."""
    values = run.config.to_dict()
    for section, key in (("data", "root"), ("data", "labelled"), ("data", "distant_root"), ("run", "out")):
        path = values[section].pop(key)
        if key == "labelled" and path:
            values[section][key] = Path(path).name
    if values["weights"]["start"]:
        values["weights"]["start"] = Path(values["weights"]["start"]).name
    return values


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return round(value, DIGITS) if isinstance(value, float) else value


@dataclass(frozen=True)
class Request:
    """What somebody wants of a table.

    Attributes:
        table: Its name.
        scale: ``small`` or ``paper``.
        encoder: Image encoder; None is the scale's first.
        root: Data in AVSBench's layout; None generates a benchmark below ``out``.
        seeds: How many seeds, from 0.
        only: Cells, rows or columns; empty is all, with the cells of other tables that gains are given over.
        part: ``k/n``: every n-th run from the k-th on; None is all.
        out: The folder of data, runs, results and tables.
        overrides: Options of every run, as on the command line of ``avseg train``.
    """

    table: str
    scale: str = "small"
    encoder: str | None = None
    root: str | Path | None = None
    seeds: int = 3
    only: tuple[str, ...] = ()
    part: str | None = None
    out: Path = Path("runs/reproduce")
    overrides: tuple[str, ...] = ()

    @property
    def image_encoder(self) -> str:
        """The one that was asked for, or the scale's first.

        Raises:
            AvsegError: the scale has no such encoder.
        """
        scale = read_scale(self.scale)
        if self.encoder is not None and not scale.has(self.encoder):
            raise AvsegError(
                f"--encoder: the scale {scale.name} has no encoder '{self.encoder}': choose "
                f"{' or '.join(scale.encoders)}."
            )
        return self.encoder or scale.encoders[0]


@dataclass(frozen=True)
class Plan:
    """A request with data, cells and runs found.

    Attributes:
        request: As asked.
        experiment, scale, encoder: What it names.
        places: All places that are wanted, of this table and of others that gains are given over.
    """

    request: Request
    experiment: Experiment
    scale: Scale
    encoder: str
    places: tuple[Place, ...]

    @property
    def runs(self) -> list[Run]:
        """The runs of this part, each once."""
        runs = needed([place.run for place in self.places])
        return runs if self.request.part is None else shard(runs, self.request.part)


def make_plan(request: Request, say: Say) -> Plan:
    """Find the data (a benchmark is generated where none are given) and plan the runs.

    Raises:
        AvsegError: a table, scale, cell or encoder that doesn't exist; data that can't be read or generated.
    """
    experiment, scale = read_experiment(request.table), read_scale(request.scale)
    encoder = request.image_encoder
    if request.part is not None:
        shard([], request.part)
    check_folder(request.out)
    cells = runnable(experiment, scale, encoder, request.only)
    _check_cells(request, scale, cells)
    for line in _not_run(request, experiment, cells):
        say(line)
    sources = {subset: _source(request, scale, subset, say) for subset in _subsets(cells)}
    planner = Planner(scale, encoder, sources, request.out, request.overrides)
    places = planner.places(experiment, range(request.seeds), request.only)
    return Plan(request, experiment, scale, encoder, tuple(places))


def _check_cells(request: Request, scale: Scale, cells: Sequence[Cell]) -> None:
    """Raise AvsegError where a configuration is not there or can't be changed so, before data are generated."""
    for subset, base in {subset_and_base(cell) for cell in cells}:
        load_config(scale.config_file(subset, base, request.image_encoder), *request.overrides)


def list_plan(request: Request) -> list[str]:
    """A line for each run of a table, ``done``, ``to do`` or ``not run``; nothing is generated for it.

    Where the data have not been generated yet, runs have no names, and lines name places.

    Raises:
        AvsegError: as `make_plan`.
    """
    experiment, scale = read_experiment(request.table), read_scale(request.scale)
    wanted = runnable(experiment, scale, request.image_encoder, request.only)
    left_out = _not_run(request, experiment, wanted)
    folder = request.out / "data"
    if request.root is None and not all(has_generated(scale, subset, folder) for subset in _subsets(wanted)):
        seeds = range(request.seeds)
        _check_cells(request, scale, wanted)
        if request.part is not None:
            shard([], request.part)
            raise AvsegError(
                f"Which runs are part {request.part} is known once {folder} holds the data, which the first run "
                "generates: leave out --shard, or give --data.root."
            )
        return [f"to do  {cell.table} {cell.key}, seed {seed}" for seed in seeds for cell in wanted] + left_out
    plan = make_plan(request, lambda line: None)
    return [f"{'done' if run.done else 'to do':<7}{run.name}" for run in plan.runs] + left_out


def _not_run(request: Request, experiment: Experiment, cells: Sequence[Cell]) -> list[str]:
    """What is said of cells that the scale has no configuration for, beside those that are run."""
    return [
        f"not run: {cell.table} {cell.key}, as the scale {request.scale} has no configuration of "
        f"{subset_and_base(cell)[1]} with {request.image_encoder}"
        for cell in chosen(experiment, request.only)
        if cell not in cells
    ]


def run_table(request: Request, say: Say) -> list[Record]:
    """Do what a table still needs and leave its results in ``OUT/results/TABLE.jsonl``.

    Returns:
        The records of all places of the request whose runs are done, those of other parts included.

    Raises:
        AvsegError: as `make_plan`, and as training and evaluation.
    """
    plan = make_plan(request, say)
    carry_out(plan.runs, plan.scale, say)
    return collect(plan)


def collect(plan: Plan) -> list[Record]:
    """Records of the plan's places that are done; those of each table are also written to its file."""
    records = records_of(plan.places, plan.scale)
    for table in dict.fromkeys(record.experiment for record in records):
        file = plan.request.out / "results" / f"{table}.jsonl"
        own = [record for record in records if record.experiment == table]
        places = {(record.place, record.data["hash"]) for record in own}
        before = [r for r in read_records(file) if (r.place, r.data.get("hash")) not in places]
        write_records(file, sorted([*before, *own], key=lambda record: record.place))
    return records


def known_records(folder: Path = RESULTS) -> list[Record]:
    """The results that come with avseg, of all tables."""
    return read_records(folder)


def of_request(records: Sequence[Record], request: Request, seeds: int | None) -> list[Record]:
    """Those of ``records`` that a table shows: of its cells (`Request.only`) and seeds; None takes every seed.

    Raises:
        AvsegError: `Request.only` names what isn't there.
    """
    cells = {(cell.table, cell.key) for cell in chosen(read_experiment(request.table), request.only)}
    return [one for one in records if (one.experiment, one.cell) in cells and (seeds is None or one.seed < seeds)]


def agreement(record: Record, known: Sequence[Record]) -> str:
    """Whether a number is the one that comes with avseg for the same place, data and size; empty where none does."""
    for other in known:
        if (other.place, other.data.get("hash")) == (record.place, record.data.get("hash")):
            if other.size != record.size:
                return ""
            same = "the same" if abs(other.miou - record.miou) < 5e-5 else "another number"
            where = ", ".join(str(other.origin.get(key, "?")) for key in ("machine", "torch", "date"))
            place = f"{record.experiment} {record.cell}, seed {record.seed}"
            return (
                f"{place}: mIoU {100 * record.miou:.2f}; the results that come with avseg have "
                f"{100 * other.miou:.2f}, {same} ({where})"
            )
    return ""


def _subsets(cells: Sequence[Cell]) -> list[str]:
    found = []
    for cell in cells:
        found.append(str(cell.change.set.get("data.subset", "s4")))
        if cell.change.start:
            found.append(str(cell.change.start.get("data.subset", "s4")))
    return list(dict.fromkeys(found))


def _source(request: Request, scale: Scale, subset: str, say: Say) -> TableData:
    if request.root is not None:
        return given_source(request.root, subset)
    if subset not in scale.data:
        raise AvsegError(f"The scale {scale.name} generates no data for {subset}: give --data.root.")
    return generated_source(scale, subset, request.out / "data", say)
