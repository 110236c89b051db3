"""A table from the request to the page: find the data, plan, run, collect."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from avseg.config import load_config
from avseg.errors import AvsegError
from avseg.files import check_folder
from avseg.reproduce.definition import RESULTS, Cell, Experiment, read_experiment
from avseg.reproduce.plan import Place, Planner, Run, chosen, compared, needed, shard
from avseg.reproduce.records import Record, read_records, write_records
from avseg.reproduce.runs import Say, carry_out, records_of
from avseg.reproduce.scale import Scale, read_scale
from avseg.reproduce.data import TableData, generated_source, given_source, has_generated


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
    cells = [*experiment.cells, *compared(experiment)]
    _check_cells(request, scale, chosen(experiment, request.only))
    sources = {subset: _source(request, scale, subset, say) for subset in _subsets(cells)}
    planner = Planner(scale, encoder, sources, request.out, request.overrides)
    places = planner.places(experiment, range(request.seeds), request.only)
    return Plan(request, experiment, scale, encoder, tuple(places))


def _check_cells(request: Request, scale: Scale, cells: Sequence[Cell]) -> None:
    """Raise AvsegError where a configuration is not there or can't be changed so, before data are generated."""
    for subset, base in {(_subsets([cell])[0], cell.change.base or "tpavi") for cell in cells}:
        load_config(scale.config_file(subset, base, request.image_encoder), *request.overrides)


def list_plan(request: Request) -> list[str]:
    """A line for each run of a table, ``done`` or ``to do``; nothing is generated for it.

    Where the data have not been generated yet, runs have no names, and lines name places.

    Raises:
        AvsegError: as `make_plan`.
    """
    experiment, scale = read_experiment(request.table), read_scale(request.scale)
    cells = [*experiment.cells, *compared(experiment)]
    folder = request.out / "data"
    if request.root is None and not all(has_generated(scale, subset, folder) for subset in _subsets(cells)):
        seeds = range(request.seeds)
        wanted = chosen(experiment, request.only)
        _check_cells(request, scale, wanted)
        if request.part is not None:
            shard([], request.part)
            raise AvsegError(
                f"Which runs are part {request.part} is known once {folder} holds the data, which the first run "
                "generates: leave out --shard, or give --data.root."
            )
        return [f"to do  {cell.table} {cell.key}, seed {seed}" for seed in seeds for cell in wanted]
    plan = make_plan(request, lambda line: None)
    return [f"{'done' if run.done else 'to do':<7}{run.name}" for run in plan.runs]


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
