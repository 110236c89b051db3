"""Evaluate a model on a split of AVSBench, under T = 5, T = 1 and the T that it was trained with."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor

from avseg import __version__
from avseg.config import InputConfig
from avseg.data.avsbench import avsbench
from avseg.data.clip import EvaluationBatch, LabelledBatch, windows
from avseg.data.dataset import check_files, unique_frames, whole_videos
from avseg.data.loader import Batches, evaluation_clips, stored_flow
from avseg.errors import AvsegError
from avseg.evaluation.metrics import f_score_per_video, jaccard_per_frame
from avseg.evaluation.scores import Evaluation, Means, Scores, VideoScore, write_evaluation
from avseg.files import check_file
from avseg.models.base import AVSModel, Inputs, evaluation_mode, normalise, resized
from avseg.models.loading import check_source, load
from avseg.progress import Progress
from avseg.progress import progress as bar

Size = Literal["truth", "model", "seen"]
"""At whose size scores are taken: the stored masks', or that of the model's images, or that to which it enlarges these;
masks are then brought to it by their nearest pixels. What the model looks at is the same in all."""


def evaluate(
    model: AVSModel, clips: Iterable[LabelledBatch], device: torch.device | str, frames_per_clip: int
) -> Scores:
    """Score a model under one protocol.

    Args:
        model: Is moved to ``device``; its modules' modes (training or evaluation) are as before in the end.
        clips: Batches of whole videos. An `avseg.data.clip.EvaluationBatch` is scored at the truth's own size, any
            other at the model's.
        device: Where the model runs.
        frames_per_clip: T: how many of a video's frames enter the model together, as `video_logits` has it.

    Raises:
        AvsegError: there are no clips.
        ValueError: a video has fewer frames than T.
    """
    return _evaluate(model, clips, device, (frames_per_clip,))[0]


def evaluate_both(model: AVSModel, clips: Iterable[LabelledBatch], device: torch.device | str) -> dict[str, Scores]:
    """Score a model under T = 5, T = 1 and, if it is between, its own T, in one pass over the data. See `evaluate`.

    Returns:
        The scores by protocol, ``T=5``, ``T=1`` and, say, ``T=2``.
    """
    own = model.config.frames_per_clip
    protocols = (5, 1, own) if 1 < own < 5 else (5, 1)
    return {scores.protocol: scores for scores in _evaluate(model, clips, device, protocols)}


def evaluate_checkpoint(
    checkpoint: str | Path,
    root: str | Path,
    subset: Literal["s4", "ms3"],
    split: str = "test",
    out: str | Path | None = None,
    device: torch.device | str = "cpu",
    workers: int = 2,
    flow: Literal["computed", "published", "shuffled"] = "computed",
    progress: bool = True,
    size: Size = "truth",
) -> Evaluation:
    """Load a model, score it on a split as `evaluate_both` does, and write the scores as JSON.

    Args:
        checkpoint: A model's folder or a training checkpoint.
        root: The folder that holds ``Single-source/`` and ``Multi-sources/``.
        subset: ``s4`` or ``ms3``.
        split: ``train``, ``val`` or ``test``.
        out: The JSON file to write; None writes nothing.
        device: Where the model runs.
        workers: Threads that load clips.
        flow: Which flow a model with the NF branch is given: ``avseg data prepare``'s, UFE's published trees, or, as a
            control, that of another video of the split.
        progress: Whether to draw a progress bar.
        size: At which size scores are taken. ``truth``: logits are enlarged or shrunk bilinearly to the masks' own;
            ``model``: masks are brought to ``inputs.image_size``; ``seen``: to ``inputs.model_size``.

    Raises:
        AvsegError: no model or no clips there, they don't fit together, or ``out`` can't be written.
    """
    from avseg.evaluation.diagnostics import diagnose, read_scenes

    if out is not None:
        check_file(out)
    check_source(checkpoint)
    videos = whole_videos(avsbench(root, subset), split)
    scenes = read_scenes(root, subset, split)
    model = load(checkpoint)
    given = flow if model.config.neighbouring_frames else "none"
    inputs = model.config.inputs
    check_files(unique_frames(videos), stored_flow(given), inputs.flow_method)
    clips = evaluation_clips(root, subset, split, inputs, workers, flow=given, truth=size != "model")
    with bar(f"Evaluating {Path(checkpoint).name}", "videos", progress) as tell:
        counted = _counted(clips, tell)
        scores = evaluate_both(model, _seen(counted, inputs) if size == "seen" else counted, device)
    evaluation = Evaluation(
        model=str(checkpoint),
        root=str(root),
        subset=subset,
        split=split,
        version=__version__,
        scores=scores,
        diagnostics={protocol: diagnose(found, scenes) for protocol, found in scores.items()},
        flow=given,
        flow_method=inputs.flow_method if given in ("computed", "shuffled") else "",
        size=size,
        frames_per_clip=model.config.frames_per_clip,
    )
    if out is not None:
        write_evaluation(out, evaluation)
    return evaluation


def _seen(clips: Iterable[LabelledBatch], inputs: InputConfig) -> Iterator[LabelledBatch]:
    """Videos with images and masks at the size that the model sees, where its answer then is; flow is left as it is."""
    side = inputs.seen_size
    for batch in clips:
        assert isinstance(batch, EvaluationBatch)
        assert batch.truth is not None
        assert batch.known is not None
        left, top, width, height = (round(part * side / inputs.image_size) for part in batch.area)
        shape = (*batch.truth.shape[:3], side, side)
        masks, valid = (torch.zeros(shape, dtype=torch.bool) for _ in range(2))
        area = (..., slice(top, top + height), slice(left, left + width))
        truth = F.interpolate(batch.truth.flatten(0, 1).float(), (height, width), mode="nearest-exact")
        masks[area], valid[area] = truth.bool().unflatten(0, shape[:2]), batch.known
        frames = resized(batch.frames.float() / 255, (side, side))
        yield replace(batch, frames=frames, masks=masks, valid=valid, truth=None)


def _counted(clips: Batches, tell: Progress) -> Iterator[LabelledBatch]:
    for done, batch in enumerate(clips, 1):
        yield batch
        tell(done, len(clips))


def scores_table(evaluation: Evaluation) -> Table:
    """M_J and M_F in percent, per category and over all videos, side by side for each protocol; 80 columns wide."""
    protocols = list(evaluation.scores)
    other = set(evaluation.other_protocols)
    flow = {"published": ", published flow", "shuffled": ", flow of other videos"}.get(evaluation.flow, "")
    size = {"model": ", at the model's size", "seen": ", at the size that the model sees"}.get(evaluation.size, "")
    table = Table(
        title=f"{evaluation.model} on {evaluation.subset} {evaluation.split}{flow}{size}",
        title_justify="left",
        caption=evaluation.remark or None,
        caption_justify="left",
    )
    table.add_column("category", overflow="fold")
    table.add_column("videos", justify="right")
    for protocol in protocols:
        marked = f"{protocol}*" if protocol in other else protocol
        table.add_column(f"mIoU\n{marked}", justify="right")
        table.add_column(f"F-score\n{marked}", justify="right")
    by_category = [scores.categories for scores in evaluation.scores.values()]
    overall = [Means.of(scores.videos) for scores in evaluation.scores.values()]
    for name in by_category[0] if by_category else ():
        _add_row(table, name, [means[name] for means in by_category])
    table.add_section()
    _add_row(table, "all videos", overall)
    return table


def selection_table(evaluation: Evaluation) -> Table:
    """How often the right object was marked and how well its mask fits then, in percent, by protocol and stratum."""
    table = Table(
        title="Choice of the object (IoU > 0.5), and its mask where the choice is right", title_justify="left"
    )
    table.add_column("frames of", overflow="fold")
    table.add_column("frames", justify="right")
    for protocol in evaluation.diagnostics:
        table.add_column(f"right\n{protocol}", justify="right")
        table.add_column(f"IoU then\n{protocol}", justify="right")
    found = list(evaluation.diagnostics.values())
    rows = {"all sounding objects": [diagnostics["sounding"] for diagnostics in found]}
    rows |= {name: [diagnostics["strata"][name] for diagnostics in found] for name in found[0].get("strata", {})}
    for name, cells in rows.items():
        numbers = [_percent(cell[key]) for cell in cells for key in ("selection", "quality")]
        table.add_row(name, str(cells[0]["frames"]), *numbers)
    return table


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _add_row(table: Table, name: str, means: list[Means]) -> None:
    numbers = [f"{100 * value:.2f}" for found in means for value in (found.miou, found.f_score)]
    table.add_row(name, str(means[0].videos), *numbers)


@torch.no_grad()
def _evaluate(
    model: AVSModel, clips: Iterable[LabelledBatch], device: torch.device | str, protocols: tuple[int, ...]
) -> list[Scores]:
    model.to(device)
    videos: list[list[VideoScore]] = [[] for _ in protocols]
    with evaluation_mode(model):
        for batch in clips:
            batch = batch.to(device, non_blocking=True)
            inputs = normalise(batch, model.config)
            if inputs.audio is None:
                inputs = replace(inputs, audio=model.embed_audio(inputs.log_mel))
            for frames_per_clip, found in zip(protocols, videos, strict=True):
                found += score_videos(batch, video_logits(model, inputs, batch, frames_per_clip))
    if not videos[0]:
        raise AvsegError("There are no clips to evaluate: check the data's root, subset and split.")
    return [Scores(f"T={t}", tuple(found)) for t, found in zip(protocols, videos, strict=True)]


def video_logits(model: AVSModel, inputs: Inputs, batch: LabelledBatch, frames_per_clip: int) -> Tensor:
    """Logits ``(B, N, 1, H, W)`` of the N frames of videos, T of them predicted together (`avseg.data.clip.windows`).

    Raises:
        AvsegError: a logit is NaN or infinite.
        ValueError: T is more than N.
    """
    clips, count = inputs.frames.shape[:2]
    if frames_per_clip > count:
        raise ValueError(f"T = {frames_per_clip} was asked for, and the clip {batch.names[0]} has {count} frames.")
    cut = windows(count, frames_per_clip)
    parts = {
        name: torch.stack([value[:, frames[0] - 1 : frames[-1]] for frames, _ in cut], dim=1).flatten(0, 1)
        for name, value in vars(inputs).items()
        if value is not None
    }
    logits = _in_parts(model, replace(inputs, **parts)).unflatten(0, (clips, len(cut)))
    if not bool(logits.isfinite().all()):
        raise AvsegError(f"The model's answer to {batch.names[0]} is NaN or infinite: train it again, more slowly.")
    return torch.cat([logits[:, i, len(again) :] for i, (_, again) in enumerate(cut)], dim=1)


def _in_parts(model: AVSModel, inputs: Inputs) -> Tensor:
    """The logits of clips, as many at once as the model says that memory allows."""
    clips, length = inputs.frames.shape[:2]
    most = max(1, model.timestamps_per_pass(inputs.frames.device) // length)
    groups = [
        {name: value[start : start + most] for name, value in vars(inputs).items() if value is not None}
        for start in range(0, clips, most)
    ]
    return torch.cat([model.predict(replace(inputs, **group)).logits for group in groups])


def score_videos(batch: LabelledBatch, logits: Tensor) -> list[VideoScore]:
    """The scores of a batch of whole videos, at the truth's own size where the batch has it.

    Args:
        batch: Of B videos.
        logits: ``(B, T, 1, H, W)`` at the size of the batch's frames.
    """
    masks, valid = batch.masks, batch.valid
    if isinstance(batch, EvaluationBatch) and batch.truth is not None and batch.known is not None:
        masks, valid = batch.truth, batch.known.expand_as(batch.truth)
        logits = batch.at_truth(logits)
    assert masks is not None  # by the type of the batch
    frames = jaccard_per_frame(logits, masks, valid)
    miou, f_score = frames.nanmean(-1), f_score_per_video(logits, masks, valid)
    silent = ~(masks & valid).flatten(2).any(-1)
    return [
        VideoScore(
            name, category, miou[i].item(), f_score[i].item(), tuple(frames[i].tolist()), tuple(silent[i].tolist())
        )
        for i, (name, category) in enumerate(zip(batch.names, batch.categories, strict=True))
    ]
