"""Forward pass of each base model × encoder at 224 pixels, against the plain reference, with what speeds it up.

Sound is embedded before (VGGish costs the same either way; `benchmarks.flops` has its share), and models have
the flow branch.

    python -m benchmarks.forward [--quick] [--options eager,channels_last,bf16,compile]
"""

import statistics
from collections.abc import Iterator
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor

from avseg.models import AVSModel
from benchmarks.alone import run_alone
from benchmarks.case import Case, add_memory, sampled
from benchmarks.options import accelerate, difference
from benchmarks.reference import plain
from benchmarks.subjects import SUBJECTS, forward_inputs, subject_model
from benchmarks.timing import Function, Maker, Row, Settings, timed_row

GROUP = "forward"
# Compiling takes minutes for each model and shape: others run eagerly alone.
_OPTIONS_OF = ("tpavi_resnet50", "avsegformer_resnet50")
_OPTIONS_AT = {"cpu": ((1, 1), (4, 1), (1, 5)), "gpu": ((24, 1), (1, 5))}


def measure(settings: Settings) -> list[Row]:
    """A row for each model, shape and option."""
    rows: list[Row] = []
    for case in cases(settings):
        rows += _rows(case, settings)
    return rows


def cases(settings: Settings) -> Iterator[Case]:
    """Models and shapes, the papers' first."""
    shapes = [(1, 1), (1, 5)] if settings.quick else [(1, 1), (4, 1), (1, 5), (1, 10)]
    if settings.gpu:
        shapes.append((24, 1))
    for key, subject in SUBJECTS.items():
        if settings.quick and key not in ("tpavi_resnet50", "avsegformer_resnet50", "demo"):
            continue
        for clips, frames in shapes:
            # Frames mean nothing to one another in AVSegFormer.
            if frames > 1 and key.startswith("avsegformer"):
                continue
            if settings.quick and key != "tpavi_resnet50" and frames > 1:
                continue
            shape = f"T = {frames}" if frames > 1 else f"{clips} frame{'s' if clips > 1 else ''}"
            options = settings.options if _has_options(key, clips, frames, settings) else ("eager",)
            spec = {"key": key, "clips": clips, "frames": frames, "options": list(options)}
            tags = {"model": key, "batch": clips, "frames": frames}
            yield Case("benchmarks.forward", spec, f"{subject.name}, {shape}", tags)


def _has_options(key: str, clips: int, frames: int, settings: Settings) -> bool:
    return key in _OPTIONS_OF and (clips, frames) in _OPTIONS_AT["gpu" if settings.gpu else "cpu"]


def make(device: str, key: str, clips: int, frames: int, options: list[str]) -> dict[str, Maker]:
    """The reference, ours, and ours with each further option under the option's name; all give logits."""
    model = subject_model(key)
    given = forward_inputs(model, clips, frames, device)
    makers: dict[str, Maker] = {"reference": lambda: _logits(plain(model).to(device), "eager", given, device)}
    for option in options:
        name = "ours" if option == "eager" else option
        makers[name] = partial(lambda option: _logits(deepcopy(model).to(device), option, given, device), option)
    return makers


def _logits(model: AVSModel, option: str, given: tuple[Tensor, Tensor, Tensor | None], device: str) -> Function:
    context = accelerate(model, option, device)

    def forward() -> Tensor:
        with torch.inference_mode(), context():
            logits: Tensor = model(*given).logits
        return logits

    return forward


def _rows(case: Case, settings: Settings) -> Iterator[Row]:
    settings.tell(f"{GROUP}: {case.name}")
    functions = case.make(settings)
    samples, note = sampled(functions, settings)
    ways = [name for name in samples if name != "reference"]
    apart = {}
    if "reference" in samples:
        expected = functions["reference"]()
        apart = {name: difference(functions[name](), expected) for name in ways}
    functions.clear()  # memory is measured next
    size = case.tags["batch"] * case.tags["frames"]
    for name in ways:
        option = "eager" if name == "ours" else name
        shown = case.name if option == "eager" else f"{case.name}, {option}"
        found = timed_row(GROUP, shown, samples, ours=name, option=option, **case.tags)
        found["frames_per_second"] = round(size / statistics.median(samples[name]), 2)
        if name in apart:
            found["difference"] = apart[name]
        if note:
            found["note"] = note
        if option == "eager" and not settings.quick:
            add_memory(found, case, settings, "above")
        yield found


if __name__ == "__main__":
    run_alone(measure)
