"""What an experiment is: rows and columns of a table, each a change of a configuration, and the scales it is run at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from os.path import normpath
from pathlib import Path
from typing import Any

from avseg.errors import AvsegError
from avseg.reading import read_yaml

FOLDER = Path(str(files("avseg"))) / "experiments"
PROTOCOLS = FOLDER / "protocol"
RESULTS = FOLDER / "results"
"""The results that come with avseg: one JSON line a run."""


@dataclass(frozen=True)
class Change:
    """What a table, a row or a column changes in a configuration.

    Attributes:
        set: Values by field, such as ``{"ufe.distant_frames": True}``.
        times: Factors by field: the value is that of the scale's configuration times the factor, rounded.
        scales: Further values by scale and field, where the scales don't share one.
        labels: Share of the labelled training videos whose labels are used; None is all.
        base: The base model; None leaves it to others.
        start: Changes that lead to the run whose weights training starts from (the paper's Table 4); None is none.
    """

    set: Mapping[str, Any] = field(default_factory=dict)
    times: Mapping[str, float] = field(default_factory=dict)
    scales: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    labels: float | None = None
    base: str | None = None
    start: Mapping[str, Any] | None = None

    def then(self, later: "Change") -> "Change":
        """This change and ``later`` upon it, which wins."""
        return Change(
            set={**self.set, **later.set},
            times={**self.times, **later.times},
            scales={
                name: {**self.scales.get(name, {}), **later.scales.get(name, {})}
                for name in {**self.scales, **later.scales}
            },
            labels=self.labels if later.labels is None else later.labels,
            base=later.base or self.base,
            start=self.start if later.start is None else later.start,
        )


@dataclass(frozen=True)
class Axis:
    """A row or a column of a table.

    Attributes:
        key: Its name in commands and results.
        label: Its name in a printed table.
        change: What it changes.
        against: Rows (``none``, or ``table5:none`` of another table) that gains are given over.
        published_only: Whether it only quotes published numbers, and nothing is run for it.
    """

    key: str
    label: str
    change: Change = field(default_factory=Change)
    against: tuple[str, ...] = ()
    published_only: bool = False


@dataclass(frozen=True)
class Cell:
    """One place of a table: a row, and a column where there are any.

    Attributes:
        table: The table's name.
        key: ``row`` or ``row/column``.
        row, column: Its axes; no column in a table without columns.
        change: Everything that the table, the column and the row change.
    """

    table: str
    key: str
    row: Axis
    column: Axis | None
    change: Change


@dataclass(frozen=True)
class Published:
    """A number of a paper, as printed: ``miou`` in percent, ``f_score`` in 0..1; empty where it gives none."""

    miou: str = ""
    f_score: str = ""


@dataclass(frozen=True)
class Experiment:
    """A table.

    Attributes:
        name: As in commands and file names: ``table5``.
        title, source, question: In words.
        rows, columns: In the order they are printed; a table may have no columns.
        common: What all cells change.
        paper: Published numbers by image encoder and cell.
        notes: Remarks to print below.
    """

    name: str
    title: str
    source: str
    question: str
    rows: tuple[Axis, ...]
    columns: tuple[Axis, ...] = ()
    common: Change = field(default_factory=Change)
    paper: Mapping[str, Mapping[str, Published]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def cells(self) -> list[Cell]:
        """All places, row by row."""
        places: list[tuple[Axis, Axis | None]] = [
            (row, column) for row in self.rows for column in (self.columns or (None,))
        ]
        return [self._cell(row, column) for row, column in places]

    def cell(self, key: str) -> Cell:
        """The place called ``key``.

        Raises:
            AvsegError: there is none.
        """
        for cell in self.cells:
            if cell.key == key:
                return cell
        raise AvsegError(f"{self.name} has no cell '{key}': it has {', '.join(cell.key for cell in self.cells)}.")

    def against(self, cell: Cell) -> list[tuple[str, str]]:
        """The places that gains of ``cell`` are given over: (experiment, key of the cell in the same column)."""
        found = []
        for name in cell.row.against:
            table, _, row = name.rpartition(":")
            found.append((table or self.name, f"{row}/{cell.column.key}" if cell.column and not table else row))
        return found

    def _cell(self, row: Axis, column: Axis | None) -> Cell:
        change = self.common.then(column.change if column else Change()).then(row.change)
        return Cell(self.name, f"{row.key}/{column.key}" if column else row.key, row, column, change)


def experiment_names() -> list[str]:
    """The tables that can be asked for."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def protocol_names() -> list[str]:
    """The questions over several tables that can be asked for; see `avseg.reproduce.hypotheses`."""
    return sorted(path.stem for path in PROTOCOLS.glob("*.yaml"))


def read_experiment(name: str) -> Experiment:
    """Read ``experiments/NAME.yaml``.

    Raises:
        AvsegError: there is no such table, or its file is faulty.
    """
    path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise AvsegError(f"There is no experiment '{name}': choose {', '.join(experiment_names())}.")
    try:
        values = read_yaml(path)
        common = _change(values)
        return Experiment(
            name=name,
            rows=_axes(values.pop("rows")),
            columns=_axes(values.pop("columns", {})),
            common=common,
            paper={
                encoder: {key: Published(**numbers) for key, numbers in cells.items()}
                for encoder, cells in values.pop("paper", {}).items()
            },
            notes=tuple(values.pop("notes", ())),
            **{key: str(values.pop(key)) for key in ("title", "source", "question")},
            **values,
        )
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise AvsegError(f"{path} is no table of experiments ({error}): correct it.") from error


def _axes(rows: Mapping[str, Mapping[str, Any]]) -> tuple[Axis, ...]:
    axes = []
    for key, given in rows.items():
        values = dict(given)
        change = _change(values)
        axes.append(Axis(str(key), str(values.pop("label")), change, tuple(values.pop("against", ())), **values))
    return tuple(axes)


def _change(values: dict[str, Any]) -> Change:
    """Take the parts of a `Change` out of ``values``."""
    return Change(
        **{name: values.pop(name) for name in ("set", "times", "scales", "labels", "base", "start") if name in values}
    )


@dataclass(frozen=True)
class Scale:
    """A recipe that all cells of a table share.

    Attributes:
        name: ``small`` or ``paper``.
        title: In words.
        config: Path of the configurations, with ``{subset}``, ``{base}`` and ``{encoder}`` in it.
        encoders: The image encoders; the first is the default.
        protocol: The one that tables show.
        data: What is generated for a subset where no data are given: arguments of
            `avseg.synthetic.write_benchmark`.
        subsets: What changes for a subset.
        threads: PyTorch's threads, so that a rerun adds in the same order; None leaves them.
        watch: Epochs between two looks at the pseudo masks.
    """

    name: str
    title: str
    config: str
    encoders: tuple[str, ...]
    protocol: str
    data: Mapping[str, Mapping[str, Any]]
    subsets: Mapping[str, Change] = field(default_factory=dict)
    threads: int | None = None
    watch: int = 1

    def has(self, encoder: str) -> bool:
        """Whether there is any configuration with this image encoder, one that somebody added included."""
        if "{encoder}" not in self.config:
            return encoder in self.encoders
        any_of = Path(normpath(FOLDER / self.config.format(subset="*", base="*", encoder=encoder)))
        return encoder in self.encoders or any(any_of.parent.glob(any_of.name))

    def path(self, subset: str, base: str, encoder: str) -> Path:
        """Where the configuration of a base model is, if there is any."""
        return Path(normpath(FOLDER / self.config.format(subset=subset, base=base, encoder=encoder)))

    def config_file(self, subset: str, base: str, encoder: str) -> Path:
        """The configuration of a base model.

        Raises:
            AvsegError: this scale has none.
        """
        path = self.path(subset, base, encoder)
        if not path.is_file():
            raise AvsegError(
                f"The scale {self.name} has no configuration of {base} with {encoder} for {subset}: write {path}."
            )
        return path


def scale_names() -> list[str]:
    """The scales that can be asked for."""
    folder = FOLDER / "scales"
    return sorted(p.stem for p in folder.glob("*.yaml") if "_" not in p.stem)


def read_scale(name: str) -> Scale:
    """Read ``experiments/scales/NAME.yaml``.

    Raises:
        AvsegError: there is no such scale, or its file is faulty.
    """
    path = FOLDER / "scales" / f"{name}.yaml"
    if name not in scale_names():
        raise AvsegError(f"There is no scale '{name}': choose {' or '.join(scale_names())}.")
    try:
        values = read_yaml(path)
        subsets = {subset: Change(**change) for subset, change in values.pop("subsets", {}).items()}
        return Scale(name=name, encoders=tuple(values.pop("encoders")), subsets=subsets, **values)
    except (TypeError, KeyError, AttributeError) as error:
        raise AvsegError(f"{path} is no scale ({error}): correct it.") from error
