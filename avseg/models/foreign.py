"""Weights under other people's names: which tensor of a file is which of ours, and what is wrong with the file."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from avseg.errors import AvsegError
from avseg.models.weights import sound_tensors


@dataclass(frozen=True)
class Origin:
    """Where a tensor of ours stands in a foreign file.

    Attributes:
        name: Its name there.
        part: Which part of it along the first axis, where several are stored as one.
        parts: How many those are.
    """

    name: str
    part: int | None = None
    parts: int = 2

    def take(self, tensor: Tensor, like: Tensor) -> Tensor:
        """Our part of the stored tensor; a 1×1 convolution becomes the linear layer that it is."""
        if self.part is not None and tensor.ndim and tensor.shape[0] and tensor.shape[0] % self.parts == 0:
            tensor = tensor.chunk(self.parts)[self.part].clone()
        if tensor.ndim > like.ndim and set(tensor.shape[like.ndim :]) == {1}:
            tensor = tensor.flatten(like.ndim).squeeze(-1)
        return tensor


Names = Callable[[str], Origin]
"""From a name of ours to where it is found."""


def adopt(
    state: dict[str, Tensor],
    wanted: dict[str, Tensor],
    source: str | Path,
    names: Names = Origin,
    unused: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
) -> dict[str, Tensor]:
    """Bring a foreign state dict into our names.

    Args:
        state: What a file holds.
        wanted: The state dict of our module; its names and shapes count.
        source: The file, for the message.
        names: Where each of ours is found.
        unused: Beginnings of the file's names that nothing of ours needs and that are left out knowingly.
        optional: Beginnings of our names that the file may lack; they are left out of the result.

    Returns:
        Tensors under the names of ``wanted``.

    Raises:
        AvsegError: tensors are missing, unexpected or misshapen; the first few are named as the file names them. Or
            one of a wrong type, or with values that are no numbers, named as ours.
    """
    missing: list[str] = []
    misshapen: list[str] = []
    used: set[str] = set()
    counter = "num_batches_tracked"
    counted = any(name.endswith(counter) for name in state)
    ours: dict[str, Tensor] = {}
    for name, like in wanted.items():
        origin = names(name)
        used.add(origin.name)
        if origin.name in state:
            ours[name] = origin.take(state[origin.name], like)
            if ours[name].shape != like.shape:
                shape = tuple(state[origin.name].shape)
                misshapen.append(f"{origin.name} is {shape} instead of {_wanted_shape(like, origin)}")
        elif name.endswith(counter) and not counted:
            # Files from before PyTorch 0.4.1 have no such counters, and nothing computes with them.
            ours[name] = torch.zeros((), dtype=torch.long)
        elif not name.startswith(optional or ("\0",)):
            missing.append(f"{origin.name} is missing")
    extra = [f"{name} is unexpected" for name in state if name not in used and not name.startswith(unused or ("\0",))]
    wrong = list(dict.fromkeys(missing + extra + misshapen))
    if wrong:
        more = f"; and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise AvsegError(f"{source} does not hold the weights that are asked for: {'; '.join(wrong[:4])}{more}.")
    return sound_tensors(ours, wanted, source)


def _wanted_shape(like: Tensor, origin: Origin) -> tuple[int, ...]:
    shape = tuple(like.shape)
    return shape if origin.part is None else (origin.parts * shape[0], *shape[1:])


def load_foreign(
    module: nn.Module,
    state: dict[str, Tensor],
    source: str | Path,
    names: Names = Origin,
    unused: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
) -> None:
    """`adopt` ``state`` and load it into ``module``.

    Raises:
        AvsegError: tensors are missing, unexpected or misshapen.
    """
    own = module.state_dict()
    module.load_state_dict({**own, **adopt(state, own, source, names, unused, optional)})


def _substitute(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _next(name: str, pattern: str) -> str:
    """Count the numbers that ``pattern`` marks from one instead of zero."""
    return re.sub(pattern, lambda found: f"{found[1]}{int(found[2]) + 1}", name)


_TORCHVISION = (
    (r"^embedder\.embedder\.convolution\.", "conv1."),
    (r"^embedder\.embedder\.normalization\.", "bn1."),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
    (r"\.layer\.(\d)\.convolution\.", r".conv\1."),
    (r"\.layer\.(\d)\.normalization\.", r".bn\1."),
    (r"^encoder\.stages\.(\d)\.layers\.", r"layer\1."),
)


def torchvision_resnet(name: str) -> Origin:
    """A tensor of transformers' ResNet in torchvision's names."""
    name = _substitute(name, _TORCHVISION)
    if name.startswith("layer"):
        name = _next(_next(name, r"^(layer)(\d)"), r"(\.(?:conv|bn))(\d)")
    return Origin(name)


_PVT = (
    (r"\.patch_embedding\.layer_norm\.", ".patch_embedding.norm."),
    (r"\.layer_norm_(\d)\.", r".norm\1."),
    (r"\.attention\.query\.", ".attn.q."),
    (r"\.attention\.(key|value)\.", ".attn.kv."),
    (r"\.attention\.proj\.", ".attn.proj."),
    (r"\.attention\.spatial_reduction\.", ".attn.sr."),
    (r"\.attention\.layer_norm\.", ".attn.norm."),
    (r"\.mlp\.dense(\d)\.", r".mlp.fc\1."),
    (r"^encoder\.layers\.(\d)\.patch_embedding\.", r"patch_embed\1."),
    (r"^encoder\.layers\.(\d)\.blocks\.", r"block\1."),
    (r"^encoder\.layers\.(\d)\.layer_norm\.", r"norm\1."),
)


def pvt_authors(name: str) -> Origin:
    """A tensor of transformers' PVT-v2 in its authors' names; they store keys and values as one."""
    part = 0 if ".attention.key." in name else 1 if ".attention.value." in name else None
    return Origin(_next(_substitute(name, _PVT), r"^(patch_embed|block|norm)(\d)"), part)


_EFFICIENTNET = (
    (r"^stem\.0\.", "_conv_stem."),
    (r"^stem\.1\.", "_bn0."),
    (r"\.expand\.0\.", "._expand_conv."),
    (r"\.expand\.1\.", "._bn0."),
    (r"\.depthwise\.0\.", "._depthwise_conv."),
    (r"\.depthwise\.1\.", "._bn1."),
    (r"\.project\.0\.", "._project_conv."),
    (r"\.project\.1\.", "._bn2."),
    (r"^blocks\.", "_blocks."),
)


def efficientnet_package(name: str) -> Origin:
    """A tensor of our EfficientNet-Lite0 in the names of the package ``efficientnet_lite_pytorch``."""
    return Origin(_substitute(name, _EFFICIENTNET))


def published_backbone(name: str, image_encoder: str, resnet: str, pvt: str, copies: bool = True) -> Origin | None:
    """Where the published checkpoints keep a tensor of our image encoder; None for any other tensor.

    Args:
        name: Of the tensor in our model.
        image_encoder: ``resnet50`` or ``pvt_v2_b5``.
        resnet, pvt: What the authors' names begin with for either encoder.
        copies: Whether the ResNet has two copies of stages 3 and 4, of which the first is used.
    """
    backbone = "image_encoder.backbone."
    if not name.startswith(backbone):
        return None
    name = name.removeprefix(backbone)
    if image_encoder == "pvt_v2_b5":
        origin = pvt_authors(name)
        return Origin(pvt + origin.name, origin.part)
    name = torchvision_resnet(name).name
    return Origin(resnet + (re.sub(r"^layer([34])\.", r"layer\1_1.", name) if copies else name))
