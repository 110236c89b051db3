"""Losses over valid pixels that base models share."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_bce(logits: Tensor, masks: Tensor, valid: Tensor) -> Tensor:
    """Binary cross-entropy (Eq. 3) over valid pixels.

    Mean over the valid pixels of each frame, then over the frames that have any: a frame without one contributes
    nothing. Zero (with gradient zero) where no frame has one.

    Args:
        logits: ``(B, T, 1, H, W)``.
        masks: The same shape: bool, or float in [0, 1] (pseudo masks).
        valid: The same shape, bool; or float weights of pixels.
    """
    logits = at_least_single(logits)
    weight = valid.to(logits.dtype).flatten(2)
    each = F.binary_cross_entropy_with_logits(logits.flatten(2), masks.to(logits.dtype).flatten(2), reduction="none")
    per_frame = (each * weight).sum(dim=2) / weight.sum(dim=2).clamp(min=1e-6)
    return mean_of_labelled(per_frame, valid)


def dice_loss(
    logits: Tensor, masks: Tensor, valid: Tensor, kind: Literal["squared", "plain"] = "squared", epsilon: float = 1e-3
) -> Tensor:
    """Dice loss per frame, then the mean over frames with any valid pixel.

    Args:
        logits: ``(B, T, 1, H, W)``.
        masks: The same shape, in [0, 1].
        valid: The same shape, bool.
        kind: ``squared`` as AVSegFormer computes it, ``1 - 2Σpy / (Σp² + Σy² + 2ε)``; ``plain`` as Eq. 4 is printed,
            without the squares.
        epsilon: ε of the denominator.
    """
    logits = at_least_single(logits)
    weight = valid.to(logits.dtype).flatten(2)
    probability = logits.sigmoid().flatten(2) * weight
    target = masks.to(logits.dtype).flatten(2) * weight
    power = 2 if kind == "squared" else 1
    total = probability.pow(power).sum(dim=2) + target.pow(power).sum(dim=2) + 2 * epsilon
    return mean_of_labelled(1 - 2 * (probability * target).sum(dim=2) / total, valid)


def enlarged_where_valid(coarse: Tensor, valid: Tensor) -> Tensor:
    """A coarse map enlarged bilinearly to the size of ``valid``, from those of its cells alone that hold a valid pixel.

    Else a valid pixel beside the padding would be given part of what the map says of the padding.

    Args:
        coarse: ``(B·T, 1, H/4, W/4)``.
        valid: ``(B, T, 1, H, W)`` bool.

    Returns:
        ``(B, T, 1, H, W)``; 0 far from valid pixels.
    """
    size = valid.shape[-2:]
    kept = F.adaptive_max_pool2d(valid.flatten(0, 1).to(coarse.dtype), coarse.shape[-2:])
    both = torch.cat([coarse * kept, kept], dim=1)
    large, weight = F.interpolate(both, size, mode="bilinear", align_corners=False).split(1, dim=1)
    return (large / weight.clamp(min=1e-6)).unflatten(0, valid.shape[:2])


def mean_of_labelled(per_frame: Tensor, valid: Tensor) -> Tensor:
    """The mean of ``per_frame`` ``(B, T)`` over the frames of ``valid`` ``(B, T, 1, H, W)`` with any valid pixel."""
    labelled = valid.flatten(2).gt(0).any(dim=2).to(per_frame.dtype)
    return (per_frame * labelled).sum() / labelled.sum().clamp(min=1)


def at_least_single(x: Tensor) -> Tensor:
    """``x`` in float32 or better, which sums over thousands of pixels need."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
