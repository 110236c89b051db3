"""Our reading of AuTR (Liu et al., 2023, arXiv 2307.13236), whose authors published neither program nor weights.

What is known: one fusion of image and sound before a transformer, queries that know the sound, and dynamic convolutions
that give the masks. The rest is taken from AVSegFormer and CATR here, or is an option; docs/departures.md lists it.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from avseg.config import ModelConfig, WeightsConfig
from avseg.errors import AvsegError
from avseg.models.audio import EMBEDDING
from avseg.models.avsegformer import MaskFeature
from avseg.models.base import Prediction, register
from avseg.models.encoders import channels_of
from avseg.models.queries import CompetingQueries, QueryOptions
from avseg.models.transformer import DecoderLayer, Encoder

_ENCODED = 3  # strides 8, 16 and 32


@dataclass
class Options(QueryOptions):
    """AuTR's own settings (``model.options``), beside `QueryOptions`. Nobody has published any of them.

    Attributes:
        encoder_layers: Of the deformable encoder over strides 8, 16 and 32.
        points: Points that a head of the encoder samples on each map.
        group_channels: Channels of each group of the GroupNorms; a divisor of ``model.width``.
        fusion: How sound meets the maps before the encoder: ``gate`` weighs their channels by it, ``add`` adds what it
            says of them (attention to the frame's one sound).
        query_sound: How queries come to know the sound: ``sum`` with each learned one, ``concatenation`` and a linear
            layer, or ``none`` of it.
    """

    queries: int = 100
    decoder_layers: int = 6
    focal_weight: float = 0.0
    bce_weight: float = 5.0
    bce: Literal["doubled", "plain"] = "plain"
    encoder_layers: int = 6
    points: int = 4
    group_channels: int = 8
    fusion: Literal["gate", "add"] = "gate"
    query_sound: Literal["sum", "concatenation", "none"] = "sum"

    def check(self, width: int) -> None:
        """Raise AvsegError naming the first option that no model of ``width`` can have."""
        super().check(width)
        if width % self.group_channels:
            raise AvsegError(
                f"model.options.group_channels is {self.group_channels}: it must divide model.width, which is {width}."
            )


class Fusion(nn.Module):
    """A map and the sound of its frame, as one map.

    Args:
        width: Channels of the map; ``kind`` is `Options.fusion`.
        groups: Of the GroupNorm after it.
    """

    def __init__(self, width: int, groups: int, kind: str):
        super().__init__()
        self.kind = kind
        self.sound = nn.Linear(width, width)
        self.norm = nn.GroupNorm(groups, width)

    def forward(self, image: Tensor, sound: Tensor) -> Tensor:
        """``(N, width, h, w)`` and ``(N, width)`` -> ``(N, width, h, w)``."""
        told = self.sound(sound)[:, :, None, None]
        fused: Tensor = self.norm(image * (1 + told.tanh()) if self.kind == "gate" else image + told)
        return fused


@register("autr")
class AuTR(CompetingQueries):
    """Our reading of AuTR, for images whose sides are multiples of 32. Every frame is segmented by itself.

    ``Prediction.aux`` is that of `CompetingQueries`, at stride 4.
    """

    options_class = Options
    options: Options

    def __init__(self, config: ModelConfig, weights: WeightsConfig | None = None):
        super().__init__(config, weights)
        opt, width = self.options, config.width
        groups = width // opt.group_channels
        self.project = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, width, 1), nn.GroupNorm(groups, width))
            for channels in channels_of(self.image_encoder)
        )
        self.audio_projection = nn.Sequential(nn.Linear(EMBEDDING, width), nn.LayerNorm(width))
        self.fusion = nn.ModuleList(Fusion(width, groups, opt.fusion) for _ in range(_ENCODED))
        self.encoder = Encoder(width, opt.encoder_layers, opt.heads, _ENCODED, opt.points, opt.feedforward, opt.dropout)
        self.queries = nn.Parameter(torch.randn(opt.queries, width))
        self.join = nn.Linear(2 * width, width) if opt.query_sound == "concatenation" else None
        self.decoder = nn.ModuleList(
            DecoderLayer(width, opt.heads, opt.feedforward, opt.dropout) for _ in range(opt.decoder_layers)
        )
        self.mask_feature = MaskFeature(width, groups)
        self.build_answers(width, width)

    def pyramid(self, frames: Tensor) -> list[Tensor]:
        """See `AVSModel.pyramid`."""
        return [project(item) for project, item in zip(self.project, self.image_encoder(frames), strict=True)]

    def decode(self, pyramid: list[Tensor], audio: Tensor, frames: Tensor) -> Prediction:
        """See `AVSModel.decode`."""
        finest, *coarser = pyramid
        sound = self.audio_projection(audio.flatten(0, 1))
        tokens, encoded = self.encoder([fuse(item, sound) for fuse, item in zip(self.fusion, coarser, strict=True)])
        queries, contents = self._queries(sound), []
        for layer in self.decoder:
            queries = layer(queries, tokens)
            contents.append(queries)
        feature = self.mask_feature(finest, encoded[0])
        return self.answer(contents, feature, (audio.shape[0], audio.shape[1]))

    def _queries(self, sound: Tensor) -> Tensor:
        """``(N, width)`` -> ``(N, Q, width)``."""
        learned = self.queries.expand(len(sound), -1, -1)
        if self.options.query_sound == "none":
            return learned
        heard = sound[:, None].expand_as(learned)
        return learned + heard if self.join is None else self.join(torch.cat([learned, heard], dim=2))
