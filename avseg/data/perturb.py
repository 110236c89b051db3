"""Weak and strong perturbations of a batch: H^w and H^s of Eq. 6, on the batch's device.

What is random is drawn first, from a generator on the CPU, as a small record (`Geometry`, `Colour`, `Boxes`);
applying a record is then a plain function. So the weak and the strong view of a frame share one geometric draw, and
what a step draws depends on its seed alone, not on the device.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from avseg.config import PerturbConfig
from avseg.data.clip import Batch

B = TypeVar("B", bound=Batch)

LOG_MEL_OFFSET = 0.01  # VGGish's log-mel is ln(mel + 0.01)
GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma
REFERENCE_SIZE = 224  # the image size that blur widths are given for
_TRIES = 1000  # draws of a box


@dataclass(frozen=True)
class Geometry:
    """One resize, crop and flip for each of B clips.

    Attributes:
        scale: ``(B,)``, size of the resized image in sizes of the frame.
        shift: ``(B, 2)``, where its centre lies: x, y in [-1, 1] coordinates of the frame.
        flip: ``(B,)`` bool, mirrored left to right.
    """

    scale: Tensor
    shift: Tensor
    flip: Tensor


@dataclass(frozen=True)
class Colour:
    """One change of colours and one blur for each of B clips.

    Attributes:
        matrix: ``(B, 3, 3)``, brightness, saturation, hue and grayscale as one linear map of RGB.
        contrast: ``(B,)``, factor around each frame's mean grey value.
        sigma: ``(B,)``, the blur's standard deviation in pixels of a 224-pixel image; 0 where there is none.
    """

    matrix: Tensor
    contrast: Tensor
    sigma: Tensor


@dataclass(frozen=True)
class Boxes:
    """A CutMix box for some of B clips.

    Attributes:
        inside: ``(B, 1, 1, H, W)`` bool, the box's pixels; all False where a clip has none.
        chosen: ``(B,)`` bool on the CPU, the clips that have a box.
    """

    inside: Tensor
    chosen: Tensor


def _uniform(n: int, low: float, high: float, generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=generator)


def _chance(n: int, probability: float, generator: Generator) -> Tensor:
    return torch.rand(n, generator=generator) < probability


def draw_geometry(n: int, config: PerturbConfig, generator: Generator) -> Geometry:
    """Draw resize (log-uniform), crop (uniform) and flip for ``n`` clips."""
    scale = _uniform(n, math.log(config.scale[0]), math.log(config.scale[1]), generator).exp()
    # An image of size s may be moved by |1 - s| either way: inside the frame when smaller, covering it when larger.
    shift = (2 * torch.rand(n, 2, generator=generator) - 1) * (1 - scale).abs()[:, None]
    return Geometry(scale, shift, _chance(n, config.flip, generator))


def weak(batch: B, geometry: Geometry) -> B:
    """H^w: resize, crop and flip image, mask, flow, ``inside`` and ``valid`` together, in one sampling.

    Flow vectors are scaled with the image, and ``u`` changes its sign where the image is mirrored. Pixels from
    outside the image are black, still, background and neither ``inside`` nor ``valid``. Frames that are not ``valid``
    are seen like all others.

    Args:
        batch: Frames uint8, or float in [0, 1].
        geometry: One draw per clip, for all its frames.

    Returns:
        The batch with float frames in [0, 1]; masks keep their type (bool, or float for pseudo masks).
    """
    frames = _as_float(batch.frames)
    clips, times, _, height, width = frames.shape
    device = frames.device
    scale, shift, flip = (t.to(device, non_blocking=True) for t in (geometry.scale, geometry.shift, geometry.flip))
    sign = 1.0 - 2.0 * flip.float()

    parts = [frames, batch.flow.float(), batch.inside.float(), batch.valid.float()]
    if batch.masks is not None:
        parts.append(batch.masks.float())
    stacked = torch.cat(parts, dim=2).flatten(1, 2)

    # affine_grid asks where in the input each output pixel lies: x_in = ± (x_out - shift) / scale.
    theta = torch.zeros(clips, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 0, 2] = sign / scale, -sign * shift[:, 0] / scale
    theta[:, 1, 1], theta[:, 1, 2] = 1 / scale, -shift[:, 1] / scale
    grid = F.affine_grid(theta, [clips, stacked.shape[1], height, width], align_corners=False)
    sampled = F.grid_sample(stacked, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    sampled = sampled.unflatten(1, (times, -1))
    inside, valid = (sampled[:, :, 5:7] > 0.999).split(1, dim=2)
    sampled = sampled * inside  # a border pixel that mixes image and padding counts as padding

    turn = torch.stack([sign * scale, scale], dim=1).view(clips, 1, 2, 1, 1)
    masks = batch.masks
    if masks is not None:
        masks = sampled[:, :, 7:8] > 0.5 if masks.dtype == torch.bool else sampled[:, :, 7:8]
    return replace(
        batch,
        frames=sampled[:, :, :3],
        flow=(sampled[:, :, 3:5] * turn).to(batch.flow.dtype),
        inside=inside,
        valid=valid,
        masks=masks,
    )


def draw_colour(n: int, config: PerturbConfig, generator: Generator) -> Colour:
    """Draw colour jitter, grayscale and blur for ``n`` clips."""
    b, c, s, h = config.jitter
    jittered = _chance(n, config.jitter_probability, generator)
    brightness = _uniform(n, 1 - b, 1 + b, generator)
    contrast = _uniform(n, 1 - c, 1 + c, generator)
    saturation = _uniform(n, 1 - s, 1 + s, generator)
    hue = _uniform(n, -h, h, generator)
    matrix = torch.where(
        jittered[:, None, None],
        brightness[:, None, None] * _saturation_matrix(saturation) @ _hue_matrix(hue),
        torch.eye(3).expand(n, 3, 3),
    )
    grey = _chance(n, config.grayscale_probability, generator)
    matrix = torch.where(grey[:, None, None], _saturation_matrix(torch.zeros(n)) @ matrix, matrix)
    blurred = _chance(n, config.blur_probability, generator)
    sigma = _uniform(n, *config.blur_sigma, generator) * blurred
    return Colour(matrix, torch.where(jittered, contrast, torch.ones(n)), sigma)


def strong(batch: B, colour: Colour) -> B:
    """The photometric half of H^s: colours and blur of the image. Flow, masks and sound stay as they are.

    Brightness, contrast, saturation, hue and grayscale are all affine in RGB, so one 3×3 map and one mean do them.

    Args:
        batch: Frames uint8, or float in [0, 1]; usually a weak view.
        colour: One draw per clip.
    """
    frames = _as_float(batch.frames)
    device = frames.device
    matrix, contrast = (t.to(device, non_blocking=True) for t in (colour.matrix, colour.contrast))
    frames = torch.einsum("bij,btjhw->btihw", matrix, frames)
    grey = frames.new_tensor(GREY).view(3, 1, 1)
    # Padding is no part of the image: it must not pull the mean towards black.
    inside = batch.inside.float()
    total = inside.sum(dim=(2, 3, 4), keepdim=True).clamp(min=1)
    mean = ((frames * grey).sum(2, keepdim=True) * inside).sum(dim=(2, 3, 4), keepdim=True) / total
    factor = contrast.view(-1, 1, 1, 1, 1)
    frames = (mean + (frames - mean) * factor).clamp(0, 1)
    return replace(batch, frames=_blur(frames, colour.sigma) * inside)


def draw_boxes(n: int, size: tuple[int, int], config: PerturbConfig, generator: Generator) -> Boxes:
    """Draw a CutMix box for some of ``n`` clips of ``size`` (height, width).

    Area and aspect are drawn together until the box fits, so that both keep their ranges; `PerturbConfig` refuses
    ranges of which none does.
    """
    height, width = size
    chosen = _chance(n, config.cutmix_probability, generator)
    inside = torch.zeros(n, 1, 1, height, width, dtype=torch.bool)
    for index in chosen.nonzero().flatten().tolist():
        h, w = _draw_box_size(height, width, config, generator)
        top = int(torch.randint(0, height - h + 1, (1,), generator=generator))
        left = int(torch.randint(0, width - w + 1, (1,), generator=generator))
        inside[index, ..., top : top + h, left : left + w] = True
    return Boxes(inside, chosen)


def paste(batch: B, partner: Batch, boxes: Boxes) -> B:
    """The CutMix half of H^s: within its box, a clip takes all of its partner's pixels.

    These are image, flow, ``inside``, ``valid``, pseudo mask and its weight. The sound is left alone (`mix_log_mel`).
    """
    box = boxes.inside.to(batch.frames.device, non_blocking=True)
    names = ("frames", "flow", "masks", "inside", "valid", "weight")
    pairs = ((name, getattr(partner, name, None), getattr(batch, name, None)) for name in names)
    pasted: dict[str, Any] = {
        name: torch.where(box, theirs, own) for name, theirs, own in pairs if theirs is not None and own is not None
    }
    return replace(batch, **pasted)


def mix_log_mel(own: Tensor, partner: Tensor, gain: Tensor | float = 1.0) -> Tensor:
    """Log-mel examples of two sounds heard together.

    The mel spectra add: with ``ln(mel + 0.01)`` on both sides that is ``ln(e^A + g·(e^B − 0.01))``, which for g = 1
    is ``ln(e^A + e^B − 0.01)``.

    Args:
        own: ``(..., 96, 64)``.
        partner: The same shape.
        gain: Factor on the partner's magnitudes, broadcast.
    """
    return torch.log(own.exp() + gain * (partner.exp() - LOG_MEL_OFFSET).clamp(min=0))


def roll(batch: B, by: int = 1) -> B:
    """The batch with clip i in place i + ``by``: every clip's CutMix partner."""
    order = [(i - by) % len(batch) for i in range(len(batch))]
    rolled = {
        name: value.roll(by, dims=0)
        for name in ("frames", "flow", "log_mel", "masks", "inside", "valid", "times", "audio", "weight")
        if (value := getattr(batch, name, None)) is not None
    }
    names = tuple(batch.names[i] for i in order)
    return replace(batch, names=names, categories=tuple(batch.categories[i] for i in order), **rolled)


def _as_float(frames: Tensor) -> Tensor:
    return frames.float() / 255 if frames.dtype == torch.uint8 else frames


def _saturation_matrix(factor: Tensor) -> Tensor:
    """``(n,)`` -> ``(n, 3, 3)``: between grey (0) and the image itself (1), and beyond."""
    grey = torch.tensor(GREY).expand(3, 3)
    return grey + factor[:, None, None] * (torch.eye(3) - grey)


def _hue_matrix(turn: Tensor) -> Tensor:
    """``(n,)`` turns of the colour circle -> ``(n, 3, 3)`` rotations about the grey axis (Rodrigues' formula)."""
    angle = 2 * math.pi * turn[:, None, None]
    k = 1 / math.sqrt(3)
    cross = torch.tensor([[0.0, -k, k], [k, 0.0, -k], [-k, k, 0.0]])
    return torch.eye(3) + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)


def _blur(frames: Tensor, sigma: Tensor) -> Tensor:
    """Separable Gaussian blur, another width for each clip; a width of 0 leaves a clip as it is."""
    clips, times, channels, height, width = frames.shape
    sigma = sigma * (height / REFERENCE_SIZE)
    reach = max(1, math.ceil(3 * float(sigma.max())))  # on the CPU still: the width must be known before the launch
    sigma = sigma.to(frames.device, non_blocking=True)
    offsets = torch.arange(-reach, reach + 1, device=frames.device, dtype=frames.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp(min=1e-3)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(times * channels, 0)
    planes = frames.reshape(1, -1, height, width)
    planes = F.pad(planes, (reach, reach, 0, 0), mode="replicate")
    planes = F.conv2d(planes, kernel[:, None, None, :], groups=planes.shape[1])
    planes = F.pad(planes, (0, 0, reach, reach), mode="replicate")
    planes = F.conv2d(planes, kernel[:, None, :, None], groups=planes.shape[1])
    return planes.view(clips, times, channels, height, width)


def _draw_box_size(height: int, width: int, config: PerturbConfig, generator: Generator) -> tuple[int, int]:
    low, high = (math.log(a) for a in config.cutmix_aspect)
    for _ in range(_TRIES):
        area = float(_uniform(1, *config.cutmix_area, generator)) * height * width
        aspect = math.exp(float(_uniform(1, low, high, generator)))
        h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < h <= height and 0 < w <= width:
            return h, w
    # Hardly any box of these ranges fits: take the smallest, as near to a square as they allow.
    area, aspect = config.cutmix_area[0] * height * width, math.exp(min(max(0.0, low), high))
    h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
    return min(max(h, 1), height), min(max(w, 1), width)
