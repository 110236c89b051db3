"""Every setting has a type and a range, however it is given; what passes can be computed with."""

import dataclasses
import json
import math
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

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
STRANGE: tuple[Any, ...] = (math.nan, math.inf, -1e30, 1e30, True, "1", None, HUGE, -HUGE, [[]], {})
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


FIELDS = dict(walk(Config()))
OPTIONS = {f"{base}.{name}": hint for base, kind in OURS.items() if kind for name, hint in walk(kind())}
NUMBERS = [name for name, hint in {**FIELDS, **OPTIONS}.items() if has_number(hint)]


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


def test_every_number_has_a_range_and_every_range_a_field() -> None:
    missing = [name for name in NUMBERS if name not in RANGES]
    assert not missing, f"give each of these a line in avseg/settings.py: {missing}"
    assert not set(RANGES) - set(NUMBERS)


@pytest.mark.parametrize("name", NUMBERS)
def test_defaults_and_ends_of_a_range_are_taken_and_what_lies_beyond_is_not(name: str) -> None:
    limits, hint = RANGES[name], {**FIELDS, **OPTIONS}[name]
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(item for item in get_args(hint) if has_number(item))
    step = 1 if hint is int or (get_args(hint) and get_args(hint)[0] is int) else 1e-6
    ends = limits.most if isinstance(limits.most, tuple) else (limits.most,) * len(get_args(hint) or "1")

    def of(*numbers: float) -> Any:
        return numbers if get_origin(hint) is tuple else numbers[0]

    dims = [end for end, item in zip(ends, get_args(hint) or "1", strict=False) if item is not ...]
    low, high = of(*[limits.least] * len(dims)), of(*dims)
    below = of(*[limits.least - step * limits.multiple] * len(dims))
    above = of(*[end + step * limits.multiple for end in dims])
    for value, fits in ((low, not limits.above), (high, not limits.below), (below, False), (above, False)):
        config = config_with(name, value)
        # Alone: what fields say together is not the matter here.
        parts = name.split(".")
        section: Any = OURS[parts[0]](**config.model.options) if parts[0] in OURS else config
        for part in parts[:-1] if parts[0] not in OURS else ():
            section = getattr(section, part)
        section = dataclasses.replace(section)
        path = ".".join(parts[:-1])
        try:
            check_settings(_alone(section), path if parts[0] not in OURS else "model.options", path)
        except AvsegError as error:
            assert not fits, error
            assert f"{parts[-1]} is " in str(error)
        else:
            assert fits, f"{name} took {value}"


def _alone(section: Any) -> Any:
    section.check_together = lambda: None
    return section


@pytest.mark.parametrize("name", [*FIELDS, *OPTIONS])
def test_strange_values_are_refused_or_harmless_in_python(name: str, tmp_path: Path) -> None:
    """`train` refuses them before it looks for data; a model that is built from others has finite settings."""
    hint = {**FIELDS, **OPTIONS}[name]
    for value in STRANGE:
        config = config_with(name, value)
        config.run.out = config.run.out if name == "run.out" else str(tmp_path / "out")
        try:
            config.check()
            check_model(config.model)
        except AvsegError as error:
            assert name.split(".")[-1] in str(error)
            assert len(str(error)) < 1000
            with pytest.raises(AvsegError):
                train(config_with(name, value))
            if name.split(".")[0] in ("model", *OURS):
                with pytest.raises(AvsegError):
                    build(config_with(name, value).model)
        else:
            assert harmless(value, hint), f"{name} took {value!r}"


def harmless(value: Any, hint: Any) -> bool:
    allowed = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None:
        return type(None) in allowed
    if isinstance(value, bool):
        return bool in allowed
    if isinstance(value, str):
        return str in allowed
    return value == {} and any(get_origin(item) is dict for item in allowed)


def option(name: str) -> str:
    base, _, field = name.partition(".")
    return f"--model.options={{{field}: VALUE}}" if base in OURS else f"--{name}=VALUE"


TYPED = ("nan", ".inf", "-1e30", "1e30", "true", "text", "null", "9" * 400, "9" * 5000, "[[]]", "{}")


@pytest.mark.parametrize("name", [*FIELDS, *OPTIONS])
def test_strange_values_are_refused_or_harmless_as_options_and_in_files(name: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    for value in TYPED:
        base, _, field = name.partition(".")
        given = {"model": {"base": base, "options": {field: "VALUE"}}} if base in OURS else _nested(name, "VALUE")
        file.write_text(yaml.safe_dump(given).replace("VALUE", value))
        results = []
        for arguments in ((file,), (_empty(tmp_path), f"--model.base={base}" if base in OURS else "", option(name))):
            try:
                config = load_config(arguments[0], *[text.replace("VALUE", value) for text in arguments[1:] if text])
                check_model(config.model)
                results.append(config)
            except AvsegError as error:
                assert len(str(error)) < 2000
        for config in results:  # whatever was taken is of its type, and in its range
            config.check()
            again = yaml.safe_load(yaml.safe_dump(config.to_dict()))
            assert again == config.to_dict() or "nan" in str(again)


def _nested(name: str, value: Any) -> Any:
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def _empty(folder: Path) -> Path:
    (folder / "empty.yaml").write_text("{}\n")
    return folder / "empty.yaml"


@pytest.mark.parametrize("name", [name for name in FIELDS if name.startswith("model.")] + list(OPTIONS))
def test_strange_values_are_refused_or_harmless_in_config_json(name: str) -> None:
    for value in (*STRANGE, [], [1], -1, 0, 1e-300, "\0", "x" * 10_000):
        values = json.loads(json.dumps(model_config_to_dict(config_with(name, value).model)))
        try:
            config = model_config_from_dict(values, "here/config.json")
            check_model(config)
        except AvsegError as error:
            assert len(str(error)) < 1000
        else:
            check_settings(config, "model")
            assert harmless(value, {**FIELDS, **OPTIONS}[name]) or value in ([1], [], 0)


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
        ({"cutmix_area": (0.5, 0.6), "cutmix_aspect": (3, 3.3)}, "no such box fits into a picture"),
        (
            {"scale": (0, 1)},
            r"perturb.scale is \[0, 1\]: give a list of 2 numbers from 0.05 to 20, the first no larger",
        ),
        ({"scale": (2, 1)}, "the first no larger than the second"),
        ({"flip": 9}, "perturb.flip is 9: give a number from 0 to 1"),
        ({"jitter": (0, 0, -5, 0)}, "perturb.jitter is"),
    ],
)
def test_perturbations_that_cannot_be(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AvsegError, match=sentence):
        check_settings(PerturbConfig(**changes), "perturb")


def drawn(limits: Range, hint: Any) -> st.SearchStrategy[Any]:
    """Values in and a little beyond a range, near its ends above all."""
    top = max(limits.most) if isinstance(limits.most, tuple) else limits.most
    whole = hint is int or (get_args(hint) and get_args(hint)[0] is int)
    number = st.one_of(st.floats(limits.least, top), st.sampled_from([limits.least, top, limits.least + 1e-9]))
    number = number.map(lambda value: round(value)) if whole else number
    sizes = [item for item in get_args(hint) if item is not ...] if get_origin(hint) is tuple else []
    pair = st.tuples(*[number] * len(sizes)).map(lambda both: tuple(sorted(both)) if limits.rising else both)
    return pair if sizes else number


PERTURB = {
    item.name: drawn(RANGES[f"perturb.{item.name}"], get_type_hints(PerturbConfig)[item.name])
    for item in dataclasses.fields(PerturbConfig)
}


@given(st.fixed_dictionaries(PERTURB), st.integers(0, 2**31), st.sampled_from([(32, 32), (224, 224), (64, 96)]))
@settings(max_examples=150, deadline=None)
def test_whatever_passes_draws_finite_perturbations(values: dict[str, Any], seed: int, size: tuple[int, int]) -> None:
    config = PerturbConfig(**values)
    try:
        check_settings(config, "perturb")
    except AvsegError:
        return
    generator = torch.Generator().manual_seed(seed)
    geometry, colour = draw_geometry(4, config, generator), draw_colour(4, config, generator)
    boxes = draw_boxes(4, size, config, generator)
    for tensor in (*vars(geometry).values(), *vars(colour).values()):
        assert bool(torch.isfinite(tensor.float()).all())
    assert boxes.inside.flatten(1).any(1).tolist() == boxes.chosen.tolist()


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: drawn(RANGES[name], FIELDS[name])
            for name in NUMBERS
            if name in FIELDS and get_origin(FIELDS[name]) not in (Union, types.UnionType)
        },
    )
)
@settings(max_examples=60, deadline=None)
def test_a_whole_configuration_that_passes_survives_its_file(values: dict[str, Any]) -> None:
    config = Config()
    for name, value in values.items():
        section: Any = config
        for part in name.split(".")[:-1]:
            section = getattr(section, part)
        setattr(section, name.split(".")[-1], value)
    try:
        config.check()
    except AvsegError:
        return
    from avseg.commands.learning import train_parser

    parser = train_parser()
    text = yaml.safe_dump(config.to_dict())
    again = config_from_parsed(parser, parser.parse_string(text))
    assert again == config
