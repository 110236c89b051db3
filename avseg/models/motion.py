"""Neighbouring frames: the flow branch of Eq. 2, which refines any base model's image pyramid by motion."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avseg.config import ModelConfig, WeightsConfig
from avseg.models.catalogue import folder_of
from avseg.models.foreign import load_foreign
from avseg.models.layers import PyramidConvolution
from avseg.models.weights import RESNET18_URL, download, read_state

_CHANNELS, _STRIDES = (64, 128, 256, 512), (4, 8, 16, 32)


class _ResidualBlock(nn.Module):
    """ResNet-18's basic block; names as torchvision's."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = nn.Sequential()
        if stride != 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class FlowEncoder(nn.Module):
    """The first stages of a ResNet-18 whose first convolution takes two channels; names as torchvision's.

    Args:
        stages: 1 to 4.
    """

    def __init__(self, stages: int = 1):
        super().__init__()
        self.channels = _CHANNELS[:stages]
        self.conv1 = nn.Conv2d(2, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        before = 64
        for index, channels in enumerate(self.channels, start=1):
            first = _ResidualBlock(before, channels, stride=1 if index == 1 else 2)
            self.add_module(f"layer{index}", nn.Sequential(first, _ResidualBlock(channels, channels, 1)))
            before = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, flow: Tensor) -> list[Tensor]:
        """``(N, 2, H, W)`` -> a map for each stage, at strides 4, 8, 16, 32."""
        flow = flow.contiguous(memory_format=torch.channels_last)
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(flow))), 3, 2, 1)
        maps = []
        for index in range(1, len(self.channels) + 1):
            x = self.get_submodule(f"layer{index}")(x)
            maps.append(x)
        return maps


class MotionBranch(nn.Module):
    """Eq. 2: ``F_refine_i = F_v_i + Upsample(Refine(F_f))`` for the scales of an image pyramid.

    Args:
        config: ``dilations``, ``flow_stages`` and ``flow_fusion`` count. With ``gated`` the refined flow of
            each scale is multiplied by a learnt factor that starts at zero, so that training starts as the base model
            and flow enters step by step. With ``sum`` the refining convolutions start at zero instead: under an
            optimiser that moves every weight by its learning rate (Adam), thousands of them grow at once, and in
            AVSegFormer at 1e-3 flow outweighs the image after 10 steps. With ``normalised`` image and flow features
            are divided by their L2 norm over channels before the sum, and the sum after it.
        scales: Stride and width of each map (`AVSModel.scales`).
        weights: ``flow`` says where the flow encoder's initial weights come from; None builds the architecture alone.

    Raises:
        AvsegError: weights that cannot be had or belong to something else.
    """

    def __init__(self, config: ModelConfig, scales: Sequence[tuple[int, int]], weights: WeightsConfig | None = None):
        super().__init__()
        self.fusion = config.flow_fusion
        # Which of the flow encoder's stages each scale reads.
        self.reads = [_STRIDES.index(stride) if config.flow_stages == 4 else 0 for stride, _ in scales]
        self.encoder = FlowEncoder(max(self.reads) + 1)
        self.refine = nn.ModuleList(
            PyramidConvolution(self.encoder.channels[stage], width, config.dilations)
            for stage, (_, width) in zip(self.reads, scales, strict=True)
        )
        if self.fusion == "gated":
            self.gain = nn.Parameter(torch.zeros(len(scales)))
        if self.fusion == "sum":
            for parameter in self.refine.parameters():
                nn.init.zeros_(parameter)
        if weights is not None and weights.flow != "none":
            file: str | Path = weights.flow
            if weights.flow == "imagenet":
                file = folder_of("resnet18") or download(RESNET18_URL, "weights.flow")
            unused = ("fc.", *(f"layer{stage}." for stage in range(max(self.reads) + 2, 5)))
            load_foreign(self.encoder, two_channel_stem(read_state(file)), file, unused=unused)

    def forward(self, pyramid: list[Tensor], flow: Tensor) -> list[Tensor]:
        """Refine an image pyramid.

        Args:
            pyramid: A map ``(N, width, h, w)`` for each scale.
            flow: ``(N, 2, H, W)`` in the model's encoding.

        Returns:
            Maps of the same shapes.
        """
        return self.add(pyramid, self.features(flow, [(item.shape[-2], item.shape[-1]) for item in pyramid]))

    def features(self, flow: Tensor, sizes: list[tuple[int, int]]) -> list[Tensor]:
        """``Upsample(Refine(F_f))`` of flow ``(N, 2, H, W)`` for each scale, at ``sizes`` (height, width)."""
        motion = self.encoder(flow)
        found = []
        for stage, refine, size in zip(self.reads, self.refine, sizes, strict=True):
            assert isinstance(refine, PyramidConvolution)
            found.append(refine.sampled(motion[stage], size))
        return found

    def add(self, pyramid: list[Tensor], features: list[Tensor]) -> list[Tensor]:
        """``F_v_i`` and `features` together: several pyramids can share one flow branch."""
        together = enumerate(zip(pyramid, features, strict=True))
        return [self._fuse(image, motion, scale) for scale, (image, motion) in together]

    def _fuse(self, image: Tensor, motion: Tensor, scale: int) -> Tensor:
        if self.fusion == "gated":
            return torch.addcmul(image, self.gain[scale], motion)
        if self.fusion == "sum":
            return image + motion
        return F.normalize(F.normalize(image, dim=1) + F.normalize(motion, dim=1), dim=1)


def two_channel_stem(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A ResNet's state dict whose stem takes ``u`` and ``v``, each with the average of RGB's filters."""
    stem = state.get("conv1.weight")
    if stem is None or stem.ndim != 4 or stem.shape[1] != 3 or not stem.is_floating_point():
        return state
    return {**state, "conv1.weight": stem.mean(dim=1, keepdim=True).repeat(1, 2, 1, 1)}
