"""Do the runs that a table needs, and make records of those that are done."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from avseg.data.frames import Subset
from avseg.data.parallel import working_in
from avseg.evaluation.evaluate import evaluate_checkpoint
from avseg.evaluation.scores import Scores, read_evaluation
from avseg.reproduce.plan import Place, Run, needed
from avseg.reproduce.records import Record
from avseg.reproduce.scale import Scale
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
