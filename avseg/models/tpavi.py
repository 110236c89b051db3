"""TPAVI (Zhou et al., ECCV 2022): non-local audio-visual attention at four scales and a convolutional decoder."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avseg.config import ModelConfig, WeightsConfig
from avseg.errors import AvsegError
from avseg.models.audio import EMBEDDING
from avseg.models.base import AVSModel, Prediction, register
from avseg.models.encoders import channels_of
from avseg.models.layers import PyramidConvolution, at_least_single, masked_bce, mean_of_labelled


@dataclass
class Options:
    """TPAVI's own settings (``model.options``).

    Attributes:
        matching_weight: Weight of the audio-visual matching loss.
        matching: ``cosine`` as on S4, or ``kl`` as on MS3.
        stages: Where sound meets pixels and is matched, 1 (stride 4) to 4 (stride 32).
        initial_gain: Scale of the attention's batch norm at the start. 0, as published, starts from vision alone;
            short trainings hear earlier with more.
    """

    matching_weight: float = 0.5
    matching: Literal["cosine", "kl"] = "cosine"
    stages: tuple[int, ...] = (1, 2, 3, 4)
    initial_gain: float = 0.0

    def check_together(self) -> None:
        """Raise AvsegError where a stage is named twice."""
        if len(set(self.stages)) < len(self.stages):
            raise AvsegError(f"model.options.stages is {list(self.stages)}: give some of 1, 2, 3 and 4, each once.")


class TPAVIBlock(nn.Module):
    """Temporal pixel-wise audio-visual interaction at one scale.

    Every pixel of a clip attends to every pixel of all its frames, with the sound of each frame as the key. There is no
    softmax, so ``(θ φᵀ / N) g = θ (φᵀ g) / N``; and as the key is the same for all pixels of a frame, ``φᵀ g`` needs
    only the mean of the pixels of each frame. The N×N matrix never exists.

    Args:
        width: Channels of the map.
        gain: Initial scale of the batch norm.
    """

    def __init__(self, width: int, gain: float = 0.0):
        super().__init__()
        inner = width // 2
        self.audio = nn.Linear(EMBEDDING, width)
        self.theta = nn.Linear(width, inner)
        self.phi = nn.Linear(width, inner)
        self.g = nn.Linear(width, inner)
        self.out = nn.Linear(inner, width)
        self.out_norm = nn.BatchNorm2d(width)
        self.norm = nn.LayerNorm(width)
        nn.init.constant_(self.out_norm.weight, gain)

    def forward(self, x: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse one scale.

        Args:
            x: ``(B, T, C, h, w)``.
            audio: ``(B, T, 128)``.

        Returns:
            The fused map ``(B, T, C, h, w)`` and the projected audio ``(B, T, C)``.
        """
        shape = x.permute(0, 1, 3, 4, 2).shape
        pixels = x.permute(0, 1, 3, 4, 2).flatten(1, 3)  # (B, T·h·w, C)
        projected = self.audio(audio)
        key = self.phi(projected)
        # θ(x)·φ_t of every pixel, with θ moved to the side of the T keys: (B, T·h·w, T).
        bias = (key @ self.theta.bias).unsqueeze(1)
        scores = torch.baddbmm(bias, pixels, (key @ self.theta.weight).transpose(1, 2))
        # W_z(g) of every frame's mean pixel; the bias of W_z is added once, behind the sum over frames.
        value = F.linear(self.g(x.mean(dim=(3, 4))), self.out.weight) / shape[1]
        attended = torch.baddbmm(self.out.bias.view(1, 1, -1), scores, value).view(shape)
        attended = self.out_norm(attended.flatten(0, 1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        fused = self.norm(attended.reshape(shape) + pixels.view(shape))
        return fused.permute(0, 1, 4, 2, 3), projected


class ResidualUnit(nn.Module):
    """ReLU, 3×3, ReLU, 3×3, plus a skip of the *rectified* input: the published network rectifies in place."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        rectified = F.relu(x)
        refined: Tensor = rectified + self.conv2(F.relu(self.conv1(rectified)))
        return refined


class Path(nn.Module):
    """One step of the decoder: double the coarser result, add the finer map to it, refine.

    Args:
        width: Channels.
        first: Whether this is the coarsest step, which adds to nothing.
    """

    def __init__(self, width: int, first: bool = False):
        super().__init__()
        self.lateral = None if first else ResidualUnit(width)
        self.refine = ResidualUnit(width)

    def forward(self, finer: Tensor, coarser: Tensor | None = None) -> Tensor:
        """``(N, width, h, w)`` and, but for the first step, ``(N, width, h/2, w/2)`` -> ``(N, width, h, w)``."""
        if self.lateral is None or coarser is None:
            refined: Tensor = self.refine(finer)
            return refined
        large = F.interpolate(coarser, scale_factor=2, mode="bilinear", align_corners=True)
        refined = self.refine(large + self.lateral(finer))
        return refined


class OutputHead(nn.Module):
    """From stride 4 to one logit for each pixel, doubling the size twice."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width // 2, 3, padding=1)
        self.conv2 = nn.Conv2d(width // 2, max(width // 8, 1), 3, padding=1)
        self.conv3 = nn.Conv2d(max(width // 8, 1), 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, width, h, w)`` -> ``(N, 1, 4h, 4w)``."""
        x = self.conv1(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))
        x = self.conv2(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))
        logits: Tensor = self.conv3(F.relu(x))
        return logits


@register("tpavi")
class TPAVI(AVSModel):
    """TPAVI of any width, any number of frames and any image whose sides are multiples of 32.

    ``Prediction.aux`` holds what the matching loss needs: ``maps``, the fused (rectified) maps
    ``(B, T, width, h, w)`` of `Options.stages`, and ``audio``, the projected sounds ``(B, T, width)``.
    """

    options_class = Options
    options: Options

    def __init__(self, config: ModelConfig, weights: WeightsConfig | None = None):
        super().__init__(config, weights)
        width = config.width
        self.project = nn.ModuleList(
            PyramidConvolution(channels, width, config.dilations) for channels in channels_of(self.image_encoder)
        )
        self.fusion = nn.ModuleDict(
            {f"stage{stage}": TPAVIBlock(width, self.options.initial_gain) for stage in sorted(self.options.stages)}
        )
        self.paths = nn.ModuleList(Path(width, first=stage == 4) for stage in (1, 2, 3, 4))
        self.output = OutputHead(width)

    def pyramid(self, frames: Tensor) -> list[Tensor]:
        """See `AVSModel.pyramid`."""
        return [project(item) for project, item in zip(self.project, self.image_encoder(frames), strict=True)]

    def decode(self, pyramid: list[Tensor], audio: Tensor, frames: Tensor) -> Prediction:
        """See `AVSModel.decode`."""
        clips = audio.shape[:2]
        maps: list[Tensor] = []
        matched: list[Tensor] = []
        sounds: list[Tensor] = []
        for stage, item in enumerate(pyramid, start=1):
            if stage in self.options.stages:
                fused, sound = self.fusion[f"stage{stage}"](item.unflatten(0, clips), audio)
                item = fused.flatten(0, 1)
                matched.append(F.relu(fused))
                sounds.append(sound)
            maps.append(item)
        x = self.paths[3](maps[3])
        for index in (2, 1, 0):
            x = self.paths[index](maps[index], x)
        return Prediction(self.output(x).unflatten(0, clips), {"maps": matched, "audio": sounds})

    def loss(self, prediction: Prediction, masks: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Cross-entropy over valid pixels and the weighted audio-visual matching loss; see `AVSModel.loss`."""
        terms = {"bce": masked_bce(prediction.logits, masks, valid)}
        if self.options.matching_weight:
            terms["matching"] = self.options.matching_weight * self.matching(prediction, valid)
        return terms

    def matching(self, prediction: Prediction, valid: Tensor) -> Tensor:
        """See `matching_loss`."""
        return matching_loss(prediction, valid, self.options.matching)


def matching_loss(prediction: Prediction, valid: Tensor, kind: str) -> Tensor:
    """How far the sound is from the pixels predicted to make it, averaged over stages and labelled frames.

    At each stage the prediction, average-pooled to the map and cut at 0.5, pools the map's features. Both pools are of
    valid pixels alone: a cell of the map counts by its share of them. A frame in which nothing is predicted has the
    constant ``-log 1e-6`` under ``cosine``, without gradient.

    Args:
        prediction: Of `TPAVI`.
        valid: ``(B, T, 1, H, W)`` bool; frames without a valid pixel do not count.
        kind: ``cosine``: ``-log(relu(cos(pooled, audio)) + 1e-6)``; ``kl``: Kullback-Leibler divergence of the
            softmaxed pooled features from the softmaxed audio.
    """
    counted = valid.flatten(0, 1).to(torch.promote_types(prediction.logits.dtype, torch.float32))
    probability = at_least_single(prediction.logits.detach()).sigmoid().flatten(0, 1) * counted
    losses = []
    for item, sound in zip(prediction.aux["maps"], prediction.aux["audio"], strict=True):
        item, sound = at_least_single(item), at_least_single(sound)
        size = item.shape[-2], item.shape[-1]
        share = F.adaptive_avg_pool2d(counted, size)  # of a cell's pixels that are valid; exactly 1 where all are
        cover = share * (F.adaptive_avg_pool2d(probability, size) > 0.5 * share)
        cover = cover.unflatten(0, item.shape[:2]).to(item.dtype)
        pooled = (item * cover).sum(dim=(3, 4)) / (cover.sum(dim=(3, 4)) + 1e-6)
        if kind == "cosine":
            each = -torch.log(F.relu(F.cosine_similarity(pooled, sound, dim=2)) + 1e-6)
        else:
            each = F.kl_div(pooled.log_softmax(2), sound.log_softmax(2), reduction="none", log_target=True).sum(2)
        losses.append(mean_of_labelled(each, valid))
    return torch.stack(losses).mean()
