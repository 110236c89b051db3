"""Results: what was run, which of them may stand beside each other, and weighted sums of them with intervals."""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from avseg.errors import AvsegError
from avseg.evaluation.compare import Difference, paired_difference
from avseg.files import whole_file
from avseg.reading import read_json_lines

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Record:
    """The result of one run at one place of a table.

    Attributes:
        experiment, cell, seed: Which place, and which repetition.
        scale: ``small`` or ``paper``: the recipe.
        encoder, base, subset: Image encoder, base model, ``s4`` or ``ms3``.
        protocol: The one that ``miou`` and ``f_score`` are of: ``T=1`` or ``T=5``.
        miou, f_score: Means over the test videos, in [0, 1].
        protocols: ``{"T=1": {"miou": …, "f_score": …}, …}``, all that were measured.
        diagnostics: Choice of the object and quality of its mask, whole and by kind of scene, under ``protocol``
            (`avseg.evaluation.diagnostics.diagnose`).
        videos: ``[miou, f_score]`` of every test video by its key, under ``protocol``, to four digits.
        validation: ``[step, miou]`` pairs: validation while training.
        pseudo: Rows of the teacher's pseudo masks against the hidden truth while training: ``step``, ``epoch``,
            ``miou``, ``foreground``, ``soft``, ``truth``. Empty where the data have no hidden truth.
        run: What identifies the run; places of several tables may share it.
        config: The run's whole configuration.
        data: What it was trained and tested on: ``kind``, ``hash`` and more.
        steps, parameters: Of the run.
        seconds: Wall time of training.
        origin: Versions, revision, machine, date (`avseg.provenance`).
        size: At which size scores were taken, ``truth`` or ``model``; all were at the model's before this was noted.
    """

    experiment: str
    cell: str
    seed: int
    scale: str
    encoder: str
    base: str
    subset: str
    protocol: str
    miou: float
    f_score: float
    protocols: Mapping[str, Mapping[str, float]]
    diagnostics: Mapping[str, Any]
    videos: Mapping[str, tuple[float, float]]
    validation: Sequence[tuple[int, float]]
    pseudo: Sequence[Mapping[str, float]]
    run: str
    config: Mapping[str, Any]
    data: Mapping[str, Any]
    steps: int
    parameters: int
    seconds: float
    origin: Mapping[str, Any] = field(default_factory=dict)
    size: str = "model"

    @property
    def place(self) -> tuple[str, str, str, str, int]:
        """What may be there once: scale, encoder, experiment, cell, seed; on one kind of data."""
        return (self.scale, self.encoder, self.experiment, self.cell, self.seed)

    def per_video(self, metric: str = "miou") -> dict[str, float]:
        """``miou`` or ``f_score`` of every test video by its key."""
        at = {"miou": 0, "f_score": 1}[metric]
        return {key: scores[at] for key, scores in self.videos.items()}


def read_records(*paths: str | Path) -> list[Record]:
    """The records of some ``.jsonl`` files, or of all such files in a folder; a file that isn't there has none.

    Raises:
        AvsegError: a line that is no record.
    """
    found = []
    for path in map(Path, paths):
        for file in sorted(path.glob("*.jsonl")) if path.is_dir() else [path] if path.is_file() else []:
            found += [_record(values, file, n) for n, values in read_json_lines(file, "remove what is none")]
    return found


def write_records(path: str | Path, records: Iterable[Record]) -> None:
    """Write the file whole."""
    with whole_file(path) as temporary:
        lines = (json.dumps({"format_version": FORMAT_VERSION, **asdict(record)}) for record in records)
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _record(values: Any, file: Path, number: int) -> Record:
    try:
        if values.pop("format_version") != FORMAT_VERSION:
            raise ValueError("another format version")
        values["videos"] = {key: tuple(scores) for key, scores in values["videos"].items()}
        values["validation"] = [tuple(row) for row in values["validation"]]
        return Record(**values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise AvsegError(f"{file}, line {number} is no result of avseg reproduce ({error}): remove the line.") from None


Place = tuple[str, str]
"""An experiment's name and the key of one of its cells."""


@dataclass(frozen=True)
class Choice:
    """Results that may be compared.

    Attributes:
        scale, encoder, protocol: What all of them share; scale and protocol are empty where there are none.
        data: What they were trained and tested on, by subset: all results of a subset share it.
        records: By place, one for each seed, in the order of seeds; places without results are left out.
        notes: What was left out, in sentences.
    """

    scale: str
    encoder: str
    protocol: str
    data: Mapping[str, Mapping[str, Any]]
    records: Mapping[Place, tuple[Record, ...]]
    notes: tuple[str, ...] = ()


def choose(
    records: Iterable[Record],
    places: Collection[Place],
    encoder: str,
    scale: str | None = None,
    data: Collection[str] = (),
    protocol: str | None = None,
) -> Choice:
    """Choose the results of some places that may be compared.

    Where results differ in scale, protocol, the size that masks were scored at or data, those of the most runs are
    chosen and a note names the others. Data are chosen for each subset apart. A place's seed and a run count once; of
    two results for one seed the newer one counts.

    Args:
        records: Results; those of other places don't matter.
        places: Which places to look at.
        encoder: The image encoder.
        scale: The recipe; None takes that of the most runs.
        data: Hashes of the data to take; a subset that has none of them takes those of the most runs.
        protocol: Such as ``T=1``; None takes that of the most runs.

    Raises:
        AvsegError: a hash of ``data`` that no result has.
    """
    wanted = set(places)
    found = [
        one
        for one in records
        if one.encoder == encoder
        and (one.experiment, one.cell) in wanted
        and scale in (None, one.scale)
        and protocol in (None, one.protocol)
    ]
    known = sorted({_hash(one) for one in found})
    for name in data:
        if name not in known:
            raise AvsegError(
                f"No result with {encoder} is of data with the hash {name}: choose {' or '.join(known) or 'none'}."
            )
    found, left_scales = _agree(found, "scale", lambda one: one.scale)
    found, left_protocols = _agree(found, "protocol", lambda one: one.protocol)
    found, left_sizes = _agree(found, "test scores at the size of the", lambda one: one.size)
    chosen: list[Record] = []
    notes = [*left_scales, *left_protocols, *left_sizes]
    scale, protocol = (found[0].scale, found[0].protocol) if found else (scale or "", protocol or "")
    used = {}
    for subset in sorted({one.subset for one in found}, reverse=True):
        of_subset = [one for one in found if one.subset == subset]
        kept, left = _agree(of_subset, f"{subset.upper()} data with the hash", _hash, data)
        used[subset] = kept[0].data
        chosen += kept
        notes += left
    places_of: dict[Place, list[Record]] = defaultdict(list)
    for one in chosen:
        places_of[one.experiment, one.cell].append(one)
    counted = {place: _each_once(found) for place, found in places_of.items()}
    return Choice(scale, encoder, protocol, used, counted, tuple(notes))


def _agree(
    records: list[Record], what: str, key: Callable[[Record], str], asked: Collection[str] = ()
) -> tuple[list[Record], list[str]]:
    """The records of one ``key``: one of those asked for, or else that of the most runs; and notes on the others."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for one in records:
        groups[key(one)].append(one)
    if not groups:
        return [], []

    def weight(name: str) -> tuple[bool, int, str, str]:
        runs = {one.run for one in groups[name]}
        return name in asked, len(runs), max(str(one.origin.get("date", "")) for one in groups[name]), name

    best = max(groups, key=weight)
    notes = [
        f"Left out, as only like is compared with like: runs of the {what} {name} ({len({one.run for one in group})})."
        for name, group in sorted(groups.items())
        if name != best
    ]
    return groups[best], notes


def _each_once(records: Sequence[Record]) -> tuple[Record, ...]:
    """One record for each seed, no run twice, in the order of seeds."""
    by_seed = {one.seed: one for one in sorted(records, key=lambda one: str(one.origin.get("date", "")))}
    by_run: dict[str, Record] = {}
    for seed in sorted(by_seed):
        by_run.setdefault(by_seed[seed].run, by_seed[seed])
    return tuple(by_run.values())


def _hash(record: Record) -> str:
    return str(record.data.get("hash", "unknown"))


def contrast(
    records_by_cell: Mapping[str, Sequence[Record]],
    weights: Mapping[str, float],
    metric: str = "miou",
    samples: int = 10_000,
) -> Difference | None:
    """Σ weight · score over cells, with a 95 % interval from the hierarchical bootstrap over seeds and videos.

    Cells are paired by seed and by video: only seeds that every cell has count. A gain is ``{"nf": 1, "none": -1}``, a
    difference of gains has four cells.

    Args:
        records_by_cell: Results by cell, one for each seed, of the same test videos.
        weights: By cell.
        metric: ``miou`` or ``f_score``.
        samples: Bootstrap samples.

    Returns:
        The contrast in [-Σ|weight|, Σ|weight|]; None where no seed is in all cells.

    Raises:
        AvsegError: results of different videos.
    """
    cells = {name: {one.seed: one.per_video(metric) for one in records_by_cell.get(name, ())} for name in weights}
    seeds = shared_seeds(*cells.values())
    if not seeds:
        return None
    first = next(iter(cells))
    for name, by_seed in cells.items():
        for seed in seeds:
            if by_seed[seed].keys() != cells[first][seeds[0]].keys():
                raise AvsegError(
                    f"The results of {first} and {name} (seed {seed}) are of different test videos: run one again."
                )
    plus = {name: weight for name, weight in weights.items() if weight > 0}
    minus = {name: -weight for name, weight in weights.items() if weight <= 0}
    videos = list(cells[first][seeds[0]])

    # Rounded, so that equal sums differ by 0 in whatever order they were added: a p-value counts what lies beside it.
    def side(part: Mapping[str, float]) -> list[dict[str, float]]:
        return [
            {
                video: round(sum(weight * cells[name][seed][video] for name, weight in part.items()), 9)
                for video in videos
            }
            for seed in seeds
        ]

    return paired_difference(side(minus), side(plus), samples)


def shared_seeds(*cells: Mapping[int, object] | Sequence[Record]) -> list[int]:
    """The seeds that all cells have, in order."""
    found = [set(cell) if isinstance(cell, Mapping) else {one.seed for one in cell} for cell in cells]
    return sorted(set.intersection(*found)) if found else []
