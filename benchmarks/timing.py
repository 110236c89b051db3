"""How time is taken: functions turn about in one process, warm-up first, medians at the end."""

import gc
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Function = Callable[[], Any]
Maker = Callable[[], Function]
"""Makes a function with all it needs; what it needs is let go with the function."""
Row = dict[str, Any]
"""What one measurement found: ``group``, ``name``, ``unit``, ``ours``, ``reference`` and ``ratio`` (how many times
better ours is), where known ``memory_ours`` and ``memory_reference`` in MiB, and what was measured: ``model``,
``frames``, ``batch``, ``option`` and the like."""

_LEAST_SAMPLE = 0.02  # seconds: what is quicker is called several times for one sample
_SLOW = 1.5  # seconds: what takes longer is warm after one call


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


@dataclass(frozen=True)
class Settings:
    """What all measurements of a run share.

    Attributes:
        device: ``cpu``, or a GPU as PyTorch names it.
        threads: Of PyTorch and OpenCV; None leaves them as they are.
        repeats: Samples of each function; fewer where they would take longer than ``seconds``.
        seconds: What one case may take before it ends with the samples it has, at least three (one if ``quick``).
        quick: Fewer cases, fewer samples.
        options: What is tried on models besides: see `benchmarks.options`.
        tell: Is told what is being measured.
    """

    device: str = "cpu"
    threads: int | None = None
    repeats: int = 7
    seconds: float = 60.0
    quick: bool = False
    options: tuple[str, ...] = ("eager",)
    tell: Callable[[str], None] = _tell

    @classmethod
    def of(
        cls,
        device: str,
        threads: int | None = None,
        repeats: int | None = None,
        quick: bool = False,
        options: tuple[str, ...] = ("eager",),
        tell: Callable[[str], None] = _tell,
    ) -> "Settings":
        """Settings with as many samples, and as much time for a case, as suit a quick run or a whole one."""
        samples = (3 if quick else 7) if repeats is None else repeats
        return cls(device, threads, samples, 5.0 if quick else 60.0, quick, options, tell)

    @property
    def gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.startswith("cuda")


def use_threads(threads: int | None) -> None:
    """Let PyTorch and OpenCV use this many threads; None leaves them as they are."""
    if threads is not None:
        import cv2

        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)


def interleaved(functions: dict[str, Function], settings: Settings) -> dict[str, list[float]]:
    """Seconds of each function, sampled in turns (A B A B …), so that a busy machine slows all of them alike.

    Every function is called before for its caches to fill; a quick one is called several times for one sample.
    """
    began = time.perf_counter()
    numbers = {name: _warm_up(function, settings) for name, function in functions.items()}
    samples: dict[str, list[float]] = {name: [] for name in functions}
    least = 1 if settings.quick else 3
    collecting = gc.isenabled()
    gc.disable()
    try:
        for done in range(settings.repeats):
            if done >= least and time.perf_counter() - began > settings.seconds:
                break
            for name, function in functions.items():
                samples[name].append(_seconds(function, numbers[name], settings.gpu))
            gc.collect()
    finally:
        if collecting:
            gc.enable()
    return samples


def _warm_up(function: Function, settings: Settings) -> int:
    """Call a function until it is warm; gives how many calls make one sample."""
    took = _seconds(function, 1, settings.gpu)
    if took < _SLOW or settings.gpu:
        took = _seconds(function, 1, settings.gpu)
    return max(1, min(1000, math.ceil(_LEAST_SAMPLE / max(took, 1e-7))))


def _seconds(function: Function, number: int, gpu: bool) -> float:
    if gpu:
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(number):
        function()
    if gpu:
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / number


def timed_row(group: str, name: str, samples: dict[str, list[float]], ours: str = "ours", **more: Any) -> Row:
    """A row in milliseconds from the samples of ``ours`` and of ``reference``, which may be missing."""
    found: Row = {"group": group, "name": name, "unit": "ms", **more}
    for key, source in (("ours", ours), ("reference", "reference")):
        taken = [1e3 * value for value in samples.get(source, [])]
        found[key] = digits(statistics.median(taken)) if taken else None
        if len(taken) > 1:
            found[f"spread_{key}"] = [digits(min(taken)), digits(max(taken))]
    found["samples"] = len(samples[ours])
    found["ratio"] = ratio(found["ours"], found["reference"], "ms")
    return found


def ratio(ours: float | None, reference: float | None, unit: str) -> float | None:
    """How many times better ours is: faster where ``unit`` is a rate (it has a ``/``), else shorter or smaller."""
    if not ours or not reference:
        return None
    return digits(ours / reference if "/" in unit else reference / ours)


def digits(value: float) -> float:
    """The number with five digits that count: more say nothing about time."""
    return float(f"{value:.5g}")
