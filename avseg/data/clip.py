"""The one record that flows through the whole house: a clip, and its collated form, a batch."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate


@dataclass(frozen=True)
class Clip:
    """T frames of one video, each with its motion and its sound.

    Attributes:
        frames: ``(T, 3, H, W)`` uint8, RGB.
        flow: ``(T, 2, H, W)`` float16, pixels at H×W per 40 ms, ``u`` right and ``v`` down. Flow read from the
            published 8-bit trees is decoded with the model's ``flow_bound``, so that perturbations act on one kind of
            flow; `avseg.models.normalise` encodes it back to the same grey values.
        log_mel: ``(T, 1, 96, 64)`` float32, VGGish log-mel examples.
        masks: ``(T, 1, H, W)`` bool, the sounding object; None where no frame is labelled.
        inside: ``(T, 1, H, W)`` bool, the pixels of the picture: False where padded. What lies outside is blank.
        valid: ``(T, 1, H, W)`` bool, the pixels that losses and scores count: False where padded, in a labelled clip
            also throughout a frame without a label, and where nothing is to be learnt from a frame that is seen.
        name: The video's name.
        category: What sounds; empty where unknown.
        times: ``(T,)`` float64, seconds from the video's first frame.
        audio: ``(T, 128)`` float32 embeddings of ``log_mel`` by a frozen audio encoder, computed once; or None.
    """

    frames: Tensor
    flow: Tensor
    log_mel: Tensor
    masks: Tensor | None
    inside: Tensor
    valid: Tensor
    name: str
    category: str
    times: Tensor
    audio: Tensor | None = None


B = TypeVar("B", bound="Batch")


@dataclass(frozen=True)
class Batch:
    """Collated clips: the fields of `Clip` with a leading B. Base of the two kinds below.

    ``frames`` are uint8 as loaded, or float32 in [0, 1] once a perturbation has acted; ``masks`` are bool, or float32
    in [0, 1] where they are pseudo masks.
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
        picture: Left, top, width and height of the picture within the model's square, in pixels.
    """

    truth: Tensor | None = None
    known: Tensor | None = None
    picture: tuple[int, int, int, int] = (0, 0, 0, 0)

    def at_truth(self, logits: Tensor) -> Tensor:
        """Logits ``(B, T, 1, H, W)`` at the model's size -> ``(B, T, 1, h, w)``: bilinear, as in AVSBench's loss."""
        assert self.truth is not None
        left, top, width, height = self.picture
        inside = logits[..., top : top + height, left : left + width].flatten(0, 1).float()
        if inside.shape[-2:] != self.truth.shape[-2:]:
            inside = interpolate(inside, self.truth.shape[-2:], mode="bilinear", align_corners=False)
        return inside.unflatten(0, logits.shape[:2])


@dataclass(frozen=True)
class DistantBatch(Batch):
    """Clips of distant frames: nothing here is labelled, and ``masks`` is None until a teacher fills it."""


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


def collate(clips: Sequence[Clip], kind: type[B]) -> B:
    """Stack clips of one size and length into a batch of ``kind``.

    Masks are dropped for a `DistantBatch`: a distant frame is never trained on with its label, even where one exists.
    Embeddings are kept only where every clip has them.

    Raises:
        ValueError: no clips, clips of different shapes, or a labelled batch with a clip without masks.
    """
    if not clips:
        raise ValueError("Cannot collate an empty list of clips.")
    shapes = {clip.frames.shape for clip in clips}
    if len(shapes) > 1:
        raise ValueError(f"Cannot collate clips of different shapes: {sorted(map(tuple, shapes))}.")
    masks = None
    if kind is not DistantBatch and all(clip.masks is not None for clip in clips):
        masks = torch.stack([clip.masks for clip in clips if clip.masks is not None])
    audio = None
    if all(clip.audio is not None for clip in clips):
        audio = torch.stack([clip.audio for clip in clips if clip.audio is not None])
    return kind(
        frames=torch.stack([clip.frames for clip in clips]),
        flow=torch.stack([clip.flow for clip in clips]),
        log_mel=torch.stack([clip.log_mel for clip in clips]),
        masks=masks,
        inside=torch.stack([clip.inside for clip in clips]),
        valid=torch.stack([clip.valid for clip in clips]),
        names=tuple(clip.name for clip in clips),
        categories=tuple(clip.category for clip in clips),
        times=torch.stack([clip.times for clip in clips]),
        audio=audio,
    )
