"""What is seen: masks of the things that are looked for, by an instance segmenter and a text-prompted one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from avseg.openvocab.hear import Wanted, of_transformers

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, which both models take


class Sighting(NamedTuple):
    """A candidate.

    Attributes:
        wanted: What it was looked for as.
        sight: How surely it is seen, in [0, 1].
        mask: ``(S, S)`` float32 in [0, 1], from 0.5 on inside.
    """

    wanted: Wanted
    sight: float
    mask: np.ndarray


class Eyes(Protocol):
    """Finds things by name."""

    def look(self, frames: np.ndarray, wanted: Sequence[Sequence[Wanted]]) -> list[list[Sighting]]:
        """Candidates of each frame: ``(n, S, S, 3)`` uint8 RGB, and what is wanted in it."""


class InstanceEyes:
    """RF-DETR with masks, trained on COCO: one candidate for each instance of a wanted class.

    Args:
        folder: As transformers writes it.
        device: Where it runs.
        least: Probability from which an instance counts.
        side: Pixels that frames are brought to; None: the backbone's own.

    Raises:
        AvsegError: no such model in the folder.
    """

    def __init__(
        self, folder: str | Path, device: torch.device | str = "cpu", least: float = 0.3, side: int | None = None
    ):
        from transformers import RfDetrForInstanceSegmentation

        self.device, self.least = torch.device(device), least
        self.model = of_transformers(RfDetrForInstanceSegmentation, folder).to(self.device).eval()
        labels = self.model.config.id2label
        self.classes = {str(name).lower().replace("_", " "): int(index) for index, name in labels.items()}
        backbone: Any = self.model.config.backbone_config
        size: Any = side or getattr(backbone, "image_size", 384)
        self.side = int(size if isinstance(size, int) else size[0])

    def covers(self, wanted: Wanted) -> bool:
        """Whether any of its classes is wanted."""
        return any(name in self.classes for name in wanted.coco)

    @torch.inference_mode()
    def look(self, frames: np.ndarray, wanted: Sequence[Sequence[Wanted]]) -> list[list[Sighting]]:
        """See `Eyes.look`; things of no class of its own are passed over."""
        found: list[list[Sighting]] = [[] for _ in frames]
        asked = [n for n, each in enumerate(wanted) if any(self.covers(one) for one in each)]
        if not asked:
            return found
        output = self.model(_pixels(frames[asked], self.side, self.device))
        for row, n in enumerate(asked):
            chances = output.logits[row].float().sigmoid()
            masks: dict[int, np.ndarray] = {}  # one an instance, whatever number of names it answers to
            for one in wanted[n]:
                numbers = [self.classes[name] for name in one.coco if name in self.classes]
                if not numbers:
                    continue
                best = chances[:, numbers].amax(dim=1)
                for query in torch.nonzero(best >= self.least)[:, 0].tolist():
                    if query not in masks:
                        mask = _resized(output.pred_masks[row, query].float(), frames.shape[1]).sigmoid()
                        masks[query] = mask.cpu().numpy()
                    found[n].append(Sighting(one, float(best[query]), masks[query]))
        return found


class PromptedEyes:
    """CLIPSeg: one candidate for each noun, where its answer reaches half of its highest.

    Args:
        folder: As transformers writes it, with the tokenizer.
        device: Where it runs.
        least: Probability that a candidate's pixels must have on average.

    Raises:
        AvsegError: no such model in the folder.
    """

    def __init__(self, folder: str | Path, device: torch.device | str = "cpu", least: float = 0.3):
        from transformers import CLIPSegForImageSegmentation, CLIPTokenizer

        self.device, self.least = torch.device(device), least
        self.model = of_transformers(CLIPSegForImageSegmentation, folder).to(self.device).eval()
        self.tokenizer = of_transformers(CLIPTokenizer, folder)
        self.side = int(self.model.config.vision_config.image_size)

    @torch.inference_mode()
    def look(self, frames: np.ndarray, wanted: Sequence[Sequence[Wanted]]) -> list[list[Sighting]]:
        """See `Eyes.look`."""
        pairs = [(n, one) for n, each in enumerate(wanted) for one in each]
        found: list[list[Sighting]] = [[] for _ in frames]
        if not pairs:
            return found
        pixels = _pixels(frames, self.side, self.device)[[n for n, _ in pairs]]
        texts = self.tokenizer([f"a photo of a {one.noun}" for _, one in pairs], padding=True, return_tensors="pt")
        logits = self.model(pixel_values=pixels, **texts.to(self.device)).logits.float()
        for (n, one), answer in zip(pairs, logits.reshape(len(pairs), *logits.shape[-2:]), strict=True):
            chance = _resized(answer, frames.shape[1]).sigmoid()
            highest = chance.amax()
            inside = chance >= highest / 2
            sight = float(chance[inside].mean())
            if sight >= self.least:
                found[n].append(Sighting(one, sight, (chance / highest).cpu().numpy()))
        return found


class Both:
    """Instances where COCO has the class, prompts for everything else."""

    def __init__(self, instances: InstanceEyes, prompted: PromptedEyes):
        self.instances, self.prompted = instances, prompted

    def look(self, frames: np.ndarray, wanted: Sequence[Sequence[Wanted]]) -> list[list[Sighting]]:
        """See `Eyes.look`."""
        known = [[one for one in each if self.instances.covers(one)] for each in wanted]
        other = [[one for one in each if not self.instances.covers(one)] for each in wanted]
        first, second = self.instances.look(frames, known), self.prompted.look(frames, other)
        return [a + b for a, b in zip(first, second, strict=True)]


def _pixels(frames: np.ndarray, side: int, device: torch.device) -> Tensor:
    """``(n, S, S, 3)`` uint8 -> ``(n, 3, side, side)`` normalised; transformers' own processors need torchvision."""
    images = torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).float() / 255
    if images.shape[-1] != side:
        images = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(each, device=device).view(3, 1, 1) for each in (_MEAN, _STD))
    return (images - mean) / std


def _resized(mask: Tensor, side: int) -> Tensor:
    return F.interpolate(mask[None, None], (side, side), mode="bilinear")[0, 0]
