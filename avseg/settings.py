"""What every setting may be, in one place: its type, its range, and what is said of a value that is neither.

A new numeric field of `avseg.config`, or of a base model's options, needs one line in `RANGES`; names, booleans and
choices are bounded by their types. Whoever takes a configuration (files, options, Python, ``config.json``) checks it
with `check_settings`.
"""

import math
import types
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from numbers import Integral, Real
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from avseg.errors import AvsegError

MOST_TEXT = 4096  # characters of a name or a path
# Of mappings of plain values. Backbones of others make lists as long as a number says, wherever tensors are.
_DEEPEST, _MOST_PARTS, _LARGEST = 8, 10_000, 1_000_000


@dataclass(frozen=True)
class Range:
    """Which numbers a field takes; of a tuple, each of its numbers.

    Attributes:
        least, most: The ends; of a tuple of fixed length ``most`` may have one for each number.
        above, below: Whether the end itself is left out.
        multiple: Of which whole numbers must be multiples.
        rising: Whether the first of two numbers may not exceed the second.
        length: How many numbers a tuple of any length may have.
    """

    least: float
    most: float | tuple[float, ...]
    above: bool = False
    below: bool = False
    multiple: int = 1
    rising: bool = False
    length: int = 16


_SHARE = Range(0, 1)
_COUNT = Range(1, 1_000_000)
_WIDTH = Range(1, 65_536)
_LAYERS = Range(1, 128)
_WEIGHT = Range(0, 1_000_000)
_QUERIES = {  # of base models whose queries compete
    "queries": Range(1, 10_000),
    "decoder_layers": _LAYERS,
    "heads": Range(1, 1024),
    "feedforward": _WIDTH,
    "dropout": Range(0, 1, below=True),
    **{f"cost_{part}": _WEIGHT for part in ("score", "dice")},
    **{f"{loss}_weight": _WEIGHT for loss in ("score", "dice", "focal", "bce")},
    "silent_weight": _WEIGHT,
    "agreement_score": _WEIGHT,
}

RANGES: dict[str, Range] = {
    "model.width": Range(4, 8192, multiple=4),
    "model.dilations": Range(1, 128),
    "model.frames_per_clip": Range(1, 100),
    "model.threshold": Range(0, 1, above=True, below=True),
    "model.inputs.image_size": Range(32, 4096, multiple=32),
    "model.inputs.model_size": Range(32, 4096, multiple=32),
    "model.inputs.mean": _SHARE,
    "model.inputs.std": Range(0.001, 10),
    "model.inputs.flow_bound": Range(0.01, 10_000),
    "model.inputs.audio_offset": Range(-10, 10),
    "data.workers": Range(0, 256),
    "perturb.scale": Range(0.05, 20, rising=True),
    "perturb.flip": _SHARE,
    "perturb.jitter": Range(0, (1, 1, 1, 0.5)),
    "perturb.jitter_probability": _SHARE,
    "perturb.grayscale_probability": _SHARE,
    "perturb.blur_probability": _SHARE,
    "perturb.blur_sigma": Range(0, 50, rising=True),
    "perturb.cutmix_probability": _SHARE,
    "perturb.cutmix_area": Range(0.0001, 1, rising=True),
    "perturb.cutmix_aspect": Range(0.01, 100, rising=True),
    "ufe.burn_in": Range(0, 1_000_000),
    "ufe.unsup_weight": Range(0, 1_000_000),
    "ufe.unsup_matching": Range(0, 1_000_000),
    "ufe.ema_decay": Range(0, 1, below=True),
    "ufe.confidence": Range(0, 0.999),
    "ufe.mix_gain_db": Range(0, 100),
    "optim.learning_rate": Range(0, 100, above=True),
    "optim.weight_decay": Range(0, 100),
    "optim.warmup_steps": Range(0, 1_000_000_000),
    "optim.batch_size": Range(1, 65_536),
    "optim.accumulate": _COUNT,
    "optim.epochs": _COUNT,
    "optim.clip_norm": Range(0, 1_000_000_000, above=True),
    "optim.freeze_image_encoder": Range(0, 1_000_000),
    "run.seed": Range(-(2**63), 2**63 - 1),
    "run.devices": Range(1, 1024),
    "run.nodes": Range(1, 4096),
    "run.validate_every": _COUNT,
    # Base models' own options, under the name of the base model.
    "tpavi.matching_weight": Range(0, 1_000_000),
    "tpavi.stages": Range(1, 4, length=4),
    "tpavi.initial_gain": Range(-1000, 1000),
    "ecmvae.latent_size": Range(1, 1024),
    "ecmvae.mutual_size": Range(1, 1024),
    "ecmvae.kl_weight": Range(0, 1_000_000),
    "ecmvae.mutual_weight": Range(0, 1_000_000),
    "ecmvae.difference_weight": Range(0, 1_000_000),
    "ecmvae.similarity_weight": Range(0, 1_000_000),
    **{f"{base}.{name}": limits for base in ("catr", "autr") for name, limits in _QUERIES.items()},
    "catr.encoder_layers": _LAYERS,
    "autr.encoder_layers": _LAYERS,
    "autr.points": Range(1, 64),
    "autr.group_channels": _WIDTH,
    "sama.adapter_width": _WIDTH,
    "sama.iou_weight": Range(0, 1_000_000),
    "avsegformer.queries": Range(1, 10_000),
    "avsegformer.encoder_layers": _LAYERS,
    "avsegformer.decoder_layers": _LAYERS,
    "avsegformer.generator_layers": _LAYERS,
    "avsegformer.heads": Range(1, 1024),
    "avsegformer.points": Range(1, 64),
    "avsegformer.feedforward": _WIDTH,
    "avsegformer.generator_feedforward": _WIDTH,
    "avsegformer.mask_hidden": _WIDTH,
    "avsegformer.group_channels": _WIDTH,
    "avsegformer.dropout": Range(0, 1, below=True),
    "avsegformer.auxiliary_weight": Range(0, 1_000_000),
}


def check_settings(section: Any, path: str = "", ranges: str | None = None) -> None:
    """Refuse a configuration, or a section of one, that has a value of the wrong type or out of its range.

    Lists in the place of tuples, and NumPy's numbers, become what the field's type says. What fields say together is
    the section's own ``check_together``, where it has one.

    Args:
        section: A dataclass.
        path: What the section is called: ``model.inputs``; empty for a whole configuration.
        ranges: Under which name `RANGES` has it; None is ``path``.

    Raises:
        AvsegError: the first wrong field is named, with what it may be.
    """
    hints = get_type_hints(type(section))
    ranges = path if ranges is None else ranges
    for item in fields(section):
        name = f"{path}.{item.name}".lstrip(".")
        value, hint = getattr(section, item.name), hints[item.name]
        limits = RANGES.get(f"{ranges}.{item.name}".lstrip("."))
        if is_dataclass(hint):
            if not isinstance(value, hint):  # type: ignore[arg-type]
                raise AvsegError(f"{name} is {_shown(value)}: give a {getattr(hint, '__name__', hint)}.")
            check_settings(value, name)
            continue
        try:
            setattr(section, item.name, _fitting(value, hint, limits))
        except ValueError:
            raise AvsegError(f"{name} is {_shown(value)}: give {_words(hint, limits)}.") from None
    together = getattr(section, "check_together", None)
    if together is not None:
        together()


def _fitting(value: Any, hint: Any, limits: Range | None) -> Any:
    """``value`` as ``hint`` has it, or ValueError."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for one in inner:
            try:
                return _fitting(value, one, limits)
            except ValueError:
                continue
    elif origin is Literal:
        if any(type(value) is type(item) and value == item for item in inner):
            return value
    elif origin is tuple:
        return _fitting_tuple(value, inner, limits)
    elif hint is int or hint is float:
        return _fitting_number(value, hint, limits)
    elif origin is dict:
        if isinstance(value, dict) and _is_plain(value):
            return value
    elif hint is str:
        if isinstance(value, str) and "\0" not in value and len(value) <= MOST_TEXT:
            return value
    elif isinstance(value, hint):
        return value
    raise ValueError


def _fitting_tuple(value: Any, inner: tuple[Any, ...], limits: Range | None) -> tuple[Any, ...]:
    if not isinstance(value, (tuple, list)):
        raise ValueError
    many = inner[-1] is ...
    if not (1 <= len(value) <= (limits.length if limits else 1000) if many else len(value) == len(inner)):
        raise ValueError
    fitting = tuple(
        _fitting(item, inner[0 if many else place], _of_place(limits, place)) for place, item in enumerate(value)
    )
    if limits is not None and limits.rising and fitting[0] > fitting[1]:
        raise ValueError
    return fitting


def _of_place(limits: Range | None, place: int) -> Range | None:
    if limits is None or not isinstance(limits.most, tuple):
        return limits
    return Range(limits.least, limits.most[place], limits.above, limits.below, limits.multiple)


def _fitting_number(value: Any, kind: Any, limits: Range | None) -> Any:
    if isinstance(value, bool) or not isinstance(value, Integral if kind is int else Real):
        raise ValueError
    number: Any = value
    try:
        if not math.isfinite(number):
            raise ValueError
    except OverflowError:  # a whole number that no float holds
        raise ValueError from None
    if limits is not None:
        assert not isinstance(limits.most, tuple)
        low = number > limits.least if limits.above else number >= limits.least
        high = number < limits.most if limits.below else number <= limits.most
        if not low or not high or (limits.multiple > 1 and number % limits.multiple):
            raise ValueError
    return number if isinstance(number, int) or type(number) is float else kind(number)


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Whether a value is made of what JSON knows, and small."""
    parts = 0
    level = [value]
    for _ in range(_DEEPEST):
        parts += len(level)
        deeper: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                if not all(isinstance(key, str) for key in item):
                    return False
                deeper += item.values()
            elif isinstance(item, (list, tuple)):
                deeper += item
            elif isinstance(item, str):
                parts += len(item) // 100
            elif isinstance(item, (int, float)):
                if not -_LARGEST <= item <= _LARGEST:  # nor is anything that is no number
                    return False
            elif item is not None:
                return False
        if not deeper:
            return parts <= _MOST_PARTS
        if parts + len(deeper) > _MOST_PARTS:
            return False
        level = deeper
    return False


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        value = list(value)
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a whole number of thousands of digits, or lists in lists
        text = f"{type(value).__name__} too large to show"
    return text if len(text) <= 80 else f"{text[:70]} …"


def _words(hint: Any, limits: Range | None) -> str:
    """What a field takes, in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return ", or ".join(_words(one, limits) for one in inner)
    if origin is Literal:
        *most, last = (str(item) for item in inner)
        return f"{', '.join(most)} or {last}" if most else last
    if origin is tuple:
        whole = "whole numbers" if inner[0] is int else "numbers"
        count = f"1 to {limits.length if limits else 1000}" if inner[-1] is ... else str(len(inner))
        rising = ", the first no larger than the second" if limits and limits.rising else ""
        return f"a list of {count} {whole} {''.join(_ends(limits))}".rstrip() + rising
    if hint in (int, float):
        kind = "a whole number" if hint is int else "a number"
        if limits is not None and limits.multiple > 1:
            kind = f"a multiple of {limits.multiple}"
        return f"{kind} {''.join(_ends(limits))}".rstrip()
    plain = {bool: "true or false", str: "a name or a path", type(None): "null"}
    return plain.get(hint, "a small mapping of names to plain values")


def _ends(limits: Range | None) -> Iterator[str]:
    if limits is None:
        return
    most = str(list(limits.most)) if isinstance(limits.most, tuple) else _number(limits.most)
    yield f"above {_number(limits.least)} and " if limits.above else f"from {_number(limits.least)} "
    yield f"below {most}" if limits.below else f"up to {most}" if limits.above else f"to {most}"


def _number(end: float) -> str:
    return f"{end:,}" if isinstance(end, int) else f"{end:g}"
