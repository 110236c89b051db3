"""The plain reference: a model's weights, computed as the papers print the formulas and the published code runs them.

`plain` turns any model of avseg's into its reference. Every pixel passes through every convolution, TPAVI's matrix of
all pixels against all pixels exists, attention is softmax over explicit matrices, and nothing is kept from one call to
the next. The published UFE step is in `benchmarks.reference_step`.
"""

from copy import deepcopy
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from avseg.models import AVSModel, Prediction
from avseg.models.avsegformer import AVSegFormer
from avseg.models.tpavi import TPAVI
from benchmarks.plain import (
    Plain,
    PlainMotion,
    PlainPyramidConvolution,
    PlainVGGish,
    adopt,
    plain_image_encoder,
)
from benchmarks.plain_transformer import (
    PlainChannelMixer,
    PlainDecoderLayer,
    PlainEncoder,
    PlainMaskFeature,
    PlainMaskHead,
    PlainQueryGenerator,
)


def plain(model: AVSModel) -> "PlainTPAVI | PlainAVSegFormer":
    """The reference of a model: the same function with a copy of the same weights, in the same mode.

    Parameters and buffers keep their names, so that gradients can be compared one by one.

    Args:
        model: TPAVI or AVSegFormer, of any size.

    Raises:
        TypeError: a base model that has no reference.
    """
    if isinstance(model, TPAVI):
        return PlainTPAVI(model)
    if isinstance(model, AVSegFormer):
        return PlainAVSegFormer(model)
    raise TypeError(f"{type(model).__name__} has no plain reference: it is neither TPAVI nor AVSegFormer.")


def _take_over(reference: AVSModel, model: AVSModel) -> None:
    """What the two references share: the weights, the encoders and the flow branch."""
    source = deepcopy(model)
    for weight in source.parameters():
        weight.data = weight.data.contiguous()
        weight.grad = None
    nn.Module.__init__(reference)
    adopt(reference, source)
    reference.config = source.config
    reference.image_encoder = plain_image_encoder(source.image_encoder, source.config)
    if source.config.audio_encoder == "vggish":
        reference.audio_encoder = PlainVGGish(source.audio_encoder)  # type: ignore[assignment]
    reference.motion = None
    if source.motion is not None:
        reference.motion = PlainMotion(source.motion, source.config.flow_fusion)  # type: ignore[assignment]


def _forward(model: AVSModel, frames: Tensor, audio: Tensor, flow: Tensor | None) -> Prediction:
    maps = model.pyramid(frames.flatten(0, 1))
    if model.motion is not None:
        assert flow is not None
        maps = model.motion(maps, flow.flatten(0, 1))
    return model.decode(maps, audio, frames.flatten(0, 1))


class PlainTPAVIBlock(Plain):
    """Temporal pixel-wise audio-visual interaction with its matrix of all pixels against all pixels."""

    audio: nn.Linear
    theta: nn.Linear
    phi: nn.Linear
    g: nn.Linear
    out: nn.Linear
    out_norm: nn.Module
    norm: nn.LayerNorm

    def __init__(self, source: nn.Module):
        super().__init__(source)
        norm = cast(nn.BatchNorm2d, source.out_norm)
        volume = nn.BatchNorm3d(norm.num_features, norm.eps, norm.momentum)
        adopt(volume, norm)
        self.out_norm = volume

    def forward(self, x: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, T, C, h, w)`` and ``(B, T, 128)`` -> ``(B, T, C, h, w)`` and the projected audio ``(B, T, C)``."""
        clip = x.transpose(1, 2).contiguous()  # (B, C, T, h, w)
        projected = self.audio(audio)
        tiled = projected.transpose(1, 2)[..., None, None].repeat(1, 1, 1, *clip.shape[-2:])
        theta, phi, g = _pointwise(self.theta, clip), _pointwise(self.phi, tiled), _pointwise(self.g, clip)
        y = attention(*(item.flatten(2).transpose(1, 2) for item in (theta, phi, g)))
        y = y.transpose(1, 2).contiguous().unflatten(2, clip.shape[2:])
        z = self.out_norm(_pointwise(self.out, y)) + clip
        z = self.norm(z.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)
        return z.transpose(1, 2).contiguous(), projected


def attention(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    """``θ φᵀ g / N`` by way of the N×N matrix: ``(B, N, C)`` each -> ``(B, N, C)``, N = T·h·w."""
    matrix = theta @ phi.transpose(1, 2)
    return (matrix / matrix.shape[2]) @ g


def _pointwise(layer: nn.Linear, x: Tensor) -> Tensor:
    """A 1×1×1 convolution over ``(B, C, T, h, w)``."""
    return F.conv3d(x, layer.weight[:, :, None, None, None], layer.bias)


class PlainResidualUnit(Plain):
    """ReLU in place, 3×3, ReLU, 3×3, plus what the first ReLU has left."""

    conv1: nn.Conv2d
    conv2: nn.Conv2d

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, h, w)``, rectified in place -> the same shape."""
        x = F.relu_(x)
        return self.conv2(F.relu_(self.conv1(x))) + x


class PlainPath(Plain):
    """One step of the decoder."""

    lateral: nn.Module | None

    def __init__(self, source: nn.Module):
        super().__init__(source)
        lateral = dict(source.named_children()).get("lateral")
        self.lateral = None if lateral is None else PlainResidualUnit(lateral)
        self.refine = PlainResidualUnit(source.get_submodule("refine"))

    def forward(self, x: Tensor, finer: Tensor | None = None) -> Tensor:
        """``(N, C, h, w)`` and the next finer map of the same shape, rectified in place -> ``(N, C, 2h, 2w)``."""
        if self.lateral is not None and finer is not None:
            x = x + self.lateral(finer)
        return F.interpolate(self.refine(x), scale_factor=2, mode="bilinear", align_corners=True)


class PlainOutputHead(Plain):
    """From stride 2 to one logit a pixel."""

    conv1: nn.Conv2d
    conv2: nn.Conv2d
    conv3: nn.Conv2d

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, h, w)`` -> ``(N, 1, 2h, 2w)``."""
        x = F.interpolate(self.conv1(x), scale_factor=2, mode="bilinear", align_corners=False)
        return self.conv3(F.relu_(self.conv2(x)))


class PlainTPAVI(TPAVI):
    """TPAVI as published. Its loss, which costs nothing beside it, is the model's own."""

    def __init__(self, model: TPAVI):
        _take_over(self, model)
        self.options = model.options
        self.project = nn.ModuleList(PlainPyramidConvolution(item) for item in self.project)
        self.fusion = nn.ModuleDict({name: PlainTPAVIBlock(item) for name, item in self.fusion.items()})
        self.paths = nn.ModuleList(PlainPath(item) for item in self.paths)
        self.output = PlainOutputHead(self.output)  # type: ignore[assignment]

    def forward(self, frames: Tensor, audio: Tensor, flow: Tensor | None = None) -> Prediction:
        """See `AVSModel.forward`."""
        return _forward(self, frames, audio, flow)

    def pyramid(self, frames: Tensor) -> list[Tensor]:
        """See `AVSModel.pyramid`."""
        return [project(item) for project, item in zip(self.project, self.image_encoder(frames), strict=True)]

    def decode(self, pyramid: list[Tensor], audio: Tensor, frames: Tensor) -> Prediction:
        """See `AVSModel.decode`."""
        clips = audio.shape[:2]
        maps, matched, sounds = [], [], []
        for stage, item in enumerate(pyramid, start=1):
            if stage in self.options.stages:
                fused, sound = self.fusion[f"stage{stage}"](item.unflatten(0, clips), audio)
                item = fused.view(item.shape)  # the decoder rectifies the very maps that are matched
                matched.append(fused)
                sounds.append(sound)
            maps.append(item)
        x = self.paths[3](maps[3])
        for index in (2, 1, 0):
            x = self.paths[index](x, maps[index])
        return Prediction(self.output(x).unflatten(0, clips), {"maps": matched, "audio": sounds})


class PlainAVSegFormer(AVSegFormer):
    """AVSegFormer as published. Its loss, which costs nothing beside it, is the model's own."""

    def __init__(self, model: AVSegFormer):
        _take_over(self, model)
        self.options = opt = model.options
        self.encoder = PlainEncoder(self.encoder, opt.heads, opt.points)  # type: ignore[assignment]
        self.query_generator = PlainQueryGenerator(self.query_generator, opt.heads)  # type: ignore[assignment]
        self.decoder = nn.ModuleList(PlainDecoderLayer(item, opt.heads) for item in self.decoder)
        self.mask_feature = PlainMaskFeature(self.mask_feature)  # type: ignore[assignment]
        self.mixer = PlainChannelMixer(self.mixer, opt.heads)  # type: ignore[assignment]
        self.mask_head = PlainMaskHead(self.mask_head)  # type: ignore[assignment]

    def forward(self, frames: Tensor, audio: Tensor, flow: Tensor | None = None) -> Prediction:
        """See `AVSModel.forward`."""
        return _forward(self, frames, audio, flow)

    def pyramid(self, frames: Tensor) -> list[Tensor]:
        """See `AVSModel.pyramid`."""
        maps = []
        for layers, item in zip(self.project, self.image_encoder(frames), strict=True):
            for layer in layers:  # type: ignore[attr-defined]
                item = layer(item)
            maps.append(item)
        return maps

    def decode(self, pyramid: list[Tensor], audio: Tensor, frames: Tensor) -> Prediction:
        """See `AVSModel.decode`."""
        finest, *coarser = pyramid
        sound = self.audio_projection(audio.flatten(0, 1)).unsqueeze(1)
        tokens, encoded = self.encoder(coarser)
        queries = self.query_generator(sound) + self.queries.repeat(len(sound), 1, 1)
        for layer in self.decoder:
            queries = layer(queries, tokens)
        feature = self.mixer(self.mask_feature(finest, encoded), sound)
        logits = self.mask_head(queries, feature).unflatten(0, audio.shape[:2])
        return Prediction(logits, {"mask": feature.mean(dim=1, keepdim=True)})
