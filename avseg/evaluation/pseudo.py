"""How good pseudo masks are, by the hidden truth of the frames that nobody labelled.

Only the generated benchmark has such a truth, and only diagnostics may read it: nothing of what is found here goes back
into training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from avseg.data.avsbench import avsbench
from avseg.data.clip import LabelledBatch
from avseg.data.dataset import Clip, shuffle_flow, whole_videos
from avseg.data.frames import Subset
from avseg.data.loader import EvaluationDataset, OrderedLoader, stored_flow
from avseg.data.rows import FlowSource
from avseg.evaluation.evaluate import video_logits
from avseg.evaluation.metrics import jaccard_per_video
from avseg.models.base import AVSModel, evaluation_mode, normalise


@dataclass(frozen=True)
class PseudoQuality:
    """Pseudo masks against the truth, over the unlabelled frames of a sample of training videos.

    Attributes:
        miou: The mean Jaccard index of the masks p > 0.5, over videos.
        foreground: The share of pixels with p > 0.5.
        soft: The mean p.
        truth: The share of pixels that sound in truth. Masks that grow emptier than this unlearn to see.
    """

    miou: float
    foreground: float
    soft: float
    truth: float


def pseudo_quality(
    model: AVSModel,
    root: str | Path,
    subset: Subset = "s4",
    *,
    flow: FlowSource | Literal["shuffled"] = "computed",
    videos: int = 60,
) -> PseudoQuality | None:
    """Score the masks that a model gives seconds 2 to 5 of S4's training videos, unperturbed, each frame alone.

    Args:
        model: Is used where it is; its modules' modes and the random generators are as before in the end.
        root: The folder that holds ``Single-source/``.
        subset: ``s4``; MS3's training videos have no frames without labels.
        flow: As ``data.flow``; a model without the NF branch is given none.
        videos: Size of the sample: always the same videos, evenly spaced over the categories.

    Returns:
        The scores; None where there is no hidden truth, as in AVSBench.

    Raises:
        AvsegError: a faulty index, or a missing or faulty file.
    """
    if subset != "s4":
        return None
    clips = whole_videos(avsbench(root, subset), "train")
    if not clips[0][-1].hidden_mask.is_file():
        return None
    flow = flow if model.config.neighbouring_frames else "none"
    chosen = [tuple(frame for frame in clip if not frame.labelled) for clip in _sample(clips, videos)]
    if flow == "shuffled":
        chosen = shuffle_flow(chosen)
    dataset = EvaluationDataset(chosen, model.config.inputs, stored_flow(flow), hidden=True)
    batches = OrderedLoader(dataset, range(len(chosen)), workers=1)
    with torch.no_grad(), evaluation_mode(model):
        rows = torch.stack([_score(model, batch) for batch in batches])
    return PseudoQuality(*rows.mean(0).tolist())


def _score(model: AVSModel, batch: LabelledBatch) -> torch.Tensor:
    """A video's row of `PseudoQuality`, ``(4,)`` float64 on the CPU."""
    batch = batch.to(next(model.parameters()).device)
    masks, valid = batch.masks, batch.valid
    assert masks is not None
    logits = video_logits(model, normalise(batch, model.config), batch, 1).float()
    soft = logits.sigmoid()
    shares = [part[valid].double().mean() for part in (soft > 0.5, soft, masks)]
    return torch.stack([jaccard_per_video(logits, masks, valid)[0].double(), *shares]).cpu()


def _sample(clips: Sequence[Clip], count: int) -> list[Clip]:
    """Evenly spaced clips, of every category its share."""
    ordered = sorted(clips, key=lambda clip: clip[0].category)
    count = max(1, min(count, len(ordered)))
    return [ordered[(2 * i + 1) * len(ordered) // (2 * count)] for i in range(count)]
