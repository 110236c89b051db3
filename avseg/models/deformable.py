"""Multi-scale deformable attention (Zhu et al., ICLR 2021) in plain PyTorch: nothing to compile, on any device."""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Sizes = Sequence[tuple[int, int]]
"""Height and width of each level's map."""


def sample_levels(values: Tensor, sizes: Sizes, locations: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of bilinear samples; outside a map there are zeros.

    Args:
        values: ``(N, M, C, S)``, the pixels of all levels one after another; M heads, S the sum of ``sizes``.
        sizes: Of the L levels.
        locations: ``(N, M, L, P, Q, 2)``, x and y of P points a query and level: -1 and 1 are the outer edges of the
            first and the last pixel.
        weights: ``(N, M, L, P, Q)``.

    Returns:
        ``(N, M, C, Q)``.
    """
    heads = values.shape[1]
    values, locations, weights = values.flatten(0, 1), locations.flatten(0, 1), weights.flatten(0, 1).unsqueeze(1)
    total: Tensor | None = None
    levels = values.split([height * width for height, width in sizes], dim=2)
    for level, (item, size) in enumerate(zip(levels, sizes, strict=True)):
        # One level at a time, queries innermost: the samples (N·M, C, P, Q) are by far the largest tensor here.
        samples = F.grid_sample(
            item.unflatten(2, size), locations[:, level], mode="bilinear", padding_mode="zeros", align_corners=False
        )
        part = (samples * weights[:, :, level]).sum(2)
        total = part if total is None else total + part
    assert total is not None
    return total.unflatten(0, (-1, heads))


class DeformableAttention(nn.Module):
    """Every token attends to a few points near its own place, on every level.

    Args:
        width: Channels of a token.
        heads: Attention heads; a divisor of ``width``.
        levels: Maps that are sampled.
        points: Points sampled on each level by each head.
    """

    def __init__(self, width: int, heads: int, levels: int, points: int):
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.offsets = nn.Linear(width, heads * levels * points * 2)
        self.weights = nn.Linear(width, heads * levels * points)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start from points in a ring: head m looks in its own direction, point p at p + 1 pixels; equal weights."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=1)
        direction = direction / direction.abs().amax(dim=1, keepdim=True)
        distance = torch.arange(1, self.points + 1).view(1, 1, -1, 1)
        ring = direction.view(-1, 1, 1, 2) * distance.expand(1, self.levels, -1, 1)
        nn.init.zeros_(self.offsets.weight)
        with torch.no_grad():
            self.offsets.bias.copy_(ring.flatten())
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        for layer in (self.value, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, queries: Tensor, tokens: Tensor, sizes: Sizes) -> Tensor:
        """Attend from every pixel of every level.

        Args:
            queries: ``(N, S, width)``: tokens with their positions.
            tokens: ``(N, S, width)``: what is sampled, level after level, row after row.
            sizes: Of the levels.

        Returns:
            ``(N, S, width)``.
        """
        split = (self.heads, self.levels, self.points)
        # Places need more digits than half precision has.
        precise = torch.promote_types(queries.dtype, torch.float32)
        centres, pixel = pixel_grid(tuple(sizes), queries.device, precise)
        # Offsets count pixels of their level: (N, S, M·L·P·2) -> (N, M, L, P, S, 2).
        offsets = self.offsets(queries).to(precise).unflatten(2, (*split, 2)).permute(0, 2, 3, 4, 1, 5)
        weights = self.weights(queries).to(precise).unflatten(2, (self.heads, -1)).softmax(3)
        weights = weights.unflatten(3, split[1:]).permute(0, 2, 3, 4, 1)
        values = self.value(tokens).transpose(1, 2).unflatten(1, (self.heads, -1))
        sampled = sample_levels(values.to(precise), sizes, centres + offsets * pixel, weights)
        attended: Tensor = self.output(sampled.flatten(1, 2).transpose(1, 2).to(values.dtype))
        return attended


def pixel_grid(
    sizes: tuple[tuple[int, int], ...], device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Where pixels are, in `sample_levels`' coordinates; computed once for each size, device and type.

    Args:
        sizes: Of the levels.
        device: Where the tensors are wanted.
        dtype: Their type.

    Returns:
        The centres of all pixels of all levels, x and y, ``(S, 2)``, and each level's step from one pixel to the
        next, ``(L, 1, 1, 2)``.
    """
    # A compiler writes constants into its graph by itself.
    make = _pixel_grid if torch.compiler.is_compiling() else _stored_pixel_grid
    return make(sizes, device, dtype)


def _pixel_grid(sizes: tuple[tuple[int, int], ...], device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    centres = []
    for height, width in sizes:
        y = (torch.arange(height, dtype=torch.float64, device="cpu") + 0.5) * (2 / height) - 1
        x = (torch.arange(width, dtype=torch.float64, device="cpu") + 0.5) * (2 / width) - 1
        centres.append(torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=2).flatten(0, 1))
    steps = torch.tensor([(2 / width, 2 / height) for height, width in sizes], dtype=dtype, device="cpu")
    return torch.cat(centres).to(dtype).to(device), steps.view(-1, 1, 1, 2).to(device)


@lru_cache(maxsize=32)
def _stored_pixel_grid(
    sizes: tuple[tuple[int, int], ...], device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    # A tensor made in inference mode could not be used in training later.
    with torch.inference_mode(False):
        return _pixel_grid(sizes, device, dtype)


def sine_positions(
    height: int,
    width: int,
    channels: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    relative: bool = False,
) -> Tensor:
    """Sine positions of a map's pixels, row after row; computed once for each size, device and type.

    Half of the channels tell y, the other half x, both counted in pixels from 1; sines and cosines of wavelengths from
    2π to 10,000·2π pixels alternate. Where they are ``relative``, the last pixel of either axis is at 2π.

    Args:
        height: Of the map.
        width: Of the map.
        channels: A multiple of 4.
        device: Where the tensor is wanted.
        dtype: Its type.
        relative: Whether places are parts of the map's side.

    Returns:
        ``(height·width, channels)``.
    """
    make = _sine_positions if torch.compiler.is_compiling() else _stored_sine_positions
    return make(height, width, channels, device, dtype, relative)


def _sine_positions(
    height: int, width: int, channels: int, device: torch.device, dtype: torch.dtype, relative: bool
) -> Tensor:
    half = channels // 2
    wavelength = 10_000 ** (torch.arange(0, half, 2, dtype=torch.float64, device="cpu") / half)

    def axis(length: int) -> Tensor:
        place = torch.arange(1, length + 1, dtype=torch.float64, device="cpu").unsqueeze(1)
        angle = (place * (2 * math.pi / (length + 1e-6)) if relative else place) / wavelength
        return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)

    y = axis(height).unsqueeze(1).expand(-1, width, -1)
    x = axis(width).unsqueeze(0).expand(height, -1, -1)
    return torch.cat([y, x], dim=2).flatten(0, 1).to(dtype).to(device)


@lru_cache(maxsize=128)
def _stored_sine_positions(
    height: int, width: int, channels: int, device: torch.device, dtype: torch.dtype, relative: bool
) -> Tensor:
    with torch.inference_mode(False):
        return _sine_positions(height, width, channels, device, dtype, relative)
