"""Deformable attention: equal to its definition, to another implementation, at any size, in any mode."""

import math
from copy import deepcopy

import pytest
import torch
from torch import Tensor
from transformers.models.deformable_detr.modeling_deformable_detr import MultiScaleDeformableAttention

from avseg.models.deformable import DeformableAttention, pixel_grid, sample_levels, sine_positions

SIZES = [(4, 6), (2, 3), (1, 2)]
CPU = torch.device("cpu")


def loop(values: Tensor, sizes: list[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    """The definition: one bilinear sample at a time, zeros outside."""
    clips, heads, channels, _ = values.shape
    levels, points, queries = weights.shape[2:]
    out = torch.zeros(clips, heads, channels, queries, dtype=values.dtype)
    for n in range(clips):
        for m in range(heads):
            start = 0
            for level in range(levels):
                height, width = sizes[level]
                for p in range(points):
                    for q in range(queries):
                        # -1 and 1 are the outer edges: pixel i's centre is at (2 i + 1) / side - 1.
                        x = ((locations[n, m, level, p, q, 0].item() + 1) * width - 1) / 2
                        y = ((locations[n, m, level, p, q, 1].item() + 1) * height - 1) / 2
                        for row in (math.floor(y), math.floor(y) + 1):
                            for column in (math.floor(x), math.floor(x) + 1):
                                if 0 <= row < height and 0 <= column < width:
                                    share = (1 - abs(y - row)) * (1 - abs(x - column))
                                    value = values[n, m, :, start + row * width + column]
                                    out[n, m, :, q] += weights[n, m, level, p, q] * share * value
                start += height * width
    return out


def random_case(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    total = sum(height * width for height, width in SIZES)
    values = torch.randn(2, 2, 3, total, dtype=dtype)
    locations = torch.empty(2, 2, 3, 2, 5, 2, dtype=dtype).uniform_(-1.4, 1.4)  # some outside
    weights = torch.rand(2, 2, 3, 2, 5, dtype=dtype)
    return values, locations, weights


def test_samples_as_defined() -> None:
    values, locations, weights = random_case()
    expected = loop(values, SIZES, locations, weights)
    torch.testing.assert_close(sample_levels(values, SIZES, locations, weights), expected, rtol=1e-12, atol=1e-12)


def test_samples_as_transformers_does_gradients_too() -> None:
    values, locations, weights = (item.requires_grad_() for item in random_case())
    ours = sample_levels(values, SIZES, locations, weights)
    theirs = MultiScaleDeformableAttention()(
        values.permute(0, 3, 1, 2),
        torch.tensor(SIZES),
        SIZES,
        None,
        (locations.permute(0, 4, 1, 2, 3, 5) + 1) / 2,
        weights.permute(0, 4, 1, 2, 3),
        64,
    )
    torch.testing.assert_close(ours.flatten(1, 2).transpose(1, 2), theirs)
    leaves = (values, locations, weights)
    seed = torch.randn_like(ours)
    own = torch.autograd.grad(ours, leaves, seed)
    other = torch.autograd.grad(theirs, leaves, seed.flatten(1, 2).transpose(1, 2))
    for a, b in zip(own, other, strict=True):
        torch.testing.assert_close(a, b)


def module(dtype: torch.dtype = torch.float64) -> DeformableAttention:
    torch.manual_seed(1)
    attention = DeformableAttention(16, heads=4, levels=3, points=2).to(dtype)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return attention


def tokens_for(sizes: list[tuple[int, int]], dtype: torch.dtype = torch.float64) -> Tensor:
    torch.manual_seed(2)
    return torch.randn(2, sum(height * width for height, width in sizes), 16, dtype=dtype)


@pytest.mark.parametrize("sizes", [SIZES, [(3, 3), (2, 2), (1, 1)], [(2, 8), (1, 4), (5, 1)]])
def test_attends_as_defined(sizes: list[tuple[int, int]]) -> None:
    attention, tokens = module(), tokens_for(sizes)
    queries = tokens + 0.5
    count = tokens.shape[1]
    # Reference points at pixel centres, (x + 1/2) / width; offsets in pixels of the sampled level.
    centres = torch.tensor(
        [
            [(x + 0.5) / width, (y + 0.5) / height]
            for height, width in sizes
            for y in range(height)
            for x in range(width)
        ],
        dtype=torch.float64,
    )
    scale = torch.tensor([[width, height] for height, width in sizes], dtype=torch.float64)
    offsets = attention.offsets(queries).view(2, count, 4, 3, 2, 2)
    places = centres.view(1, count, 1, 1, 1, 2) + offsets / scale.view(1, 1, 1, 3, 1, 2)
    weights = attention.weights(queries).view(2, count, 4, 6).softmax(3).view(2, count, 4, 3, 2)
    values = attention.value(tokens).view(2, count, 4, 4).permute(0, 2, 3, 1)
    sampled = loop(values, sizes, 2 * places.permute(0, 2, 3, 4, 1, 5) - 1, weights.permute(0, 2, 3, 4, 1))
    expected = attention.output(sampled.flatten(1, 2).transpose(1, 2))
    torch.testing.assert_close(attention(queries, tokens, sizes), expected, rtol=1e-9, atol=1e-9)


def test_starts_with_a_ring_of_points_and_equal_weights() -> None:
    attention = DeformableAttention(16, heads=4, levels=3, points=2)
    ring = attention.offsets.bias.view(4, 3, 2, 2)
    right, down = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    torch.testing.assert_close(ring[0, 0], torch.stack([right, 2 * right]))
    torch.testing.assert_close(ring[1, 2], torch.stack([down, 2 * down]), atol=1e-6, rtol=0)
    assert not attention.weights.weight.any()
    assert not attention.weights.bias.any()


def test_positions_are_sines_of_row_then_column_counted_from_one() -> None:
    positions = sine_positions(3, 5, 8, CPU, torch.float64).view(3, 5, 8)
    for y in range(3):
        for x in range(5):
            expected = [
                wave(place / 10_000 ** (2 * pair / 4))
                for place in (y + 1, x + 1)
                for pair in (0, 1)
                for wave in (math.sin, math.cos)
            ]
            torch.testing.assert_close(positions[y, x], torch.tensor(expected, dtype=torch.float64))


def test_what_depends_on_the_size_alone_is_made_once() -> None:
    sizes = ((4, 6), (2, 3))
    assert pixel_grid(sizes, CPU)[0] is pixel_grid(sizes, CPU)[0]
    assert pixel_grid(sizes, CPU, torch.float64)[0].dtype == torch.float64
    assert sine_positions(4, 6, 8, CPU) is sine_positions(4, 6, 8, CPU)
    assert sine_positions(6, 4, 8, CPU) is not sine_positions(4, 6, 8, CPU)


def test_is_trainable_after_inference_mode_and_copies_well() -> None:
    sizes = [(5, 7), (3, 4), (2, 2)]  # of no other test, so that inference mode is the first to ask
    attention, tokens = module(torch.float32), tokens_for(sizes, torch.float32)
    with torch.inference_mode():
        before = attention(tokens, tokens, sizes)
        positions = sine_positions(5, 7, 16, CPU)
    (attention(tokens, tokens, sizes) * (torch.ones((), requires_grad=True) * positions.sum())).sum().backward()
    assert attention.offsets.weight.grad is not None
    copied = deepcopy(attention)
    torch.testing.assert_close(copied(tokens, tokens, sizes), before)
    assert {name.split(".")[0] for name in attention.state_dict()} == {"offsets", "weights", "value", "output"}


def test_sampling_places_keep_their_digits_in_half_precision() -> None:
    sizes = [(28, 28), (14, 14), (7, 7)]
    attention, tokens = module(torch.float32), tokens_for(sizes, torch.float32)
    with torch.no_grad():
        attention.offsets.weight.zero_()
        full = attention(tokens, tokens, sizes)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = attention(tokens, tokens, sizes)
    # bfloat16's own noise is about 0.004; places rounded to it would be off by up to a twentieth of a pixel.
    assert (full - half.float()).std() <= 0.01 * full.std()
