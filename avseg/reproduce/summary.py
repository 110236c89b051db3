"""A table's results: means over seeds, paired gains with their intervals, and the published numbers beside them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from statistics import fmean, stdev
from typing import Any

from avseg.evaluation.compare import Difference, holm
from avseg.reproduce.definition import Cell, Experiment, Published, read_experiment
from avseg.reproduce.records import Place, Record, choose, contrast


@dataclass(frozen=True)
class Spread:
    """A score over seeds, in [0, 1].

    Attributes:
        mean: Over seeds.
        sd: Sample standard deviation over seeds (n − 1); None with one seed.
    """

    mean: float
    sd: float | None


@dataclass(frozen=True)
class Gain:
    """A cell against another one, paired by seed and video.

    Attributes:
        over: The other place.
        label: Its row in words.
        miou, f_score: Cell − other, in [-1, 1].
        p: Of mIoU, corrected after Holm over all gains of the table.
        published: The papers' gains by image encoder, in the units of `Published`; empty where they give none.
    """

    over: Place
    label: str
    miou: Difference
    f_score: Difference
    p: float
    published: Mapping[str, Published]


@dataclass(frozen=True)
class CellSummary:
    """A cell's results.

    Attributes:
        cell: Which.
        records: One for each seed; empty where nothing was run.
        miou, f_score: Over seeds; None where nothing was run.
        gains: Over each cell that its row names, where both have a seed in common.
        published: The papers' numbers by image encoder.
        published_gains: The papers' gains by place and image encoder, also where nothing was run.
    """

    cell: Cell
    records: tuple[Record, ...]
    miou: Spread | None
    f_score: Spread | None
    gains: tuple[Gain, ...]
    published: Mapping[str, Published]
    published_gains: Mapping[Place, Mapping[str, Published]]


@dataclass(frozen=True)
class Summary:
    """A table's results.

    Attributes:
        experiment: Which table.
        encoder, scale, protocol: What all of our numbers share.
        data: What was trained and tested on, by subset.
        cells: In the table's order.
        labels: Rows in words, by place, of all that gains are given over.
        notes: What to say below, in sentences: of the choice of results, then the table's own.
    """

    experiment: Experiment
    encoder: str
    scale: str
    protocol: str
    data: Mapping[str, Mapping[str, Any]]
    cells: tuple[CellSummary, ...]
    labels: Mapping[Place, str]
    notes: tuple[str, ...]

    @property
    def records(self) -> list[Record]:
        """Our results, each run once."""
        return list({one.run: one for cell in self.cells for one in cell.records}.values())

    @property
    def gains(self) -> list[tuple[CellSummary, Gain]]:
        """All gains of the table with their cells."""
        return [(cell, gain) for cell in self.cells for gain in cell.gains]

    def column(self, key: str | None) -> list[CellSummary]:
        """The cells of a column; all of them where there are no columns."""
        return [one for one in self.cells if key is None or (one.cell.column and one.cell.column.key == key)]


def summarise(
    experiment: Experiment,
    records: Iterable[Record],
    encoder: str,
    scale: str | None = None,
    data: Collection[str] = (),
    samples: int = 10_000,
) -> Summary:
    """Put a table's results together. Only results of one scale, protocol and data are compared (`choose`).

    Args:
        experiment: The table.
        records: All results there are: gains may be over cells of other tables.
        encoder: The image encoder whose results are meant.
        scale: The recipe; None takes that of the most runs.
        data: Hashes of the data to take; none takes those of the most runs.
        samples: Bootstrap samples for each interval.

    Raises:
        AvsegError: results of different videos, another table that is named and isn't there, or a hash that no result
            has.
    """
    others = {experiment.name: experiment}
    against = {cell.key: experiment.against(cell) for cell in experiment.cells}
    for name in sorted({table for places in against.values() for table, _ in places} - {experiment.name}):
        others[name] = read_experiment(name)
    own = {(experiment.name, cell.key) for cell in experiment.cells}
    choice = choose(records, own | {place for places in against.values() for place in places}, encoder, scale, data)
    cells = [_cell(cell, against[cell.key], choice.records, others, samples) for cell in experiment.cells]
    cells = _corrected(cells)
    return Summary(
        experiment=experiment,
        encoder=encoder,
        scale=choice.scale,
        protocol=choice.protocol,
        data=choice.data,
        cells=tuple(cells),
        labels={place: _label(others, place) for places in against.values() for place in places},
        notes=(*choice.notes, *_pairing_notes(cells, choice.records), *experiment.notes),
    )


def _cell(
    cell: Cell,
    against: Sequence[Place],
    records: Mapping[Place, tuple[Record, ...]],
    experiments: Mapping[str, Experiment],
    samples: int,
) -> CellSummary:
    own = (cell.table, cell.key)
    found = records.get(own, ())
    published_gains = {place: _published_gains(experiments, own, place) for place in against}
    gains = []
    for place in against:
        sides = {"candidate": found, "baseline": records.get(place, ())}
        weights = {"candidate": 1.0, "baseline": -1.0}
        miou, f_score = (contrast(sides, weights, metric, samples) for metric in ("miou", "f_score"))
        if miou and f_score:
            label = _label(experiments, place)
            gains.append(Gain(place, label, miou, f_score, miou.p, published_gains[place]))
    return CellSummary(
        cell=cell,
        records=found,
        miou=_spread([one.miou for one in found]),
        f_score=_spread([one.f_score for one in found]),
        gains=tuple(gains),
        published=_published(experiments, own),
        published_gains=published_gains,
    )


def _spread(values: Sequence[float]) -> Spread | None:
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None) if values else None


def _published(experiments: Mapping[str, Experiment], place: Place) -> dict[str, Published]:
    table, key = place
    return {encoder: cells[key] for encoder, cells in experiments[table].paper.items() if key in cells}


def _published_gains(experiments: Mapping[str, Experiment], own: Place, other: Place) -> dict[str, Published]:
    """The difference of the printed numbers, to the digits printed."""
    first, second = _published(experiments, other), _published(experiments, own)

    def gain(encoder: str, metric: str) -> str:
        before, after = getattr(first[encoder], metric), getattr(second[encoder], metric)
        if not before or not after:
            return ""
        number = f"{Decimal(after) - Decimal(before):+f}"
        return number.replace("0.", ".", 1) if after.startswith(".") else number

    return {
        encoder: Published(gain(encoder, "miou"), gain(encoder, "f_score")) for encoder in second if encoder in first
    }


def _label(experiments: Mapping[str, Experiment], place: Place) -> str:
    return experiments[place[0]].cell(place[1]).row.label


def _corrected(cells: Sequence[CellSummary]) -> list[CellSummary]:
    corrected = holm({f"{i}/{k}": gain.miou.p for i, cell in enumerate(cells) for k, gain in enumerate(cell.gains)})
    return [
        replace(cell, gains=tuple(replace(gain, p=corrected[f"{i}/{k}"]) for k, gain in enumerate(cell.gains)))
        for i, cell in enumerate(cells)
    ]


def _pairing_notes(cells: Sequence[CellSummary], records: Mapping[Place, tuple[Record, ...]]) -> list[str]:
    notes = []
    for cell in cells:
        for gain in cell.gains:
            most = max(len(cell.records), len(records.get(gain.over, ())))
            if gain.miou.seeds < most:
                notes.append(
                    f"{cell.cell.key} over {gain.over[1]}: {gain.miou.seeds} of {most} seeds are in both, and "
                    "only they count for the gain."
                )
    return notes
