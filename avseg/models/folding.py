"""A model for inference alone: batch norms folded into the convolutions before them, channels last."""

from copy import deepcopy
from itertools import pairwise
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from avseg.models.efficientnet import EfficientNetLite0
from avseg.models.motion import FlowEncoder

M = TypeVar("M", bound=nn.Module)

# Modules whose children run in the order in which they are registered; of others nothing is known.
_IN_ORDER = ("Sequential", "_ConvNorm", "_ResidualBlock", "FlowEncoder", "ResNetConvLayer", "ResNetShortCut")


@torch.no_grad()
def fold_norms(model: M, in_place: bool = False) -> M:
    """``model`` in evaluation mode, computing the same with fewer passes over its maps.

    In evaluation mode a batch norm is one multiplication and one addition a channel, which a convolution before it can
    do on the way. Convolutions of image and flow encoders get the layout that a CPU is fastest with.

    Args:
        model: Stays as it is, unless ``in_place``.
        in_place: Change ``model`` itself, instead of a copy that shares no tensor with it.

    Returns:
        The folded model. It cannot be trained, saved or loaded into: it has other parameters.
    """
    folded = (model if in_place else deepcopy(model)).eval().requires_grad_(False)
    for parent in list(folded.modules()):
        if type(parent).__name__ not in _IN_ORDER:
            continue
        for (first, before), (second, norm) in pairwise(list(parent.named_children())):
            if isinstance(before, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and norm.track_running_stats:
                setattr(parent, first, fuse_conv_bn_eval(before, norm))
                setattr(parent, second, nn.Identity())
    for part in folded.modules():
        if isinstance(part, (EfficientNetLite0, FlowEncoder)) or type(part).__name__ == "ResNetBackbone":
            part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return folded
