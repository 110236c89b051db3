"""Clips as tensors: batches of T frames each, which training, evaluation and inference hand to a model."""

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate

B = TypeVar("B", bound="Batch")


@dataclass(frozen=True)
class Batch:
    """B clips of T frames, each frame with its flow and its sound. Base of the two kinds below.

    Attributes:
        frames: ``(B, T, 3, H, W)`` RGB: uint8 as loaded, or float32 in [0, 1] once a perturbation has acted.
        flow: ``(B, T, 2, H, W)`` float16, pixels at H×W per 40 ms, ``u`` right and ``v`` down. Flow read from the
            published 8-bit trees is decoded with the model's ``flow_bound``, so that perturbations act on one kind of
            flow; `avseg.models.normalise` encodes it back to the same grey values.
        log_mel: ``(B, T, 1, 96, 64)`` float32, VGGish log-mel examples.
        masks: ``(B, T, 1, H, W)`` bool, the sounding object, or float32 in [0, 1] where they are pseudo masks; None
            where no frame is labelled.
        inside: ``(B, T, 1, H, W)`` bool, the pixels of the image: False where padded. What lies outside is blank.
        valid: ``(B, T, 1, H, W)`` bool, the pixels that losses and scores count: False where padded, in a labelled clip
            also throughout a frame without a label, and where nothing is to be learnt from a frame that is seen.
        names: The videos' names.
        categories: What sounds; empty where unknown.
        times: ``(B, T)`` float64, seconds from the video's first frame.
        audio: ``(B, T, 128)`` float32 embeddings of ``log_mel`` by a frozen audio encoder, computed once; or None.
    """

    frames: Tensor
    flow: Tensor
    log_mel: Tensor
    masks: Tensor | None
    inside: Tensor
    valid: Tensor
    names: tuple[str, ...]
    categories: tuple[str, ...]
    times: Tensor
    audio: Tensor | None = None

    def __len__(self) -> int:
        return len(self.names)

    def to(self: B, device: torch.device | str, non_blocking: bool = False) -> B:
        """The batch with every tensor on ``device``."""
        moved: dict[str, Any] = {
            field.name: value.to(device, non_blocking=non_blocking)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)

    def pin_memory(self: B) -> B:
        """The batch in page-locked memory (called by a DataLoader that feeds a GPU)."""
        pinned: dict[str, Any] = {
            field.name: value.pin_memory()
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **pinned)


@dataclass(frozen=True)
class LabelledBatch(Batch):
    """Clips of which at least one frame is labelled: ``masks`` is never None."""

    def __post_init__(self) -> None:
        if self.masks is None:
            raise ValueError("A labelled batch needs masks.")


@dataclass(frozen=True)
class EvaluationBatch(LabelledBatch):
    """Whole videos with the truth at its own size as well, which is what scores are taken at.

    Attributes:
        truth: ``(B, T, 1, h, w)`` bool, masks as they are stored; False where a frame has none.
        known: ``(B, T, 1, 1, 1)`` bool, whether a frame has a mask.
        area: Left, top, width and height of the image within the model's square, in pixels.
    """

    truth: Tensor | None = None
    known: Tensor | None = None
    area: tuple[int, int, int, int] = (0, 0, 0, 0)

    def at_truth(self, logits: Tensor) -> Tensor:
        """Logits ``(B, T, 1, H, W)`` at the model's size -> ``(B, T, 1, h, w)``: bilinear, as in AVSBench's loss."""
        assert self.truth is not None
        left, top, width, height = self.area
        inside = logits[..., top : top + height, left : left + width].flatten(0, 1).float()
        if inside.shape[-2:] != self.truth.shape[-2:]:
            inside = interpolate(inside, self.truth.shape[-2:], mode="bilinear", align_corners=False)
        return inside.unflatten(0, logits.shape[:2])


@dataclass(frozen=True)
class DistantBatch(Batch):
    """Clips of distant frames: nothing here is labelled, and ``masks`` is None until a teacher fills it.

    Attributes:
        weight: ``(B, T, 1, H, W)`` in [0, 1], how far the teacher's answer counts; None where all counts alike.
    """

    weight: Tensor | None = None


@dataclass(frozen=True)
class TrainBatch:
    """What one training step receives.

    Attributes:
        step: Index of the step, counted from the start of training. All randomness of the step derives from it.
        labelled: B_l labelled clips.
        distant: B_u distant clips; None during burn-in and without distant frames.
    """

    step: int
    labelled: LabelledBatch
    distant: DistantBatch | None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "TrainBatch":
        """The batch on ``device``."""
        distant = None if self.distant is None else self.distant.to(device, non_blocking)
        return TrainBatch(self.step, self.labelled.to(device, non_blocking), distant)

    def pin_memory(self) -> "TrainBatch":
        """The batch in page-locked memory."""
        distant = None if self.distant is None else self.distant.pin_memory()
        return TrainBatch(self.step, self.labelled.pin_memory(), distant)


def windows(count: int, length: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """How the frames 1..count of a video are cut into clips of T = ``length``, in one way for all that reads videos.

    Clips follow each other, and the last one reaches back where ``count`` is no multiple of T: of five frames, T = 2
    gives (1, 2), (3, 4) and (4, 5), T = 3 gives (1, 2, 3) and (3, 4, 5).

    Returns:
        For each clip its frames, and those among them that an earlier clip has already: they are seen again, for what
        they tell of the others, and count once.

    Raises:
        ValueError: T is not in 1..count.
    """
    if not 1 <= length <= count:
        raise ValueError(f"a video of {count} frames has no clips of {length}")
    starts = [min(start, count - length + 1) for start in range(1, count + 1, length)]
    clips = [tuple(range(start, start + length)) for start in starts]
    return [(clip, tuple(k for k in clip if k <= i * length)) for i, clip in enumerate(clips)]
