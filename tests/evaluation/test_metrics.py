import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as multiprocessing
from hypothesis import given, settings
from hypothesis import strategies as st
from shares import score_a_share
from torch import Tensor

from avseg.evaluation.metrics import (
    FScore,
    MeanJaccard,
    f_curve_per_frame,
    f_score_per_video,
    jaccard_per_frame,
    jaccard_per_video,
    thresholds,
)

FIXTURES = Path(__file__).parents[1] / "fixtures" / "metrics"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text())["cases"]


def case(name: str) -> tuple[Tensor, Tensor]:
    """One video, ``(1, T, 1, H, W)``, of the reference cases."""
    with np.load(FIXTURES / "cases.npz") as cases:
        logits, truth = cases[f"{name}/logits"], cases[f"{name}/gt"]
    return torch.from_numpy(logits)[None, :, None], torch.from_numpy(truth)[None, :, None] > 0


def loop_curve(logits: Tensor, masks: Tensor) -> Tensor:
    """The definition, a threshold and a frame at a time."""
    curves = torch.zeros(*logits.shape[:2], 255)
    for b in range(logits.shape[0]):
        for t in range(logits.shape[1]):
            p, y = torch.sigmoid(logits[b, t]), masks[b, t].float()
            for k, threshold in enumerate(torch.linspace(0, 1 - 1e-10, 255)):
                chosen = (p >= threshold).float()
                hits = (chosen * y).sum()
                precision, recall = hits / (chosen.sum() + 1e-20), hits / (y.sum() + 1e-20)
                f = 1.3 * precision * recall / (0.3 * precision + recall)
                curves[b, t, k] = 0.0 if f.isnan() else f
    return curves


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_reference_cases(name: str) -> None:
    logits, masks = case(name)
    expected = EXPECTED[name]
    jaccard, f_score = MeanJaccard(), FScore()
    jaccard.update(logits, masks)
    f_score.update(logits, masks)
    assert jaccard.compute().shape == f_score.compute().shape == ()
    assert jaccard.compute().item() == pytest.approx(expected["miou"], abs=1e-6)
    assert f_score.compute().item() == pytest.approx(expected["f_score_batch"], abs=1e-6)
    assert jaccard_per_frame(logits, masks)[0].tolist() == pytest.approx(expected["iou_per_frame"], abs=1e-6)
    alone = [f_score_per_video(logits[:, t : t + 1], masks[:, t : t + 1]).item() for t in range(logits.shape[1])]
    assert alone == pytest.approx(expected["f_score_per_frame"], abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), height=st.integers(1, 7), width=st.integers(1, 7), scale=st.floats(0.0, 40.0))
def test_histogram_equals_the_loop(seed: int, height: int, width: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 2, 1, height, width, generator=generator) * scale
    masks = torch.rand(logits.shape, generator=generator) < 0.4
    assert torch.equal(f_curve_per_frame(logits, masks), loop_curve(logits, masks))


def test_histogram_equals_the_loop_at_ties_and_thresholds() -> None:
    at = torch.logit(thresholds().double()).float()
    near = torch.cat([at, at.nextafter(torch.tensor(torch.inf)), at.nextafter(torch.tensor(-torch.inf))])
    logits = torch.cat([near, near, torch.tensor([0.0, 0.0, -0.0, torch.inf, -torch.inf, 90.0, -110.0])])
    # Without probabilities that equal a threshold the test would say nothing about ties.
    assert torch.isin(torch.sigmoid(logits), thresholds()).sum() > 100
    logits = logits.view(1, 1, 1, 1, -1)
    for seed in range(3):
        masks = torch.rand(logits.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
        assert torch.equal(f_curve_per_frame(logits, masks), loop_curve(logits, masks))


def test_each_row_is_a_video_of_its_own() -> None:
    logits, masks = case("two_videos_batch10")
    logits, masks = logits.view(2, 5, 1, 56, 56), masks.view(2, 5, 1, 56, 56)
    together, apart = FScore(), FScore()
    together.update(logits, masks)
    for row in range(2):
        apart.update(logits[row : row + 1], masks[row : row + 1])
    assert together.compute() == pytest.approx(apart.compute())
    # The maximum over a batch of two videos is another number.
    assert abs(together.compute().item() - EXPECTED["two_videos_batch10"]["f_score_batch"]) > 1e-3


def test_invalid_pixels_do_not_count() -> None:
    logits, masks = case("some_empty_gt")
    valid = torch.zeros_like(masks)
    valid[..., 7:40, 3:50] = True
    cut = (slice(None), slice(None), slice(None), slice(7, 40), slice(3, 50))
    # An object that is seen outside alone is none: its frame is silent.
    silent = ~masks[cut].flatten(2).any(-1)
    assert 0 < silent.sum() < silent.numel()
    masks[..., :7, :] |= silent[:, :, None, None, None]
    assert torch.equal(jaccard_per_frame(logits, masks, valid), jaccard_per_frame(logits[cut], masks[cut]))
    assert torch.equal(f_curve_per_frame(logits, masks, valid), f_curve_per_frame(logits[cut], masks[cut]))
    assert torch.equal(f_score_per_video(logits, masks, valid), f_score_per_video(logits[cut], masks[cut]))


def test_unlabelled_frames_do_not_count() -> None:
    logits, masks = case("blob_good")
    valid = torch.zeros_like(masks)
    valid[:, :1] = True
    masks = masks & valid
    assert torch.equal(jaccard_per_video(logits, masks, valid), jaccard_per_video(logits[:, :1], masks[:, :1]))
    assert torch.equal(f_score_per_video(logits, masks, valid), f_score_per_video(logits[:, :1], masks[:, :1]))


def test_bfloat16_logits_are_scored_in_float32() -> None:
    logits, masks = case("blob_good")
    rounded = logits.bfloat16()
    assert torch.equal(f_curve_per_frame(rounded, masks), f_curve_per_frame(rounded.float(), masks))


def test_wrong_input_is_named() -> None:
    logits, masks = torch.zeros(1, 2, 1, 4, 4), torch.zeros(1, 2, 1, 4, 4, dtype=torch.bool)
    for metric in (MeanJaccard(), FScore()):
        with pytest.raises(ValueError, match=r"Masks are \(1, 2, 1, 4, 5\) where logits are \(1, 2, 1, 4, 4\)"):
            metric.update(logits, torch.zeros(1, 2, 1, 4, 5, dtype=torch.bool))
        with pytest.raises(ValueError, match=r"bool, not torch\.float32"):
            metric.update(logits, masks.float())
        with pytest.raises(ValueError, match=r"floating point, not torch\.int64"):
            metric.update(logits.long(), masks)
        with pytest.raises(ValueError, match=r"\(B, T, 1, H, W\)"):
            metric.update(logits[:, :, 0], masks[:, :, 0])
        with pytest.raises(ValueError, match="NaN"):
            metric.update(logits * torch.nan, masks)
        with pytest.raises(ValueError, match="no valid pixel"):
            metric.update(logits, masks, torch.zeros_like(masks))
        assert metric.videos == 0


def test_processes_share_their_sums(tmp_path: Path) -> None:
    # Shares of different size: a mean of means would be wrong.
    shares = [["blob_good", "tiny_gt"], ["blob_random_pred"]]
    torch.save([[case(name) for name in share] for share in shares], tmp_path / "cases.pt")
    multiprocessing.spawn(score_a_share, (str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    names = ("blob_good", "tiny_gt", "blob_random_pred")
    expected = [np.mean([EXPECTED[name][key] for name in names]) for key in ("miou", "f_score_batch")]
    for rank in range(2):
        assert [value.item() for value in torch.load(tmp_path / f"{rank}.pt")] == pytest.approx(expected, abs=1e-6)
