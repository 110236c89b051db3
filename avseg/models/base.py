"""The contract between clips and models, and the registry of base models.

A base model implements three methods (`pyramid`, `decode`, `loss`); everything else (audio embedding, the flow branch
of Eq. 2 between the first and the second, saving and loading) is shared.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avseg.config import InputConfig, ModelConfig, WeightsConfig, model_config_to_dict
from avseg.data.clip import Batch
from avseg.errors import AvsegError
from avseg.files import whole_file, write_json
from avseg.settings import check_settings

if TYPE_CHECKING:
    from avseg.models.motion import MotionBranch

FORMAT_VERSION = 1


@dataclass
class Prediction:
    """What a model says about a batch.

    Attributes:
        logits: ``(B, T, 1, H, W)``, the mask before the sigmoid, at the size of the input frames.
        confidence: ``(B, T)`` in [0, 1], how sure the model is of each frame's mask; None for a model that doesn't say.
        aux: Whatever the base model's own loss needs besides: tensors, or lists and dicts of tensors, whose first
            dimension is B or B·T.
    """

    logits: Tensor
    aux: dict[str, Any] = field(default_factory=dict)
    confidence: Tensor | None = None

    def part(self, start: int, stop: int) -> "Prediction":
        """The prediction for clips ``start`` to ``stop`` of the batch."""
        clips, times = self.logits.shape[:2]

        def cut(value: Any) -> Any:
            if isinstance(value, Tensor):
                each = 1 if value.shape[0] == clips else times
                return value[start * each : stop * each]
            if isinstance(value, dict):
                return {key: cut(item) for key, item in value.items()}
            if isinstance(value, (list, tuple)):
                return type(value)(cut(item) for item in value)
            return value

        return Prediction(self.logits[start:stop], cut(self.aux), cut(self.confidence))


@dataclass
class Inputs:
    """A batch as a model takes it: float tensors on one device.

    Attributes:
        frames: ``(B, T, 3, H, W)``, normalised RGB.
        flow: ``(B, T, 2, H, W)`` in the model's flow encoding, or None for a model without the NF branch.
        log_mel: ``(B, T, 1, 96, 64)``.
        audio: ``(B, T, 128)`` embeddings where they were computed before, or None.
    """

    frames: Tensor
    flow: Tensor | None
    log_mel: Tensor
    audio: Tensor | None


def normalise(batch: Batch, config: ModelConfig, device: torch.device | str | None = None) -> Inputs:
    """The one function between clips and models: a batch as ``config``'s model takes it.

    Args:
        batch: Frames uint8, or float in [0, 1]; flow in pixels per 40 ms.
        config: The model's configuration; its ``inputs`` say how.
        device: Where to; None stays where the batch is.
    """
    if device is not None:
        batch = batch.to(device, non_blocking=True)
    spec = config.inputs
    frames = batch.frames.float() / 255 if batch.frames.dtype == torch.uint8 else batch.frames
    mean, std = _statistics(spec.mean, spec.std, frames.device, frames.dtype)
    flow = encode_flow(batch.flow.float(), spec) if config.neighbouring_frames else None
    return Inputs((frames - mean) / std, flow, batch.log_mel, batch.audio)


@lru_cache(maxsize=32)
def _statistics(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    # Made once: to bring numbers to a GPU makes it wait. A tensor of inference mode could not be used in training.
    with torch.inference_mode(False):
        parts = [torch.tensor(item, dtype=dtype).view(3, 1, 1).to(device) for item in (mean, std)]
    return parts[0], parts[1]


def encode_flow(flow: Tensor, spec: InputConfig) -> Tensor:
    """Flow in pixels per 40 ms, in any shape, in the encoding that ``spec`` names."""
    if spec.flow_encoding == "pixels":
        return flow
    bound = spec.flow_bound
    return torch.round((flow + bound).clamp(0, 2 * bound) * (255 / (2 * bound))) / 255


class AVSModel(nn.Module, ABC):
    """Base of every audio-visual segmentation model.

    A subclass builds its image path and decoder in ``__init__`` after calling ``super().__init__``, then implements
    `pyramid`, `decode` and `loss`. Eq. 1 with Eq. 2 in its middle is `compute`. Parameters that need no gradient when
    the model is built are never trained: they are left out of clipping, and an averaging teacher shares them.

    Args:
        config: The architecture. ``config.options`` holds the subclass's own settings.
        weights: Where initial weights come from; None builds the architecture alone (weights are loaded after).
    """

    options_class: ClassVar[type[Any] | None] = None
    """A subclass's own settings, a dataclass; they become ``options`` before anything is built."""

    tells_confidence: ClassVar[bool] = False
    """Whether predictions say how sure the model is of each frame (``Prediction.confidence``)."""

    def __init__(self, config: ModelConfig, weights: WeightsConfig | None = None):
        from avseg.models.encoders import AudioEncoder, build_audio_encoder

        super().__init__()
        self.config = deepcopy(config)
        self.config.check()
        if self.options_class is not None:
            self.options = options_from(self.config, self.options_class)
        self.image_encoder = self.build_image_encoder(weights)
        self.audio_encoder: AudioEncoder = build_audio_encoder(self.config, weights)
        self.motion: MotionBranch | None = None

    def build_image_encoder(self, weights: WeightsConfig | None) -> nn.Module:
        """The image encoder that the configuration names; a model that has one of its own overrides this.

        Raises:
            AvsegError: see `avseg.models.encoders.build_image_encoder`.
        """
        from avseg.models.encoders import build_image_encoder

        return build_image_encoder(self.config, weights)

    def scales(self) -> list[tuple[int, int]]:
        """Stride and width of each map that `pyramid` gives, from fine to coarse; the flow branch refines these."""
        return [(stride, self.config.width) for stride in (4, 8, 16, 32)]

    def timestamps_per_pass(self, device: torch.device) -> int:
        """How many timestamps memory allows to pass together when a video is segmented or evaluated."""
        return 32 if device.type == "cuda" else 8

    @abstractmethod
    def pyramid(self, frames: Tensor) -> list[Tensor]:
        """Frames ``(N, 3, H, W)`` -> maps ``(N, width, H/stride, W/stride)``, one for each of `scales`."""

    @abstractmethod
    def decode(self, pyramid: list[Tensor], audio: Tensor, frames: Tensor) -> Prediction:
        """Fuse image and sound, and decode masks (Φ_fuse, Φ_dec of Eq. 1).

        Args:
            pyramid: What `pyramid` gave for ``B·T`` frames, after the flow branch where there is one.
            audio: ``(B, T, 128)``.
            frames: ``(B·T, 3, H, W)``, normalised, for models that look at pixels once more.

        Returns:
            Logits of any size; `forward` brings them to that of its frames.
        """

    @abstractmethod
    def loss(self, prediction: Prediction, masks: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """The base model's own supervised loss as named scalar terms that are to be summed.

        Args:
            prediction: Of this model.
            masks: ``(B, T, 1, H, W)`` in [0, 1].
            valid: ``(B, T, 1, H, W)`` bool: pixels that count.
        """

    def matching(self, prediction: Prediction, valid: Tensor) -> Tensor:
        """What ``ufe.unsup_matching`` weighs: how far sound and marked pixels are apart, as a scalar."""
        raise NotImplementedError

    def agreement(
        self, prediction: Prediction, pseudo: Tensor, valid: Tensor, eq5: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """How far a student's prediction is from its teacher's masks, as named terms that are to be summed.

        Eq. 5 on the final mask unless a base model knows better which of its answers should agree: one with competing
        queries picks the one that matches ``pseudo``.

        Args:
            prediction: Of this model.
            pseudo: ``(B, T, 1, H, W)`` in [0, 1], the teacher's soft masks.
            valid: ``(B, T, 1, H, W)`` bool.
            eq5: Logits ``(B, T, 1, H, W)`` -> Eq. 5 against ``pseudo``, weighted as ``ufe`` says.
        """
        return {"unsup": eq5(prediction.logits)}

    def embed_audio(self, log_mel: Tensor) -> Tensor:
        """Log-mel examples ``(B, T, 1, 96, 64)`` -> embeddings ``(B, T, 128)``."""
        embedding: Tensor = self.audio_encoder(log_mel.flatten(0, 1))
        return embedding.unflatten(0, log_mel.shape[:2])

    def forward(self, frames: Tensor, audio: Tensor, flow: Tensor | None = None) -> Prediction:
        """Predict the sounding objects' masks.

        Args:
            frames: ``(B, T, 3, H, W)``, normalised; brought to ``inputs.model_size`` before the model looks at them.
            audio: ``(B, T, 128)``.
            flow: ``(B, T, 2, H, W)`` in the model's encoding; needed where the model has the NF branch.

        Raises:
            ValueError: the model has the NF branch and no flow was given.
        """
        side, size = self.config.inputs.model_size, frames.shape[-2:]
        prediction = self.compute(frames if side is None else resized(frames, (side, side)), audio, flow)
        prediction.logits = resized(prediction.logits, size)
        return prediction

    def compute(self, frames: Tensor, audio: Tensor, flow: Tensor | None = None) -> Prediction:
        """Eq. 1 with Eq. 2 in its middle, on frames of the size that the model sees; otherwise as `forward`."""
        maps = self.pyramid(frames.flatten(0, 1))
        if self.motion is not None:
            maps = self.motion.add(maps, self.motion_features(maps, flow))
        return self.decode(maps, audio, frames.flatten(0, 1))

    def motion_features(self, pyramid: list[Tensor], flow: Tensor | None) -> list[Tensor]:
        """What the flow branch adds to ``pyramid``, of flow ``(B, T, 2, H, W)``; ValueError where there is none."""
        assert self.motion is not None
        if flow is None:
            raise ValueError("This model was built with neighbouring frames: it needs flow (B, T, 2, H, W).")
        sizes = [(item.shape[-2], item.shape[-1]) for item in pyramid]
        return self.motion.features(flow.flatten(0, 1), sizes)

    def predict(self, inputs: Inputs) -> Prediction:
        """`forward` on what `normalise` gives, embedding the sound unless it already is."""
        audio = self.embed_audio(inputs.log_mel) if inputs.audio is None else inputs.audio
        prediction: Prediction = self(inputs.frames, audio, inputs.flow)
        return prediction

    def train(self, mode: bool = True) -> "AVSModel":
        """As `nn.Module.train`, but a frozen audio encoder stays in evaluation mode."""
        super().train(mode)
        if self.audio_encoder.frozen:
            self.audio_encoder.eval()
        return self

    def save_pretrained(self, folder: str | Path, half: bool = False) -> Path:
        """Write ``config.json`` and ``model.safetensors`` to ``folder``; other files there are kept.

        Args:
            folder: Made where it doesn't exist.
            half: Store weights of layers in float16, for half the size; what norms hold stays as it is. Loading makes
                float32 of them again.

        Raises:
            AvsegError: ``folder`` is a file.
        """
        from safetensors.torch import save_file

        folder = Path(folder)
        if folder.is_file():
            raise AvsegError(f"{folder} is a file: name a folder to save the model to.")
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        if half:
            tensors = {name: item.half() if item.ndim > 1 else item for name, item in tensors.items()}
        values = {"format_version": FORMAT_VERSION, **model_config_to_dict(self.config)}
        with whole_file(folder / "model.safetensors") as temporary:
            save_file(tensors, str(temporary), metadata={"format": "pt"})
        write_json(folder / "config.json", values)
        return folder


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """``(B, T, C, h, w)`` -> ``(B, T, C, *size)``, bilinear; antialiased where it shrinks."""
    if x.shape[-2:] == tuple(size):
        return x
    shrinks = size[0] < x.shape[-2]
    planes = F.interpolate(x.flatten(0, 1), tuple(size), mode="bilinear", align_corners=False, antialias=shrinks)
    return planes.unflatten(0, x.shape[:2])


M = TypeVar("M", bound=type[AVSModel])
_BASES: dict[str, type[AVSModel]] = {}


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode within the block; every module's own mode is restored after it."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def register(name: str) -> Callable[[M], M]:
    """Class decorator: make a base model known under ``name`` (``model.base`` of a configuration)."""

    def add(base: M) -> M:
        _BASES[name] = base
        return base

    return add


def base_models() -> list[str]:
    """Names of the registered base models."""
    return sorted(_BASES)


def base_class(name: str) -> type[AVSModel]:
    """The base model registered under ``name``; AvsegError where there is none."""
    if name not in _BASES:
        raise AvsegError(f"model.base is '{name}': known base models are {', '.join(base_models())}.")
    return _BASES[name]


def build(config: ModelConfig, weights: WeightsConfig | None = None, seed: int | None = None) -> AVSModel:
    """Build the model that ``config`` describes.

    The base model is built first and the flow branch last, each from its own seed, so that models with and
    without neighbouring frames start from the same weights everywhere else.

    Args:
        config: The architecture.
        weights: Where initial weights come from; None leaves them to be loaded.
        seed: Seed of random initial weights; None uses the global generator.

    Raises:
        AvsegError: an unknown base model, bad sizes, or weights that cannot be had.
    """
    from avseg.models.motion import MotionBranch

    check_model(config)
    base = base_class(config.base)
    if weights is not None:
        check_settings(weights, "weights")
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        model = base(config, weights)
        if config.neighbouring_frames:
            if seed is not None:
                torch.manual_seed(seed + 1)
            model.motion = MotionBranch(model.config, model.scales(), weights)
    return model


def check_model(config: ModelConfig) -> None:
    """Raise AvsegError naming the first setting that no model can have, before anything is built or fetched."""
    config.check()
    kind = base_class(config.base).options_class
    if kind is not None:
        options_from(config, kind)


def options_from(config: ModelConfig, kind: type[Any]) -> Any:
    """``config.options`` as the base model's own dataclass ``kind``.

    Where ``kind`` has a method ``check``, it is called with ``config.width``.

    Raises:
        AvsegError: an option that ``kind`` does not have, of the wrong type or out of its range.
    """
    known = {item.name for item in fields(kind)}
    unknown = sorted(set(config.options) - known)
    if unknown:
        raise AvsegError(
            f"model.options.{unknown[0]} is not an option of '{config.base}', which has: {', '.join(sorted(known))}."
        )
    options = kind(**config.options)
    check_settings(options, "model.options", config.base)
    if hasattr(options, "check"):
        options.check(config.width)
    return options
