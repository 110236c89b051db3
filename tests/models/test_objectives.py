"""Losses count valid pixels, frame by frame."""

import math

import pytest
import torch
from torch import Tensor

from avseg.models.layers import dice_loss, masked_bce


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 1, 4, 4, generator=generator)
    masks = torch.rand(2, 3, 1, 4, 4, generator=generator)
    valid = torch.rand(2, 3, 1, 4, 4, generator=generator) > 0.4
    valid[1, 2] = False
    return logits, masks, valid


def test_bce_is_a_mean_of_frames_and_not_of_pixels(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, masks, valid = batch
    frames = []
    for b, t in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]:
        p, y = logits[b, t].sigmoid()[valid[b, t]], masks[b, t][valid[b, t]]
        frames.append(-(y * p.log() + (1 - y) * (1 - p).log()).mean())
    torch.testing.assert_close(masked_bce(logits, masks, valid), torch.stack(frames).mean())


@pytest.mark.parametrize("kind", ["squared", "plain"])
def test_dice(batch: tuple[Tensor, Tensor, Tensor], kind: str) -> None:
    logits, masks, valid = batch
    frames = []
    for b, t in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]:
        p, y = logits[b, t].sigmoid()[valid[b, t]], masks[b, t][valid[b, t]]
        total = (p**2).sum() + (y**2).sum() if kind == "squared" else p.sum() + y.sum()
        frames.append(1 - 2 * (p * y).sum() / (total + 0.002))
    torch.testing.assert_close(dice_loss(logits, masks, valid, kind), torch.stack(frames).mean())  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", [masked_bce, dice_loss])
def test_pixels_that_do_not_count(loss: object, batch: tuple[Tensor, Tensor, Tensor]) -> None:
    assert callable(loss)
    logits, masks, valid = batch
    before = loss(logits, masks, valid)
    changed = torch.where(valid, masks, 1 - masks)
    assert torch.equal(loss(torch.where(valid, logits, 7.0), changed, valid), before)
    logits.requires_grad_()
    nothing = loss(logits, masks, torch.zeros_like(valid))
    nothing.backward()
    assert nothing == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_bool_masks_and_soft_ones_agree(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, masks, valid = batch
    hard = masks > 0.5
    assert torch.equal(masked_bce(logits, hard, valid), masked_bce(logits, hard.float(), valid))
    assert math.isfinite(masked_bce(logits * 1e4, hard, valid))


@pytest.mark.parametrize("loss", [masked_bce, dice_loss])
def test_half_precision_logits_are_summed_in_single(loss: object, batch: tuple[Tensor, Tensor, Tensor]) -> None:
    assert callable(loss)
    logits, masks, valid = batch
    rounded = logits.bfloat16()
    assert torch.equal(loss(rounded, masks, valid), loss(rounded.float(), masks, valid))
