"""From a place in a table to a run: its configuration, what identifies it, and which runs it stands on.

Places of several tables may be one run (Table 5's first row, Table 1's, the last column of Table 3). Runs are known by
what decides their result, so each is done once.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any, cast

from avseg.config import Config, load_config
from avseg.data.avsbench import avsbench, read_frames
from avseg.data.frames import Subset
from avseg.data.lists import label_subset, write_label_subset
from avseg.errors import AvsegError
from avseg.evaluation.scores import read_evaluation
from avseg.reproduce.data import TableData
from avseg.reproduce.definition import Cell, Change, Experiment, Scale, read_experiment

# What says where and how a run is done, and not what comes of it.
_ELSEWHERE = {
    "run": ("out", "seed", "accelerator", "devices", "nodes", "resume", "progress", "logger"),
    "data": ("root", "labelled", "distant_root", "store", "workers"),
    "weights": ("start",),
}


@dataclass(frozen=True)
class Run:
    """A training run and its test.

    Attributes:
        name: Its folder below ``runs/``: what it is in words, and a digest of all that decides its result.
        config: With ``run.out``, ``data.root`` and the rest filled in.
        source: The data.
        seed: Of initial weights, order and perturbation; also of label subsets.
        encoder: The image encoder.
        start: The run whose weights this one starts from; None: none.
    """

    name: str
    config: Config
    source: TableData
    seed: int
    encoder: str
    start: "Run | None" = None

    @property
    def folder(self) -> Path:
        """Where it is."""
        return Path(self.config.run.out)

    @property
    def test_file(self) -> Path:
        """The scores on the test split; it is there when the run is done."""
        return self.folder / "test.json"

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.scored and (self.folder / "run.json").is_file()

    @property
    def scored(self) -> bool:
        """Whether it has scores, and such as are taken now: they were at the model's size before 2026-11-26."""
        return self.test_file.is_file() and read_evaluation(self.test_file).size == "truth"


@dataclass(frozen=True)
class Place:
    """A cell of a table for one seed, and the run that fills it."""

    cell: Cell
    seed: int
    run: Run


@dataclass(frozen=True)
class Planner:
    """Makes runs of cells.

    Attributes:
        scale: The recipe.
        encoder: The image encoder.
        sources: The data of each subset.
        out: The folder of ``runs/`` and ``labels/``.
        overrides: Further options of every run, as on the command line of ``avseg train``.
    """

    scale: Scale
    encoder: str
    sources: dict[str, TableData]
    out: Path
    overrides: tuple[str, ...] = ()

    def places(self, experiment: Experiment, seeds: Sequence[int], only: Sequence[str] = ()) -> list[Place]:
        """The places of a table, seed by seed, so that what is stopped early leaves whole comparisons.

        Args:
            experiment: The table.
            seeds: Which seeds.
            only: Keys of cells, or of rows or columns; empty is all, and what gains are given over in other tables, as
                far as the scale has configurations for them.

        Raises:
            AvsegError: ``only`` names what isn't there, or a cell has no valid configuration.
        """
        cells = runnable(experiment, self.scale, self.encoder, only)
        return [Place(cell, seed, self.run(cell.change, seed)) for seed in seeds for cell in cells]

    def run(self, change: Change, seed: int) -> Run:
        """The run that a change of the scale's configuration leads to.

        Raises:
            AvsegError: a configuration that doesn't exist, or an option that no configuration has.
        """
        subset = str(change.set.get("data.subset", "s4"))
        base = change.base or "tpavi"
        source = self.sources[subset]
        file = self.scale.config_file(subset, base, self.encoder)
        asked, change = change, self.scale.subsets.get(subset, Change()).then(change)
        change = change.then(Change(set=change.scales.get(self.scale.name, {})))
        own = [f"--{key}={_text(value)}" for key, value in change.set.items()]
        plain = load_config(file, *own, *self.overrides)
        factors = [f"--{key}={_times(plain, key, factor)}" for key, factor in change.times.items()]
        config = load_config(file, *own, *self.overrides, *factors) if factors else plain
        start = None
        if change.start is not None:
            first = replace(asked, start=None)
            start = self.run(first.then(Change(set=change.start)), seed)
            config.weights.start = str(start.folder)
        labels = () if change.labels is None else self._labels(source, change.labels, seed, config)
        config.run.seed, config.data.root = seed, str(source.root)
        name = "-".join((
            subset, base, *_words(config, change), f"seed{seed}",
            _digest(config, source, seed, labels, start),
        ))  # fmt: skip
        config.run.out = str(self.out / "runs" / name)
        return Run(name, config, source, seed, self.encoder, start)

    def _labels(self, source: TableData, share: float, seed: int, config: Config) -> Sequence[str]:
        """Names of the videos whose labels are used; they are also written down, for others to use."""
        names = label_subset(read_frames(avsbench(source.root, cast(Subset, source.subset))), share, seed)
        path = self.out / "labels" / f"{source.subset}-{source.hash}-{100 * share:g}pc-seed{seed}.txt"
        if not path.is_file():
            write_label_subset(path, names)
        config.data.labelled = str(path)
        return names


def needed(runs: Sequence[Run]) -> list[Run]:
    """Each run once, and before it the one that it starts from."""
    found: dict[str, Run] = {}
    for run in runs:
        for each in _with_starts(run):
            found.setdefault(each.name, each)
    return list(found.values())


def shard(runs: Sequence[Run], which: str) -> list[Run]:
    """The part ``k/n`` of ``runs``, k from 1 to n; parts are disjoint but for runs that others start from.

    Raises:
        AvsegError: not of that form.
    """
    number, _, count = which.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise AvsegError(f"--shard takes k/n with k from 1 to n, such as 3/8, not {which}.")
    return list(runs)[int(number) - 1 :: int(count)]


def _with_starts(run: Run) -> Iterator[Run]:
    if run.start is not None:
        yield from _with_starts(run.start)
    yield run


def chosen(experiment: Experiment, only: Sequence[str] = ()) -> list[Cell]:
    """The cells that are to be run: those named by ``only``, or all, after those of other tables that gains are over.

    Raises:
        AvsegError: ``only`` names what isn't there.
    """
    cells = [cell for cell in experiment.cells if not cell.row.published_only]
    if not only:
        return [*compared(experiment), *cells]
    keys = {cell.key: {cell.key, cell.row.key, cell.column.key if cell.column else cell.key} for cell in cells}
    for name in only:
        if not any(name in names for names in keys.values()):
            raise AvsegError(f"--only: {experiment.name} has no cell '{name}': it has {', '.join(keys)}.")
    return [cell for cell in cells if keys[cell.key] & set(only)]


def runnable(experiment: Experiment, scale: Scale, encoder: str, only: Sequence[str] = ()) -> list[Cell]:
    """`chosen`, without cells of base models that the scale has no configuration of with this image encoder.

    Where ``only`` names cells, or nothing would be left, all stay, and what looks for the configuration says so.
    """
    cells = chosen(experiment, only)
    found = [cell for cell in cells if scale.path(*subset_and_base(cell), encoder).is_file()]
    return cells if only or not found else found


def subset_and_base(cell: Cell) -> tuple[str, str]:
    """Whose configuration a cell changes."""
    return str(cell.change.set.get("data.subset", "s4")), cell.change.base or "tpavi"


def compared(experiment: Experiment) -> list[Cell]:
    """Cells of other tables that gains of ``experiment`` are given over."""
    pairs = dict.fromkeys(pair for cell in experiment.cells for pair in experiment.against(cell))
    return [read_experiment(name).cell(key) for name, key in pairs if name != experiment.name]


def _words(config: Config, change: Change) -> list[str]:
    """What a person should see in the folder's name."""
    words = []
    if config.model.neighbouring_frames:
        words.append("nf")
    if config.ufe.distant_frames:
        words.append("df")
    if change.labels is not None:
        words.append(f"{100 * change.labels:g}pc")
    return words or ["baseline"]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _times(config: Config, key: str, factor: float) -> int | float:
    value = reduce(getattr, key.split("."), config)
    if not isinstance(value, int | float):
        raise AvsegError(f"times: {key} is no number in the configuration, so nothing can multiply it.")
    return max(1, round(value * factor)) if isinstance(value, int) else value * factor


# A default that has changed since runs were first named: what has the new one must not take an old run for its own.
_FIRST_DEFAULTS = {"flow_fusion": "sum"}


def _digest(config: Config, source: TableData, seed: int, labels: Sequence[str], start: Run | None) -> str:
    """Of all that decides a result. Fields at their defaults don't count, so that a new option changes no name."""
    values, plain = config.to_dict(), Config().to_dict()
    plain["model"] |= _FIRST_DEFAULTS
    if not config.model.neighbouring_frames:
        del values["model"]["flow_fusion"]
    for section, names in _ELSEWHERE.items():
        for name in names:
            del values[section][name], plain[section][name]
    facts = {
        "config": _different(values, plain),
        "data": source.hash,
        "seed": seed,
        "labels": list(labels),
        "start": start.name if start else None,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]


def _different(values: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(plain.get(key), dict):
            inner = _different(value, plain[key])
            if inner:
                found[key] = inner
        elif value != plain.get(key):
            found[key] = value
    return found
