"""Every setting has a type and a range, however it is given; what passes can be computed with."""

import dataclasses
import json
import math
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from avseg.commands.learning import train_parser
from avseg.config import (
    Config,
    ModelConfig,
    PerturbConfig,
    config_from_parsed,
    load_config,
    model_config_from_dict,
    model_config_to_dict,
)
from avseg.data.perturb import draw_boxes, draw_colour, draw_geometry
from avseg.errors import AvsegError
from avseg.models import build
from avseg.models.base import _BASES, check_model
from avseg.settings import RANGES, Range, check_settings
from avseg.training.run import train

HUGE = 10**400
STRANGE: tuple[Any, ...] = (math.nan, math.inf, -1e30, 1e30, True, "1", None, HUGE, -HUGE, [[]], {}, "\0")
OURS = {name: kind.options_class for name, kind in _BASES.items() if kind.__module__.startswith("avseg.")}


def walk(section: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Names of all fields and their types."""
    hints = get_type_hints(type(section))
    for item in dataclasses.fields(section):
        name = f"{path}.{item.name}".lstrip(".")
        if dataclasses.is_dataclass(hints[item.name]):
            yield from walk(getattr(section, item.name), name)
        else:
            yield name, hints[item.name]


def has_number(hint: Any) -> bool:
    return hint in (int, float) or (get_origin(hint) is not Literal and any(map(has_number, get_args(hint))))


def choices(hint: Any) -> tuple[Any, ...]:
    """The types that a field may have."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


FIELDS = dict(walk(Config()))
OPTIONS = {f"{base}.{name}": hint for base, kind in OURS.items() if kind for name, hint in walk(kind())}
ALL = {**FIELDS, **OPTIONS}
NUMBERS = [name for name, hint in ALL.items() if has_number(hint)]


def config_with(name: str, value: Any) -> Config:
    config, place = Config(), name.split(".")
    if place[0] in OURS:
        config.model = ModelConfig(base=place[0], image_encoder="efficientnet_lite0", options={place[1]: value})
        return config
    section = config
    for part in place[:-1]:
        section = getattr(section, part)
    setattr(section, place[-1], value)
    return config


def section_of(name: str, value: Any) -> tuple[Any, str, str]:
    """The dataclass of a field, what it is called, and its name in `RANGES`; what its fields say together is off."""
    config, (*place, field) = config_with(name, value), name.split(".")
    if place[0] in OURS:
        kind = OURS[place[0]]
        assert kind is not None
        section, shown = kind(**{field: value}), "model.options"
    else:
        section, shown = config, ".".join(place)
        for part in place:
            section = getattr(section, part)
    section.check_together = lambda: None
    return section, shown, ".".join(place)


def refusal(call: Callable[[], Any]) -> str:
    """What is said where ``call`` is refused, which is one short sentence; empty where it isn't."""
    try:
        call()
    except AvsegError as error:
        said = str(error)
    else:
        return ""
    assert "\n" not in said
    assert len(said) < 1000
    return said


def harmless(value: Any, hint: Any) -> bool:
    """Whether a strange value is of a field's type."""
    kinds = choices(hint)
    if value == {}:
        return any(get_origin(kind) is dict for kind in kinds)
    return type(value) in (type(None), bool, str) and type(value) in kinds


def test_every_number_has_a_range_and_every_range_a_field() -> None:
    missing = [name for name in NUMBERS if name not in RANGES]
    assert not missing, f"give each of these a line in avseg/settings.py: {missing}"
    assert not set(RANGES) - set(NUMBERS)


@pytest.mark.parametrize("name", NUMBERS)
def test_the_ends_of_a_range_are_taken_and_what_lies_beyond_is_not(name: str) -> None:
    limits = RANGES[name]
    hint = next(kind for kind in choices(ALL[name]) if has_number(kind))
    many = get_origin(hint) is tuple
    inner = [kind for kind in get_args(hint) if kind is not ...] if many else [hint]
    step = limits.multiple if inner[0] is int else 1e-6
    ends = limits.most if isinstance(limits.most, tuple) else (limits.most,) * len(inner)

    def value(numbers: list[float]) -> Any:
        return tuple(numbers) if many else numbers[0]

    least = [limits.least for _ in inner]
    for numbers, fits in (
        (least, not limits.above),
        (list(ends), not limits.below),
        ([end - step for end in least], False),
        ([end + step for end in ends], False),
    ):
        said = refusal(partial(check_settings, *section_of(name, value(numbers))))
        assert (said == "") == fits, (numbers, said)
        assert fits or f".{name.split('.')[-1]} is " in said


@pytest.mark.parametrize("name", ALL)
def test_strange_values_are_refused_or_harmless_in_python(name: str) -> None:
    """`train` and `build` refuse them before they look for anything."""
    for value in STRANGE:
        config = config_with(name, value)
        said = refusal(config.check) or refusal(partial(check_model, config.model))
        if not said:
            assert harmless(value, ALL[name]), f"{name} took {value!r}"
            continue
        assert name.split(".")[-1] in said
        assert refusal(partial(train, config_with(name, value)))
        if name.split(".")[0] in ("model", *OURS):
            assert refusal(partial(build, config_with(name, value).model))


@pytest.mark.parametrize("name", NUMBERS)
def test_strange_numbers_are_refused_as_options_and_in_files(name: str, tmp_path: Path) -> None:
    file, empty = tmp_path / "config.yaml", tmp_path / "empty.yaml"
    empty.write_text("{}\n")
    base, _, field = name.partition(".")
    nested: Any = {"model": {"base": base, "options": {field: "VALUE"}}}
    options = [f"--model.base={base}", f"--model.options={{{field}: VALUE}}"]
    if base not in OURS:
        options, nested = [f"--{name}=VALUE"], "VALUE"
        for part in reversed(name.split(".")):
            nested = {part: nested}
    for value, way in (("nan", 1), ("1e30", 0), ("9" * 400, 1), ("9" * 5000, 0), ("true", 0)):
        file.write_text(yaml.safe_dump(nested).replace("VALUE", value))
        given_ = (empty, *(text.replace("VALUE", value) for text in options)) if way else (file,)
        said = refusal(lambda given_=given_: check_model(load_config(*given_).model))  # type: ignore[misc]
        assert said, f"{name} took {value}"


@pytest.mark.parametrize("name", [name for name in ALL if name.split(".")[0] in ("model", *OURS)])
def test_strange_values_are_refused_or_harmless_in_config_json(name: str) -> None:
    for value in (*STRANGE, "x" * 10_000):
        values = json.loads(json.dumps(model_config_to_dict(config_with(name, value).model)))
        said = refusal(lambda values=values: check_model(model_config_from_dict(values)))  # type: ignore[misc]
        assert said or harmless(value, ALL[name]), f"{name} took {value!r}"


def test_numbers_of_numpy_and_lists_become_what_the_type_says() -> None:
    import numpy as np

    config = Config()
    config.model.dilations, config.model.inputs.mean = [1, 2], [0.5, 0.5, 0.5]  # type: ignore[assignment]
    config.optim.epochs, config.optim.learning_rate = np.int64(3), np.float32(0.5)  # type: ignore[assignment]
    config.check()
    assert (config.model.dilations, config.model.inputs.mean) == ((1, 2), (0.5, 0.5, 0.5))
    assert [type(value) for value in (config.optim.epochs, config.optim.learning_rate)] == [int, float]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"cutmix_area": (0.5, 0.6), "cutmix_aspect": (3, 3.3)}, "no such box fits into an image"),
        ({"scale": (0, 1)}, r"perturb.scale is \[0, 1\]: give a list of 2 numbers from 0.05 to 20, the first no "),
        ({"scale": (2, 1)}, "the first no larger than the second"),
        ({"flip": 9}, "perturb.flip is 9: give a number from 0 to 1"),
        ({"jitter": (0, 0, -5, 0)}, "perturb.jitter is"),
    ],
)
def test_perturbations_that_cannot_be(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AvsegError, match=sentence):
        check_settings(PerturbConfig(**changes), "perturb")


def drawn(limits: Range, hint: Any) -> st.SearchStrategy[Any]:
    """Values of a range, near its ends above all."""
    many = get_origin(hint) is tuple
    inner = [kind for kind in get_args(hint) if kind is not ...] if many else [hint]
    least, most = limits.least, max(limits.most) if isinstance(limits.most, tuple) else limits.most
    number: st.SearchStrategy[Any] = st.floats(least, most) | st.sampled_from([least, most, least + 1e-9])
    if inner[0] is int:
        number = st.integers(int(least) // limits.multiple, int(most) // limits.multiple).map(limits.multiple.__mul__)
    if not many:
        return number
    return st.tuples(*[number] * len(inner)).map(lambda both: tuple(sorted(both)) if limits.rising else both)


PLAIN = {name: drawn(RANGES[name], ALL[name]) for name in NUMBERS if name in FIELDS and len(choices(ALL[name])) == 1}


@given(
    st.fixed_dictionaries({name: values for name, values in PLAIN.items() if name.startswith("perturb.")}),
    st.integers(0, 2**31),
    st.sampled_from([(32, 32), (224, 224), (64, 96)]),
)
@settings(max_examples=150, deadline=None)
def test_whatever_passes_draws_finite_perturbations(values: dict[str, Any], seed: int, size: tuple[int, int]) -> None:
    config = PerturbConfig(**{name.partition(".")[2]: value for name, value in values.items()})
    if refusal(partial(check_settings, config, "perturb")):
        return
    generator = torch.Generator().manual_seed(seed)
    geometry, colour = draw_geometry(4, config, generator), draw_colour(4, config, generator)
    boxes = draw_boxes(4, size, config, generator)
    for tensor in (*vars(geometry).values(), *vars(colour).values()):
        assert bool(torch.isfinite(tensor.float()).all())
    assert boxes.inside.flatten(1).any(1).tolist() == boxes.chosen.tolist()


@given(st.fixed_dictionaries({}, optional=PLAIN))
@settings(max_examples=40, deadline=None)
def test_a_whole_configuration_that_passes_survives_its_file(values: dict[str, Any]) -> None:
    config = Config()
    for name, value in values.items():
        *place, field = name.split(".")
        section: Any = config
        for part in place:
            section = getattr(section, part)
        setattr(section, field, value)
    if refusal(config.check):
        return
    parser = train_parser()
    assert config_from_parsed(parser, parser.parse_string(yaml.safe_dump(config.to_dict()))) == config
