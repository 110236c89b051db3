"""AVSBench's two metrics: the mean Jaccard index M_J (mIoU) and the F-score M_F.

Both score a video at a time, one row of a batch, and average over videos. Some published scripts take the maximum of
the F-curve over a batch of several videos; their F-scores cannot be compared with these.
"""

import torch
from torch import Tensor
from torchmetrics import Metric

BETA_SQUARED = 0.3
THRESHOLDS = 255


def jaccard_per_frame(logits: Tensor, masks: Tensor, valid: Tensor | None = None) -> Tensor:
    """The Jaccard index of every frame: ``|∩| / (|∪| + 1e-7)`` of the mask and the prediction ``sigmoid(x) > 0.5``.

    A frame whose true mask is empty scores the share of pixels predicted as background.

    Args:
        logits: ``(B, T, 1, H, W)``, before the sigmoid.
        masks: ``(B, T, 1, H, W)`` bool, the truth.
        valid: ``(B, T, 1, H, W)`` bool, pixels that count; None counts all, as AVSBench does.

    Returns:
        ``(B, T)`` float32; NaN for a frame without a valid pixel.

    Raises:
        ValueError: shapes or types are not as above, or a logit is NaN.
    """
    _check(logits, masks, valid)
    predicted = torch.sigmoid(logits.float()) > 0.5
    counted = torch.ones_like(masks) if valid is None else valid
    predicted, true = (predicted & counted).flatten(2), (masks & counted).flatten(2)
    both = (predicted & true).sum(-1).float()
    either = (predicted | true).sum(-1).float()
    pixels = counted.flatten(2).sum(-1).float()
    background = (pixels - predicted.sum(-1)) / pixels
    scores = torch.where(true.any(-1), both / (either + 1e-7), background)
    return torch.where(pixels > 0, scores, torch.nan)


def f_curve_per_frame(logits: Tensor, masks: Tensor, valid: Tensor | None = None) -> Tensor:
    """The F-score of every frame at each of the 255 thresholds ``t``, with predictions ``sigmoid(x) >= t``.

    ``F = 1.3·P·R / (0.3·P + R)``, 0 where undefined. The counts of all thresholds come from one histogram per frame:
    a pixel's bin is the number of thresholds that its probability reaches, so that cumulative sums of bins equal
    the counts of comparing with each threshold in turn.

    Args:
        logits: ``(B, T, 1, H, W)``, before the sigmoid.
        masks: ``(B, T, 1, H, W)`` bool, the truth.
        valid: ``(B, T, 1, H, W)`` bool, pixels that count; None counts all, as AVSBench does.

    Returns:
        ``(B, T, 255)`` float32.

    Raises:
        ValueError: shapes or types are not as above, or a logit is NaN.
    """
    _check(logits, masks, valid)
    size, frames = logits.shape[:2], logits.shape[0] * logits.shape[1]
    bins = torch.bucketize(torch.sigmoid(logits.float()), thresholds().to(logits.device), right=True)
    # Three kinds of pixel, background, foreground and uncounted, in one histogram per frame.
    kind = masks.long() if valid is None else masks.long().masked_fill(~valid, 2)
    frame = torch.arange(frames, device=logits.device).view(*size, 1, 1, 1)
    index = (frame * 3 + kind) * (THRESHOLDS + 1) + bins
    histogram = torch.bincount(index.flatten(), minlength=frames * 3 * (THRESHOLDS + 1))
    histogram = histogram.view(*size, 3, THRESHOLDS + 1)
    reached = histogram.flip(-1).cumsum(-1).flip(-1)[..., 1:].float()
    hits, predicted = reached[:, :, 1], reached[:, :, 0] + reached[:, :, 1]
    true = histogram[:, :, 1].sum(-1, keepdim=True).float()
    precision = hits / (predicted + 1e-20)
    recall = hits / (true + 1e-20)
    score = (1 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall)
    return torch.nan_to_num(score, nan=0.0)


def jaccard_per_video(logits: Tensor, masks: Tensor, valid: Tensor | None = None) -> Tensor:
    """M_J of each video, ``(B,)``: the mean of `jaccard_per_frame` over its frames that have a valid pixel.

    Raises:
        ValueError: as `jaccard_per_frame`, or a video without a valid pixel.
    """
    scores = jaccard_per_frame(logits, masks, valid)
    _check_labelled(~scores.isnan().all(-1))
    return scores.nanmean(-1)


def f_score_per_video(logits: Tensor, masks: Tensor, valid: Tensor | None = None) -> Tensor:
    """M_F of each video, ``(B,)``: the maximum of its mean F-curve over frames whose true mask is not empty.

    A video in which every frame is silent scores 0.

    Raises:
        ValueError: as `f_curve_per_frame`, or a video without a valid pixel.
    """
    curves = f_curve_per_frame(logits, masks, valid)
    if valid is not None:
        _check_labelled(valid.flatten(1).any(-1))
    counted = masks if valid is None else masks & valid
    sounding = counted.flatten(2).any(-1, keepdim=True).float()
    mean = (curves * sounding).sum(1) / sounding.sum(1).clamp(min=1)
    return mean.max(-1).values


def thresholds() -> Tensor:
    """The 255 thresholds of the F-curve, ``(255,)`` float32 from 0 to 1, made on the CPU: devices round differently."""
    return torch.linspace(0, 1 - 1e-10, THRESHOLDS, dtype=torch.float32)


class _MeanOverVideos(Metric):
    """A score per video, averaged over videos and, in distributed runs, over processes."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    total: Tensor
    videos: Tensor

    def __init__(self, **options: object):
        super().__init__(**options)
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("videos", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def score(self, logits: Tensor, masks: Tensor, valid: Tensor | None = None) -> Tensor:
        """The scores ``(B,)`` of a batch's videos."""
        raise NotImplementedError

    def update(self, logits: Tensor, masks: Tensor, valid: Tensor | None = None) -> None:
        """Count a batch in which each row is one video.

        Args:
            logits: ``(B, T, 1, H, W)``, before the sigmoid.
            masks: ``(B, T, 1, H, W)`` bool, the truth.
            valid: ``(B, T, 1, H, W)`` bool, pixels that count; None counts all, as AVSBench does.

        Raises:
            ValueError: shapes or types are not as above, a logit is NaN, or a video has no valid pixel.
        """
        scores = self.score(logits, masks, valid)
        self.total += scores.sum()
        self.videos += len(scores)

    def compute(self) -> Tensor:
        """The mean over all videos so far, a scalar in [0, 1]; NaN before the first."""
        return self.total / self.videos


class MeanJaccard(_MeanOverVideos):
    """The mean Jaccard index M_J (mIoU) over videos; see `jaccard_per_frame`."""

    def score(self, logits: Tensor, masks: Tensor, valid: Tensor | None = None) -> Tensor:
        """M_J of each video, ``(B,)``."""
        return jaccard_per_video(logits, masks, valid)


class FScore(_MeanOverVideos):
    """The F-score M_F (β² = 0.3) over videos; see `f_score_per_video`."""

    def score(self, logits: Tensor, masks: Tensor, valid: Tensor | None = None) -> Tensor:
        """M_F of each video, ``(B,)``."""
        return f_score_per_video(logits, masks, valid)


def _check(logits: Tensor, masks: Tensor, valid: Tensor | None) -> None:
    if logits.ndim != 5 or logits.shape[2] != 1 or logits.numel() == 0:
        raise ValueError(f"Logits must be (B, T, 1, H, W) and not empty, not {tuple(logits.shape)}.")
    if not logits.is_floating_point():
        raise ValueError(f"Logits must be floating point, not {logits.dtype}.")
    for name, tensor in (("Masks", masks), ("Valid pixels", valid)):
        if tensor is None:
            continue
        if tensor.shape != logits.shape:
            raise ValueError(f"{name} are {tuple(tensor.shape)} where logits are {tuple(logits.shape)}.")
        if tensor.dtype != torch.bool:
            raise ValueError(f"{name} must be bool, not {tensor.dtype}.")
    if logits.isnan().any():
        raise ValueError("Logits contain NaN: the model's weights or its input are broken.")


def _check_labelled(labelled: Tensor) -> None:
    if not labelled.all():
        raise ValueError("A video has no valid pixel to score.")
