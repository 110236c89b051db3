"""What was run: one JSON line for each run and place of a table, with everything that its number rests on."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from avseg.errors import AvsegError
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
