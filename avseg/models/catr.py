"""CATR (Li et al., ACM MM 2023): all sounds of a clip stand beside the pixels of each frame, and queries compete."""

from dataclasses import dataclass
from itertools import pairwise
from math import gcd
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avseg.config import ModelConfig, WeightsConfig
from avseg.errors import AvsegError
from avseg.models.audio import EMBEDDING
from avseg.models.base import Prediction, register
from avseg.models.deformable import sine_positions
from avseg.models.encoders import channels_of
from avseg.models.layers import PyramidConvolution
from avseg.models.queries import CompetingQueries, QueryLayer, QueryOptions, TokenLayer
from avseg.models.transformer import Attention

_TOKENS = 8  # the stride of the map whose pixels are tokens


@dataclass
class Options(QueryOptions):
    """CATR's own settings (``model.options``), beside `QueryOptions`; the defaults are those of the authors' program.

    Attributes:
        encoder_layers: Of the spatial encoder; the temporal one has three.
        mask_stride: Stride of the masks. 16 is the authors'; 8 and 4 are finer, with weights of the same shapes.
    """

    encoder_layers: int = 3
    mask_stride: Literal[16, 8, 4] = 16

    def check(self, width: int) -> None:
        """Raise AvsegError naming the first option that no model of ``width`` can have."""
        super().check(width)
        if width % 8:
            raise AvsegError(f"model.width is {width}: CATR's masks need a multiple of 8.")


class TemporalLayer(nn.Module):
    """A frame's tokens look at one another; then the pixels of the whole clip and its sounds gate each other.

    A gate is the square of what attention finds, as in the authors' program. Of the sounds that every frame carries,
    those of the clip's first frame go on. With one sound, what it tells all pixels is the same.

    Args:
        width, heads, hidden, dropout: See `TokenLayer`.
        last: Whether nothing reads the sounds after this layer.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, last: bool):
        super().__init__()
        self.within = TokenLayer(width, heads, hidden, dropout)
        self.to_pixels = Attention(width, heads)
        self.to_sounds = None if last else Attention(width, heads)

    def forward(self, tokens: Tensor, positions: Tensor, clips: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Pass a clip.

        Args:
            tokens: ``(B·T, S + T, width)``: a frame's pixels, then the clip's T sounds.
            positions: ``(S + T, width)``; those of sounds are zeros.
            clips: B and T.

        Returns:
            Pixels ``(B·T, S, width)``, and the next layer's tokens.
        """
        times = clips[1]
        tokens = self.within(tokens, positions)
        pixels = tokens[:, :-times].unflatten(0, clips).flatten(1, 2)
        sounds = tokens[:, -times:].unflatten(0, clips)[:, 0]
        pixels = pixels * self.to_pixels(pixels, sounds).square()
        if self.to_sounds is not None:
            placed = pixels + positions[:-times].repeat(times, 1)
            sounds = sounds * self.to_sounds(sounds, placed, pixels).square()
        frames = pixels.unflatten(1, (times, -1)).flatten(0, 1)
        return frames, torch.cat([frames, sounds.repeat_interleave(times, dim=0)], dim=1)


class Join(nn.Module):
    """The maps of the three temporal layers, weighed by two numbers a frame, as one.

    The second gate is computed from the first, as in the authors' program.

    Args:
        width: Channels.
    """

    def __init__(self, width: int):
        super().__init__()
        self.gate = nn.Conv2d(2 * width, 2, 3, padding=1)
        self.second, self.third = (
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.PReLU()) for _ in range(2)
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Three maps ``(N, width, h, w)`` -> ``(N, width, h, w)``."""
        gate = self.gate(torch.cat(maps[:2], dim=1)).sigmoid().mean(dim=(2, 3), keepdim=True)
        later = gate.sigmoid().mean(dim=1, keepdim=True)
        joined: Tensor = self.third(self.second(gate[:, :1] * maps[1]) + later * maps[2])
        return joined


class MaskFeature(nn.Module):
    """The map on which kernels find masks: the temporal encoder's, passed through two maps of the pyramid.

    Args:
        width: Channels of the three maps; the result has a quarter.
    """

    def __init__(self, width: int):
        super().__init__()
        sizes = [width, width, width // 2, width // 4, width // 8]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(gcd(8, after), after), nn.ReLU())
            for before, after in pairwise(sizes)
        )
        self.coarse, self.fine = nn.Conv2d(width, width // 2, 1), nn.Conv2d(width, width // 4, 1)
        self.output = nn.Conv2d(width // 8, width // 4, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, joined: Tensor, coarse: Tensor, fine: Tensor) -> Tensor:
        """Maps of ``width`` channels and any sizes -> ``(N, width / 4, h, w)``, of the size of ``fine``."""
        x = self.layers[1](self.layers[0](joined))
        x = self.layers[2](F.interpolate(x, coarse.shape[-2:], mode="nearest") + self.coarse(coarse))
        x = self.layers[3](F.interpolate(x, fine.shape[-2:], mode="nearest") + self.fine(fine))
        result: Tensor = self.output(x)
        return result


@register("catr")
class CATR(CompetingQueries):
    """CATR of any size, any number of frames, and images whose sides are multiples of 32.

    Maps of the pyramid that nothing reads are not computed: with masks of stride 16, that of stride 4.
    ``Prediction.aux`` is that of `CompetingQueries`, at `Options.mask_stride`.
    """

    options_class = Options
    options: Options

    def __init__(self, config: ModelConfig, weights: WeightsConfig | None = None):
        super().__init__(config, weights)
        opt, width = self.options, config.width
        channels = dict(zip((4, 8, 16, 32), channels_of(self.image_encoder), strict=True))
        self.project = nn.ModuleList(
            PyramidConvolution(channels[stride], width, config.dilations) for stride, _ in self.scales()
        )
        for module in self.project.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
        layer = (width, opt.heads, opt.feedforward, opt.dropout)
        self.pixels = nn.Linear(width, width)
        self.sounds = nn.Sequential(
            nn.Linear(EMBEDDING, width), nn.LayerNorm(width, eps=1e-12), nn.Dropout(opt.dropout)
        )
        self.spatial = nn.ModuleList(TokenLayer(*layer) for _ in range(opt.encoder_layers))
        self.temporal = nn.ModuleList(TemporalLayer(*layer, last=index == 2) for index in range(3))
        self.join = Join(width)
        self.queries = nn.Parameter(torch.randn(opt.queries, width))
        self.decoder = nn.ModuleList(QueryLayer(*layer) for _ in range(opt.decoder_layers))
        self.decoder_norm = nn.LayerNorm(width)
        self.mask_feature = MaskFeature(width)
        self.build_answers(width, width // 4)

    def scales(self) -> list[tuple[int, int]]:
        """See `AVSModel.scales`: the map of tokens, and the two that the mask feature reads."""
        fine = self.options.mask_stride
        return [(stride, self.config.width) for stride in sorted({_TOKENS, fine, 2 * fine})]

    def pyramid(self, frames: Tensor) -> list[Tensor]:
        """See `AVSModel.pyramid`."""
        maps = dict(zip((4, 8, 16, 32), self.image_encoder(frames), strict=True))
        return [project(maps[stride]) for project, (stride, _) in zip(self.project, self.scales(), strict=True)]

    def decode(self, pyramid: list[Tensor], audio: Tensor, frames: Tensor) -> Prediction:
        """See `AVSModel.decode`."""
        maps = {stride: item for (stride, _), item in zip(self.scales(), pyramid, strict=True)}
        clips, size = (audio.shape[0], audio.shape[1]), maps[_TOKENS].shape[-2:]
        pixels = self.pixels(maps[_TOKENS].flatten(2).transpose(1, 2))
        tokens = torch.cat([pixels, self.sounds(audio).repeat_interleave(clips[1], dim=0)], dim=1)
        positions = sine_positions(size[0], size[1], pixels.shape[2], pixels.device, pixels.dtype, relative=True)
        positions = F.pad(positions, (0, 0, 0, clips[1]))

        memory, layers = tokens, []
        for layer in self.spatial:
            memory = layer(memory, positions)
        for layer in self.temporal:
            pixels, tokens = layer(tokens, positions, clips)
            layers.append(pixels.transpose(1, 2).unflatten(2, size))
        fine = self.options.mask_stride
        feature = self.mask_feature(self.join(layers), maps[2 * fine], maps[fine])

        content, placed, contents = torch.zeros_like(self.queries).expand(len(memory), -1, -1), memory + positions, []
        for layer in self.decoder:
            content = layer(content, self.queries, memory, placed)
            contents.append(self.decoder_norm(content))
        return self.answer(contents, feature, clips)
