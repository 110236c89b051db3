"""Perturbations act on image, mask, flow and validity as one."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avseg.config import PerturbConfig
from avseg.data import perturb
from avseg.data.clip import DistantBatch, LabelledBatch
from avseg.data.perturb import Colour, Geometry

SIZE = 64


def batch_of(count=3, times=1, size=SIZE, kind=LabelledBatch, seed=0):
    g = torch.Generator().manual_seed(seed)
    yy, xx = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    masks = torch.zeros(count, times, 1, size, size, dtype=torch.bool)
    for i in range(count):
        masks[i, :] = (xx - 20 - 6 * i) ** 2 + (yy - 30) ** 2 < 12**2
    frames = (masks.float() * 200 + 20).expand(-1, -1, 3, -1, -1).to(torch.uint8).clone()
    frames[:, :, 1] = (xx * 255 // size).to(torch.uint8)
    flow = torch.stack([torch.full((size, size), 2.0), torch.full((size, size), -1.0)]).half()
    return kind(
        frames=frames,
        flow=flow.expand(count, times, 2, size, size).clone(),
        log_mel=torch.randn(count, times, 1, 96, 64, generator=g).clamp(-4, 4),
        masks=masks if kind is LabelledBatch else None,
        inside=torch.ones(count, times, 1, size, size, dtype=torch.bool),
        valid=torch.ones(count, times, 1, size, size, dtype=torch.bool),
        names=tuple(f"v{i}" for i in range(count)),
        categories=("x",) * count,
        times=torch.zeros(count, times, dtype=torch.float64),
    )


def geometry(count, scale=1.0, shift=(0.0, 0.0), flip=False):
    return Geometry(
        torch.full((count,), scale), torch.tensor([shift] * count), torch.full((count,), flip, dtype=torch.bool)
    )


def test_identity_changes_nothing():
    batch = batch_of(times=2)
    out = perturb.weak(batch, geometry(3))
    torch.testing.assert_close(out.frames, batch.frames.float() / 255, atol=1e-4, rtol=0)
    assert torch.equal(out.masks, batch.masks)
    assert out.valid.all()
    torch.testing.assert_close(out.flow, batch.flow, atol=2e-3, rtol=0)
    assert torch.equal(out.log_mel, batch.log_mel)


def test_mirroring_negates_u_and_moves_picture_and_mask_together():
    batch = batch_of()
    out = perturb.weak(batch, geometry(3, flip=True))
    torch.testing.assert_close(out.frames, (batch.frames.float() / 255).flip(-1), atol=1e-4, rtol=0)
    assert torch.equal(out.masks, batch.masks.flip(-1))
    torch.testing.assert_close(out.flow[:, :, 0], -batch.flow[:, :, 0], atol=2e-3, rtol=0)
    torch.testing.assert_close(out.flow[:, :, 1], batch.flow[:, :, 1], atol=2e-3, rtol=0)


def test_zooming_in_scales_vectors_and_keeps_everything_valid():
    out = perturb.weak(batch_of(), geometry(3, scale=2.0))
    assert out.valid.all()
    torch.testing.assert_close(out.flow[:, :, 0].float(), torch.full((3, 1, SIZE, SIZE), 4.0), atol=1e-2, rtol=0)
    torch.testing.assert_close(out.flow[:, :, 1].float(), torch.full((3, 1, SIZE, SIZE), -2.0), atol=1e-2, rtol=0)


def test_zooming_out_pads_with_nothing_valid_still_and_background():
    out = perturb.weak(batch_of(), geometry(3, scale=0.5, shift=(0.5, 0.5)))
    expected = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    expected[SIZE // 2 :, SIZE // 2 :] = True
    assert torch.equal(out.valid[0, 0, 0], expected)
    outside = ~out.valid
    assert not out.masks[outside].any()
    assert (out.frames * outside).abs().max() == 0
    assert (out.flow * outside).abs().max() == 0
    inner = out.valid[0, 0, 0]
    torch.testing.assert_close(
        out.flow[0, 0, 0][inner].float(), torch.full((SIZE * SIZE // 4,), 1.0), atol=1e-2, rtol=0
    )


def test_a_pixel_that_is_partly_padding_is_padding():
    batch = batch_of()
    batch.frames.fill_(255)
    out = perturb.weak(batch, geometry(3, scale=0.7, shift=(0.13, -0.2)))
    inside = out.frames[out.valid.expand_as(out.frames)]
    torch.testing.assert_close(inside, torch.ones_like(inside), atol=2e-3, rtol=0)
    assert 0.4 < out.valid.float().mean() < 0.49


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_flow_stays_true_to_the_picture(seed):
    """Warping an image that moved by the flow equals moving the warped image by the warped flow."""
    g = torch.Generator().manual_seed(seed)
    n = 2
    draw = perturb.draw_geometry(n, PerturbConfig(), g)
    yx = torch.stack(torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")).float()
    blob = torch.exp(-((yx - 30) ** 2).sum(0) / (2 * 4**2))  # smooth, so that sampling does not move its centre
    masks = torch.where(blob > 0.01, blob, 0.0).expand(n, 1, 1, SIZE, SIZE).clone()
    batch = DistantBatch(**{**vars(batch_of(n)), "masks": masks})
    moved = DistantBatch(**{**vars(batch), "masks": batch.masks.roll((2, -1), dims=(-1, -2))})  # u = 2, v = -1
    a, b = perturb.weak(batch, draw), perturb.weak(moved, draw)
    for i in range(n):
        one, two = a.masks[i, 0, 0], b.masks[i, 0, 0]
        if any(edge.max() > 0 for m in (one, two) for edge in (m[0], m[-1], m[:, 0], m[:, -1])):
            continue  # cut by the crop: its centre says nothing
        centres = [(yx * m).flatten(1).sum(1) / m.sum() for m in (one, two)]
        dy, dx = (centres[1] - centres[0]).tolist()
        u, v = (a.flow[i, 0, c][one > 0.9].float().median().item() for c in (0, 1))
        assert dx == pytest.approx(u, abs=0.1)
        assert dy == pytest.approx(v, abs=0.1)


def test_draws_cover_their_ranges_and_follow_the_seed():
    config = PerturbConfig()
    draw = perturb.draw_geometry(4000, config, torch.Generator().manual_seed(1))
    again = perturb.draw_geometry(4000, config, torch.Generator().manual_seed(1))
    assert torch.equal(draw.scale, again.scale)
    assert draw.scale.min() >= 0.5
    assert draw.scale.max() <= 2.0
    assert abs(draw.scale.log().median().item()) < 0.05  # log-uniform about 1
    assert (draw.shift.abs() <= (1 - draw.scale).abs()[:, None] + 1e-6).all()
    assert draw.flip.float().mean().item() == pytest.approx(0.5, abs=0.03)
    moved = draw.shift / (1 - draw.scale).abs()[:, None]
    for part in (draw.scale < 1, draw.scale > 1):  # anywhere inside the frame, any crop of it
        assert moved[part].mean(0).abs().max() < 0.05
        torch.testing.assert_close(moved[part].std(0), torch.full((2,), 3**-0.5), atol=0.02, rtol=0)


def test_colours_are_drawn_as_often_and_as_far_as_configured():
    def draw(**changes):
        return perturb.draw_colour(4000, PerturbConfig(**changes), torch.Generator().manual_seed(4))

    plain = draw()
    jittered = plain.contrast != 1
    assert jittered.float().mean().item() == pytest.approx(0.8, abs=0.03)
    contrast = plain.contrast[jittered]
    assert (contrast.min().item(), contrast.max().item()) == pytest.approx((0.5, 1.5), abs=0.01)
    assert contrast.mean().item() == pytest.approx(1, abs=0.02)
    # Grey has three rows alike, and everything else that isn't jittered stays as it is.
    grey = (plain.matrix - plain.matrix[:, :1]).abs().amax((1, 2)) < 1e-6
    assert grey.float().mean().item() == pytest.approx(0.2, abs=0.03)
    still = plain.matrix[~grey & ~jittered]
    assert torch.equal(still, torch.eye(3).expand_as(still))
    blurred = plain.sigma > 0
    assert blurred.float().mean().item() == pytest.approx(0.5, abs=0.03)
    sigma = plain.sigma[blurred]
    assert (sigma.min().item(), sigma.max().item()) == pytest.approx((0.1, 2.0), abs=0.01)

    alone = {"jitter_probability": 1, "grayscale_probability": 0}
    bright = draw(jitter=(0.3, 0, 0, 0), **alone).matrix
    factor = bright[:, 0, 0]
    torch.testing.assert_close(bright, factor[:, None, None] * torch.eye(3), atol=1e-6, rtol=0)
    assert (factor.min().item(), factor.max().item()) == pytest.approx((0.7, 1.3), abs=0.01)
    hue = draw(jitter=(0, 0, 0, 0.25), **alone).matrix
    turn = torch.atan2((hue[:, 1, 0] - hue[:, 0, 1]) * 3**0.5 / 2, (hue.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2)
    assert (turn.min().item(), turn.max().item()) == pytest.approx((-math.pi / 2, math.pi / 2), abs=0.01)
    vivid = draw(jitter=(0, 0, 0.4, 0), **alone).matrix
    torch.testing.assert_close(vivid.sum(2), torch.ones(4000, 3))  # grey stays grey
    saturation = vivid[:, 0, 0] - vivid[:, 1, 0]
    assert (saturation.min().item(), saturation.max().item()) == pytest.approx((0.6, 1.4), abs=0.01)


def test_boxes_keep_area_and_aspect():
    config = PerturbConfig()
    boxes = perturb.draw_boxes(2000, (96, 96), config, torch.Generator().manual_seed(2))
    assert boxes.chosen.float().mean().item() == pytest.approx(0.5, abs=0.04)
    areas = boxes.inside.flatten(1).float().mean(1)
    assert (areas[~boxes.chosen] == 0).all()
    assert areas[boxes.chosen].min() >= 0.015
    assert areas[boxes.chosen].max() <= 0.41
    edges = []
    for box in boxes.inside[boxes.chosen][:, 0, 0]:
        rows, columns = box.any(1).sum().item(), box.any(0).sum().item()
        assert box.sum().item() == rows * columns  # a rectangle
        assert 0.25 <= columns / rows <= 4.0
        edges.append([box.any(i).int().argmax().item() / max(1, 96 - n) for i, n in ((1, rows), (0, columns))])
    # From one side of the image to the other.
    torch.testing.assert_close(torch.tensor(edges).mean(0), torch.full((2,), 0.5), atol=0.05, rtol=0)
    tall = replace(config, cutmix_probability=1.0, cutmix_aspect=(0.3, 0.6))
    for box in perturb.draw_boxes(20, (96, 96), tall, torch.Generator().manual_seed(2)).inside[:, 0, 0]:
        assert box.any(1).sum() > box.any(0).sum(), "the aspect is width over height"


def test_paste_takes_everything_visual_from_the_partner_and_no_sound():
    batch = batch_of(4)
    weak = perturb.weak(batch, geometry(4, scale=0.8))
    boxes = perturb.draw_boxes(4, (SIZE, SIZE), PerturbConfig(cutmix_probability=1.0), torch.Generator().manual_seed(0))
    partner = perturb.roll(weak)
    assert partner.names == ("v3", "v0", "v1", "v2")
    rolled = perturb.roll(replace(weak, audio=torch.arange(4.0), times=torch.arange(4.0), categories=tuple("abcd")))
    assert rolled.audio.tolist() == rolled.times.tolist() == [3, 0, 1, 2]
    assert rolled.categories == ("d", "a", "b", "c")
    assert torch.equal(rolled.log_mel, weak.log_mel[[3, 0, 1, 2]])
    out = perturb.paste(weak, partner, boxes)
    inside = boxes.inside
    for name in ("frames", "flow", "inside", "valid", "masks"):
        got, own, theirs = getattr(out, name), getattr(weak, name), getattr(partner, name)
        where = inside.expand_as(got)
        assert torch.equal(got[where], theirs[where])
        assert torch.equal(got[~where], own[~where])
    assert torch.equal(out.log_mel, weak.log_mel)


def test_colour_leaves_flow_mask_and_padding_alone():
    weak = perturb.weak(batch_of(), geometry(3, scale=0.6))
    colour = perturb.draw_colour(
        3, PerturbConfig(jitter_probability=1, blur_probability=1), torch.Generator().manual_seed(3)
    )
    out = perturb.strong(weak, colour)
    assert torch.equal(out.flow, weak.flow)
    assert torch.equal(out.masks, weak.masks)
    assert (out.frames[~weak.valid.expand_as(out.frames)] == 0).all()
    assert out.frames.min() >= 0
    assert out.frames.max() <= 1
    assert (out.frames - weak.frames).abs().mean() > 0.01


def test_contrast_is_about_the_mean_of_each_frame_without_its_padding():
    batch = batch_of(2, times=2)
    batch.frames[1] //= 2
    batch.frames[:, 1] //= 3
    weak = perturb.weak(batch, geometry(2, scale=0.6))
    contrast = torch.tensor([0.5, 1.3])
    out = perturb.strong(weak, Colour(torch.eye(3).expand(2, 3, 3), contrast, torch.zeros(2))).frames
    for b in range(2):
        for t in range(2):
            inside = weak.valid[b, t, 0]
            pixels = weak.frames[b, t][:, inside]
            mean = (pixels * torch.tensor([0.299, 0.587, 0.114])[:, None]).sum(0).mean()
            expected = (mean + contrast[b] * (pixels - mean)).clamp(0, 1)
            torch.testing.assert_close(out[b, t][:, inside], expected, atol=1e-5, rtol=0)


def test_grayscale_brightness_and_blur_do_what_they_say():
    batch = batch_of(1)
    n = 1
    eye, one, none = torch.eye(3).expand(n, 3, 3), torch.ones(n), torch.zeros(n)
    plain = perturb.strong(batch, Colour(eye, one, none)).frames
    torch.testing.assert_close(plain, batch.frames.float() / 255, atol=1e-5, rtol=0)
    grey = perturb.strong(batch, Colour(perturb._saturation_matrix(torch.zeros(1)), one, none)).frames
    luma = (plain * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(2, keepdim=True)
    torch.testing.assert_close(grey, luma.expand_as(grey), atol=1e-5, rtol=0)
    dark = perturb.strong(batch, Colour(eye * 0.5, one, none)).frames
    torch.testing.assert_close(dark, plain * 0.5, atol=1e-5, rtol=0)
    # Against OpenCV's Gaussian: sigma is given for 224 pixels.
    import cv2

    blurred = perturb.strong(batch, Colour(eye, one, torch.tensor([4.0]))).frames[0, 0].permute(1, 2, 0).numpy()
    sigma = 4.0 * SIZE / 224
    reach = max(1, math.ceil(3 * sigma))
    expected = cv2.GaussianBlur(
        plain[0, 0].permute(1, 2, 0).numpy(), (2 * reach + 1, 2 * reach + 1), sigma, borderType=cv2.BORDER_REPLICATE
    )
    np.testing.assert_allclose(blurred, expected, atol=1e-4)


def test_hue_turns_about_the_grey_axis():
    matrix = perturb._hue_matrix(torch.tensor([1 / 3]))[0]
    torch.testing.assert_close(matrix @ torch.ones(3), torch.ones(3))
    red = torch.tensor([1.0, 0.0, 0.0])
    turned = matrix @ red
    assert turned.argmax().item() in (1, 2)
    torch.testing.assert_close(turned.max(), torch.tensor(1.0))


def test_mixing_log_mels_adds_the_spectra():
    a, b = torch.rand(2, 5, 96, 64) * 3, torch.rand(2, 5, 96, 64)
    mixed = perturb.mix_log_mel((a + 0.01).log(), (b + 0.01).log())
    torch.testing.assert_close(mixed, (a + b + 0.01).log(), atol=1e-5, rtol=1e-5)
    silence = torch.full_like(b, 0.01).log()
    torch.testing.assert_close(perturb.mix_log_mel((a + 0.01).log(), silence), (a + 0.01).log(), atol=1e-5, rtol=1e-5)
    louder = perturb.mix_log_mel((a + 0.01).log(), (b + 0.01).log(), 2.0)
    torch.testing.assert_close(louder, (a + 2 * b + 0.01).log(), atol=1e-5, rtol=1e-5)


def test_a_distant_batch_stays_unlabelled():
    out = perturb.weak(batch_of(kind=DistantBatch), geometry(3, scale=1.3))
    assert isinstance(out, DistantBatch)
    assert out.masks is None
