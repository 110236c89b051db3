"""What the plain reference is made of: modules that hold a model's weights and compute as the formulas are printed.

Nothing here is fused, merged, cached or laid out for speed. Only names of weights are taken from the models, never
their code, so that a faster model leaves its reference as it was.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avseg.config import ModelConfig


class Plain(nn.Module):
    """Holds the weights of another module under the same names.

    Args:
        source: Its parameters, buffers and children are taken over, not copied.
    """

    def __init__(self, source: nn.Module):
        super().__init__()
        adopt(self, source)


def adopt(module: nn.Module, source: nn.Module) -> None:
    """Give ``module`` the parameters, buffers, children and mode of ``source``."""
    for name, weight in source.named_parameters(recurse=False):
        module.register_parameter(name, weight)
    for name, buffer in source.named_buffers(recurse=False):
        module.register_buffer(name, buffer)
    for name, child in source.named_children():
        module.add_module(name, child)
    module.training = source.training


class PlainPyramidConvolution(Plain):
    """The sum of dilated 3×3 convolutions, each over the whole map with all of its taps."""

    branches: nn.ModuleList

    def forward(self, x: Tensor) -> Tensor:
        """``(N, in_channels, h, w)`` -> ``(N, width, h, w)``."""
        total: Tensor | None = None
        for branch in self.branches:
            assert isinstance(branch, nn.Conv2d)
            each = F.conv2d(x, branch.weight, branch.bias, padding=branch.padding, dilation=branch.dilation)
            total = each if total is None else total.add_(each)
        assert total is not None
        return total


class PlainFlowEncoder(Plain):
    """The first stages of a ResNet-18 over two channels."""

    conv1: nn.Conv2d
    bn1: nn.BatchNorm2d

    def forward(self, flow: Tensor) -> list[Tensor]:
        """``(N, 2, H, W)`` -> a map for each stage."""
        x = F.max_pool2d(F.relu_(self.bn1(self.conv1(flow.contiguous()))), 3, 2, 1)
        maps = []
        for stage in range(1, 5):
            if not hasattr(self, f"layer{stage}"):
                break
            for block in self.get_submodule(f"layer{stage}").children():
                x = _residual(block, x)
            maps.append(x)
        return maps


def _residual(block: nn.Module, x: Tensor) -> Tensor:
    """ResNet-18's basic block."""
    conv1, bn1, conv2, bn2 = (block.get_submodule(name) for name in ("conv1", "bn1", "conv2", "bn2"))
    skip = x
    for layer in block.get_submodule("downsample").children():
        skip = layer(skip)
    return F.relu_(bn2(conv2(F.relu_(bn1(conv1(x))))) + skip)


class PlainMotion(Plain):
    """Eq. 2: every scale's convolutions run on the flow encoder's map at its full size, and are resized after.

    Args:
        source: The flow branch.
        fusion: As ``model.flow_fusion``.
    """

    encoder: PlainFlowEncoder
    refine: nn.ModuleList
    gain: nn.Parameter

    def __init__(self, source: nn.Module, fusion: str):
        super().__init__(source)
        self.fusion = fusion
        self.encoder = PlainFlowEncoder(source.get_submodule("encoder"))
        self.refine = nn.ModuleList(PlainPyramidConvolution(item) for item in self.refine)

    def forward(self, pyramid: list[Tensor], flow: Tensor) -> list[Tensor]:
        """Four maps ``(N, width, h, w)`` and flow ``(N, 2, H, W)`` -> four maps of the same shapes."""
        return self.fuse(pyramid, self.encoder(flow))

    def fuse(self, pyramid: list[Tensor], motion: list[Tensor]) -> list[Tensor]:
        """`forward` behind the flow encoder, whose one map or four maps are given."""
        if len(motion) == 1:
            motion = motion * 4
        refined = []
        for scale, (image, features, refine) in enumerate(zip(pyramid, motion, self.refine, strict=True)):
            moving = refine(features)
            if moving.shape[-2:] != image.shape[-2:]:
                moving = F.interpolate(moving, image.shape[-2:], mode="bilinear", align_corners=False)
            if self.fusion == "normalised":
                image, moving = F.normalize(image, dim=1), F.normalize(moving, dim=1)
                refined.append(F.normalize(image + moving, dim=1))
            elif self.fusion == "gated":
                refined.append(image + self.gain[scale] * moving)
            else:
                refined.append(image + moving)
        return refined


class PlainBackbone(nn.Module):
    """A backbone of Hugging Face transformers as that library runs it.

    Args:
        source: The image encoder whose weights it takes.
        config: Of the model; ``image_encoder`` and ``image_encoder_config`` count.
    """

    def __init__(self, source: nn.Module, config: ModelConfig):
        from transformers import AutoBackbone, AutoConfig

        super().__init__()
        values = dict(config.image_encoder_config or {})
        spec = AutoConfig.for_model(values.pop("model_type"), **values)
        spec.out_features = list(spec.stage_names)[-4:]
        self.backbone = AutoBackbone.from_config(spec)
        if config.image_encoder == "pvt_v2_b5":  # two kinds of its norms have PyTorch's epsilon
            for name, module in self.backbone.named_modules():
                if name.endswith(("patch_embedding.layer_norm", "attention.layer_norm")):
                    module.eps = 1e-5
        state = source.state_dict()
        first = next(iter(source.parameters()))
        self.to(first.device, first.dtype)
        self.load_state_dict(state)
        self.train(source.training)

    def forward(self, images: Tensor) -> list[Tensor]:
        """``(N, 3, H, W)`` -> four maps at strides 4, 8, 16, 32."""
        return list(self.backbone(images.contiguous()).feature_maps)


class PlainEfficientNet(Plain):
    """EfficientNet-Lite0, layer after layer in the usual memory format."""

    stem: nn.Sequential
    blocks: nn.ModuleList

    def forward(self, images: Tensor) -> list[Tensor]:
        """``(N, 3, H, W)`` -> four maps at strides 4, 8, 16, 32."""
        x = _same(self.stem, images.contiguous())
        maps = []
        for index, block in enumerate(self.blocks):
            skip = x
            expand, depthwise, project = (block.get_submodule(name) for name in ("expand", "depthwise", "project"))
            if isinstance(expand, nn.Sequential):
                x = _same(expand, x)
            x = _same(project, _same(depthwise, x), linear=True)
            if skip.shape == x.shape:
                x = x + skip
            if index in (2, 4, 10, 15):  # the last block at each stride
                maps.append(x)
        return maps


def _same(layers: nn.Module, x: Tensor, linear: bool = False) -> Tensor:
    """A convolution with TensorFlow's padding, its norm and, unless ``linear``, ReLU6."""
    convolution, norm = list(layers.children())[:2]
    assert isinstance(convolution, nn.Conv2d)
    kernel, stride = convolution.kernel_size[0], convolution.stride[0]
    spare = kernel - stride
    x = F.pad(x, (spare // 2, spare - spare // 2) * 2)
    x = norm(F.conv2d(x, convolution.weight, None, convolution.stride, groups=convolution.groups))
    return x if linear else F.relu6(x, inplace=True)


class PlainVGGish(Plain):
    """VGGish, layer after layer."""

    features: nn.Sequential
    embeddings: nn.Sequential
    frozen = True

    @torch.no_grad()
    def forward(self, log_mel: Tensor) -> Tensor:
        """``(N, 1, 96, 64)`` -> ``(N, 128)``."""
        x = log_mel.contiguous()
        for layer in self.features:
            x = layer(x)
        x = x.permute(0, 2, 3, 1).flatten(1)
        for layer in self.embeddings:
            x = layer(x)
        return x


def plain_image_encoder(source: nn.Module, config: ModelConfig) -> nn.Module:
    """The image encoder of a model, as its own library runs it."""
    if config.image_encoder == "efficientnet_lite0":
        return PlainEfficientNet(source)
    return PlainBackbone(source, config)
