"""What is measured: the papers' models as their configurations describe them, the demo's, and inputs with texture."""

from dataclasses import dataclass
from importlib.resources import as_file, files

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avseg.config import Config, WeightsConfig, load_config
from avseg.data.clip import DistantBatch, LabelledBatch, TrainBatch
from avseg.models import AVSModel, build

RANDOM = WeightsConfig(image="none", audio="none", flow="none")
SIDE = 224


@dataclass(frozen=True)
class Subject:
    """A model that is measured.

    Attributes:
        name: For people.
        file: Its configuration in ``configs/``.
        overrides: On top of it.
    """

    name: str
    file: str
    overrides: tuple[str, ...] = ()

    def config(self) -> Config:
        """The whole configuration, with random weights."""
        with as_file(files("avseg") / "configs" / self.file) as path:
            config = load_config(path, *self.overrides)
        config.weights = RANDOM
        return config


SUBJECTS = {
    "tpavi_resnet50": Subject("TPAVI ResNet-50", "s4_tpavi_resnet50_ufe.yaml"),
    "tpavi_pvt_v2_b5": Subject("TPAVI PVT-v2-b5", "s4_tpavi_pvt_v2_b5_ufe.yaml"),
    "avsegformer_resnet50": Subject("AVSegFormer ResNet-50", "s4_avsegformer_resnet50_ufe.yaml"),
    "avsegformer_pvt_v2_b5": Subject("AVSegFormer PVT-v2-b5", "s4_avsegformer_pvt_v2_b5_ufe.yaml"),
    "demo_224": Subject("demo's model, 224 px", "demo.yaml", (f"--model.inputs.image_size={SIDE}",)),
    "demo": Subject("demo's model, 96 px", "demo.yaml"),
}


def subject_model(key: str) -> AVSModel:
    """A model with random weights in which every part has a say and maps are of ordinary size, in evaluation mode.

    Published models hear nothing before they are trained (the attention's batch norm starts at zero), and random
    residual networks without statistics overflow half precision: neither would show what a faster way changes.
    """
    model = build(SUBJECTS[key].config().model, RANDOM, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if name.endswith("out_norm.weight"):
            nn.init.ones_(parameter)
        elif name.startswith("motion.refine") and not parameter.any():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.02
    _settle(model)
    return model.eval().requires_grad_(True)


@torch.no_grad()
def _settle(model: AVSModel) -> None:
    """Give every batch norm the statistics of what it sees, by one pass over small images."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.train()
    given = forward_inputs(model, 4, 1, side=128)
    torch.manual_seed(0)
    model(*given)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def forward_inputs(
    model: AVSModel, clips: int, frames: int, device: str = "cpu", side: int | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Frames, embedded sound and flow as ``model`` takes them, random but with texture."""
    side = model.config.inputs.image_size if side is None else side
    count = clips * frames
    pictures = textured(count, 3, side, seed=0).unflatten(0, (clips, frames))
    sound = torch.randn(clips, frames, 128, generator=torch.Generator().manual_seed(1)).relu()
    flow = textured(count, 2, side, seed=2).unflatten(0, (clips, frames)) if model.config.neighbouring_frames else None
    return pictures.to(device), sound.to(device), None if flow is None else flow.to(device)


def textured(count: int, channels: int, side: int, seed: int) -> Tensor:
    """Noise of coarse and fine grain, of mean 0 and variance 1: ``(count, channels, side, side)``."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(count, channels, side, side)
    for divisor in (32, 8, 2, 1):
        grain = torch.randn(count, channels, side // divisor, side // divisor, generator=generator)
        total += F.interpolate(grain, (side, side), mode="bilinear", align_corners=False) * divisor**0.5
    return (total - total.mean()) / total.std()


def train_batch(model: AVSModel, count: int, device: str = "cpu") -> TrainBatch:
    """A step's batch: as many labelled as distant frames, each with its stored embedding where sound's is frozen."""
    side = model.config.inputs.image_size

    def fields(seed: int) -> dict[str, object]:
        sound = torch.randn(count, 1, 128, generator=torch.Generator().manual_seed(seed)).relu()
        return {
            "frames": (textured(count, 3, side, seed) * 50 + 120).clamp(0, 255).to(torch.uint8).unsqueeze(1),
            "flow": textured(count, 2, side, seed + 10).half().unsqueeze(1),
            "log_mel": torch.randn(count, 1, 1, 96, 64, generator=torch.Generator().manual_seed(seed)),
            "inside": torch.ones(count, 1, 1, side, side, dtype=torch.bool),
            "valid": torch.ones(count, 1, 1, side, side, dtype=torch.bool),
            "names": tuple(f"clip{index}" for index in range(count)),
            "categories": ("",) * count,
            "times": torch.zeros(count, 1, dtype=torch.float64),
            "audio": sound if model.audio_encoder.frozen else None,
        }

    masks = textured(count, 1, side, seed=5).unsqueeze(1) > 0.5
    labelled = LabelledBatch(masks=masks, **fields(3))  # type: ignore[arg-type]
    distant = DistantBatch(masks=None, **fields(4))  # type: ignore[arg-type]
    return TrainBatch(0, labelled, distant).to(device)
