"""AVSegFormer (Gao et al., AAAI 2024): queries made from sound find their pixels in a deformable encoder's maps."""

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
from avseg.models.layers import dice_loss, enlarged_where_valid
from avseg.models.transformer import DecoderLayer, Encoder, QueryGenerator

_ENCODED = 3  # strides 8, 16 and 32


@dataclass
class Options:
    """AVSegFormer's own settings (``model.options``); the defaults are those of the published models.

    Attributes:
        queries: How many.
        encoder_layers: Of the deformable encoder over strides 8, 16 and 32.
        decoder_layers: Of the decoder.
        generator_layers: Of the query generator.
        heads: Attention heads, everywhere; a divisor of ``model.width``.
        points: Points that a head of the encoder samples on each map.
        feedforward: Hidden channels of the encoder's and the decoder's feed-forward networks.
        generator_feedforward: Hidden channels of the query generator's.
        generator_bias: Whether the query generator's attentions have biases: published models with UFE do.
        mask_hidden: Hidden channels of the network that turns one map a query into features.
        group_channels: Channels of each group of the GroupNorms; a divisor of ``model.width``.
        dropout: In the encoder's and the decoder's layers.
        dice: ``squared`` as AVSegFormer's authors compute it, or ``plain`` as Eq. 4 is printed.
        auxiliary_weight: Weight of the Dice loss of the channel mixer's mask; 0 leaves it out.
    """

    queries: int = 300
    encoder_layers: int = 6
    decoder_layers: int = 6
    generator_layers: int = 6
    heads: int = 8
    points: int = 4
    feedforward: int = 2048
    generator_feedforward: int = 1024
    generator_bias: bool = True
    mask_hidden: int = 2048
    group_channels: int = 8
    dropout: float = 0.1
    dice: Literal["squared", "plain"] = "squared"
    auxiliary_weight: float = 0.1

    def check(self, width: int) -> None:
        """Raise AvsegError naming the first option that no model of ``width`` can have."""
        for name in ("heads", "group_channels"):
            if width % getattr(self, name):
                raise AvsegError(
                    f"model.options.{name} is {getattr(self, name)}: it must divide model.width, which is {width}."
                )


class MaskFeature(nn.Module):
    """The map that masks are read from: stride 4 as projected, and the encoder's stride 8, as in an FPN.

    Args:
        width: Channels.
        groups: Of the GroupNorms.
    """

    def __init__(self, width: int, groups: int):
        super().__init__()
        self.lateral = nn.Sequential(nn.Conv2d(width, width, 1), nn.GroupNorm(groups, width))
        self.output = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(groups, width))

    def forward(self, finest: Tensor, encoded: Tensor) -> Tensor:
        """``(N, width, h, w)`` and ``(N, width, h/2, w/2)`` -> ``(N, width, h, w)``."""
        coarse = F.interpolate(encoded, finest.shape[-2:], mode="bilinear", align_corners=False)
        return F.relu(self.output(self.lateral(finest) + coarse), inplace=True)


class ChannelMixer(nn.Module):
    """The sound attends to all pixels and from what it finds weighs the channels.

    There is one query a frame, so keys and values need not be computed for every pixel: ``q·(K x) = (Kᵀ q)·x``, and
    the weighted mean of ``V x`` is ``V`` times the weighted mean of ``x``.

    Args:
        width: Channels.
        heads: A divisor of ``width``.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width)

    def forward(self, feature: Tensor, sound: Tensor) -> Tensor:
        """``(N, width, h, w)`` and ``(N, 1, width)`` -> ``(N, width, h, w)``."""
        pixels = feature.flatten(2).transpose(1, 2)
        query = self.query(sound).unflatten(2, (self.heads, -1)).squeeze(1)  # (N, M, width / M)
        key, value = (layer.weight.unflatten(0, (self.heads, -1)) for layer in (self.key, self.value))
        asked = torch.einsum("nmd,mdc->nmc", query, key)
        found = F.scaled_dot_product_attention(asked, pixels, pixels, scale=query.shape[2] ** -0.5)
        attended = torch.einsum("nmc,mdc->nmd", found, value).flatten(1)
        return feature * self.output(attended).sigmoid()[:, :, None, None]


class MaskHead(nn.Module):
    """One map for each query, three 1×1 convolutions back to features, and an output network to one logit a pixel.

    Args:
        width: Channels of the mask feature.
        queries: How many.
        hidden: Channels between the 1×1 convolutions.
    """

    def __init__(self, width: int, queries: int, hidden: int):
        super().__init__()
        self.conv1 = nn.Conv2d(queries, hidden, 1)
        self.conv2 = nn.Conv2d(hidden, hidden, 1)
        self.conv3 = nn.Conv2d(hidden, width, 1)
        self.output1 = nn.Conv2d(width, width // 2, 3, padding=1)
        self.output2 = nn.Conv2d(width // 2, max(width // 8, 1), 3, padding=1)
        self.output3 = nn.Conv2d(max(width // 8, 1), 1, 1, bias=False)

    def forward(self, queries: Tensor, feature: Tensor) -> Tensor:
        """Queries ``(N, Q, width)`` and the mask feature ``(N, width, h, w)`` -> logits ``(N, 1, 4h, 4w)``."""
        # 1×1 convolutions as products over pixels whose channels lie together: the fastest form of this head's bulk.
        pixels = feature.permute(0, 2, 3, 1)
        x = F.relu(self._first(queries, pixels.flatten(1, 2)), inplace=True)
        for layer, rectified in ((self.conv2, True), (self.conv3, False)):
            x = F.linear(x, layer.weight.flatten(1), layer.bias)
            x = F.relu(x, inplace=True) if rectified else x
        x = (x.view(pixels.shape) + pixels).permute(0, 3, 1, 2)
        x = F.interpolate(self.output1(x), scale_factor=4, mode="bilinear", align_corners=False)
        logits: Tensor = self.output3(F.relu(self.output2(x)))
        return logits

    def _first(self, queries: Tensor, pixels: Tensor) -> Tensor:
        """The first convolution of the queries' maps, ``W (Q F) + b``, multiplied in the cheaper order.

        Args:
            queries: ``(N, Q, width)``.
            pixels: ``(N, area, width)``.

        Returns:
            ``(N, area, hidden)``.
        """
        (count, width), hidden, area = queries.shape[1:], self.conv1.out_channels, pixels.shape[1]
        weight, bias = self.conv1.weight.flatten(1), self.conv1.bias
        assert bias is not None
        if hidden * width * (count + area) < count * area * (width + hidden):
            return pixels @ (weight @ queries).transpose(1, 2) + bias
        return F.linear(pixels @ queries.transpose(1, 2), weight, bias)


@register("avsegformer")
class AVSegFormer(AVSModel):
    """AVSegFormer of any size, for images whose sides are multiples of 32. Every frame is segmented by itself.

    ``Prediction.aux`` holds ``mask``, the auxiliary mask's logits ``(B·T, 1, H/4, W/4)``: the mean over channels of the
    mixed mask feature.
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
        self.audio_projection = nn.Linear(EMBEDDING, width)
        self.encoder = Encoder(width, opt.encoder_layers, opt.heads, _ENCODED, opt.points, opt.feedforward, opt.dropout)
        self.query_generator = QueryGenerator(
            width, opt.queries, opt.generator_layers, opt.heads, opt.generator_feedforward, opt.generator_bias
        )
        self.queries = nn.Parameter(torch.randn(opt.queries, width))
        self.decoder = nn.ModuleList(
            DecoderLayer(width, opt.heads, opt.feedforward, opt.dropout) for _ in range(opt.decoder_layers)
        )
        self.mask_feature = MaskFeature(width, groups)
        self.mixer = ChannelMixer(width, opt.heads)
        self.mask_head = MaskHead(width, opt.queries, opt.mask_hidden)

    def pyramid(self, frames: Tensor) -> list[Tensor]:
        """See `AVSModel.pyramid`."""
        return [project(item) for project, item in zip(self.project, self.image_encoder(frames), strict=True)]

    def decode(self, pyramid: list[Tensor], audio: Tensor, frames: Tensor) -> Prediction:
        """See `AVSModel.decode`."""
        finest, *coarser = pyramid
        sound = self.audio_projection(audio.flatten(0, 1)).unsqueeze(1)
        tokens, encoded = self.encoder(coarser)
        queries = self.query_generator(sound) + self.queries
        for layer in self.decoder:
            queries = layer(queries, tokens)
        feature = self.mixer(self.mask_feature(finest, encoded[0]), sound)
        logits = self.mask_head(queries, feature).unflatten(0, audio.shape[:2])
        return Prediction(logits, {"mask": feature.mean(dim=1, keepdim=True)})

    def loss(self, prediction: Prediction, masks: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Dice loss (Eq. 4) of the mask and, weighted, of the auxiliary mask; see `AVSModel.loss`."""
        logits, kind = prediction.logits.float(), self.options.dice
        terms = {"dice": dice_loss(logits, masks, valid, kind)}
        if self.options.auxiliary_weight:
            auxiliary = enlarged_where_valid(prediction.aux["mask"].float(), valid)
            terms["auxiliary"] = self.options.auxiliary_weight * dice_loss(auxiliary, masks, valid, kind)
        return terms
