"""What the benchmark is to reach, and whether a run's rows reach it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.timing import Row

Value = Callable[[Row], float | None]


@dataclass(frozen=True)
class Goal:
    """One number that a run should reach.

    Attributes:
        name: What is to be fast or small.
        rows: Which rows count: values that a row's fields must have, or tuples of values that they may have.
        value: The number, from a row.
        target: What it should be.
        least: Whether the target is the least (else the most) that it may be.
        unit: Of the number.
        device: ``cpu`` or ``cuda``, where the goal holds.
    """

    name: str
    rows: dict[str, Any]
    value: Value
    target: float
    least: bool = True
    unit: str = "×"
    device: str = "cpu"


def field(name: str) -> Value:
    """The number in a row's field."""
    return lambda row: row.get(name)


def memory(row: Row) -> float | None:
    """Ours as a share of the reference's memory."""
    ours, reference = row.get("memory_ours"), row.get("memory_reference")
    return None if ours is None or not reference else ours / reference


def memory_times(row: Row) -> float | None:
    """How many times less memory ours needs; a hundredth of a MiB is the least that is told apart."""
    ours, reference = row.get("memory_ours"), row.get("memory_reference")
    return None if ours is None or not reference else reference / max(ours, 0.01)


def _attention(part: str) -> dict[str, Any]:
    return {"group": "attention", "part": part, "frames": 5, "training": False}


def _forward(frames: int) -> dict[str, Any]:
    return {"group": "forward", "model": "tpavi_resnet50", "frames": frames, "batch": (1, 4), "option": "eager"}


def _step(model: str | tuple[str, ...], **more: Any) -> dict[str, Any]:
    return {"group": "step", "model": model, "burn_in": False, **more}


_EAGER = {"option": "eager", "batch": (1, 4)}
GOALS = (
    Goal("TPAVI attention alone, T = 5", _attention("attention"), field("ratio"), 50),
    Goal("TPAVI block, T = 5", _attention("block"), field("ratio"), 20),
    Goal("memory of the attention, T = 5", _attention("attention"), memory_times, 50, unit="× less"),
    Goal("flow branch without encoder", {"group": "attention", "part": "flow", "training": False}, field("ratio"), 2.5),
    Goal("TPAVI ResNet-50 forward, T = 5, eager", _forward(5), field("ratio"), 1.8),
    Goal("TPAVI ResNet-50 forward, T = 1, eager", _forward(1), field("ratio"), 1.3),
    Goal("UFE step, TPAVI ResNet-50", _step("tpavi_resnet50", **_EAGER), field("ratio"), 1.8),
    Goal("UFE step, AVSegFormer ResNet-50", _step("avsegformer_resnet50", **_EAGER), field("ratio"), 1.6),
    Goal("memory of it, TPAVI", _step("tpavi_resnet50", **_EAGER), memory, 0.6, least=False),
    Goal("memory of it, AVSegFormer", _step("avsegformer_resnet50", **_EAGER), memory, 0.6, least=False),
    Goal(
        "burn-in against a supervised step",
        {"group": "step", "burn_in": True, "option": "eager"},
        field("against_supervised"),
        0.95,
    ),
    Goal("loader against decoding PNGs", {"group": "loader"}, field("ratio"), 10),
    Goal(
        "demo's model on video of its size",
        {"group": "segment", "part": "whole", "video": "small"},
        field("ours"),
        25,
        unit="frames/s",
    ),
    Goal("avseg --help", {"group": "startup", "name": "avseg --help"}, field("ours"), 500, least=False, unit="ms"),
    Goal("import avseg", {"group": "startup", "name": "import avseg"}, field("ours"), 300, least=False, unit="ms"),
    Goal(
        "UFE step on a GPU, ResNet-50, best",
        _step(("tpavi_resnet50", "avsegformer_resnet50"), batch=24),
        field("ratio"),
        5,
        device="cuda",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """Whether a goal was reached.

    Attributes:
        goal: Which.
        value: The number that decides: of each model and size the best option, and of these the worst; None where
            nothing was measured.
        option: Of the deciding row, where it is not the model as it is.
    """

    goal: Goal
    value: float | None
    option: str = ""

    @property
    def reached(self) -> bool | None:
        """None where it was not measured."""
        if self.value is None:
            return None
        return self.value >= self.goal.target if self.goal.least else self.value <= self.goal.target

    @property
    def word(self) -> str:
        """``reached``, ``missed`` or ``not measured``."""
        return {None: "not measured", True: "reached", False: "missed"}[self.reached]


def verdicts(rows: Sequence[Row], device: str) -> list[Verdict]:
    """What a run on ``device`` says about each goal that holds there."""
    kind = device.split(":")[0]
    return [verdict(goal, rows) for goal in GOALS if goal.device == kind]


def verdict(goal: Goal, rows: Sequence[Row]) -> Verdict:
    """What rows say about a goal."""
    best, worst = (max, min) if goal.least else (min, max)
    found: dict[tuple[Any, ...], tuple[float, str]] = {}
    for row in rows:
        value = goal.value(row) if _matches(row, goal.rows) else None
        if value is not None:
            same = tuple(row.get(name) for name in ("name" if "model" not in row else "model", "batch", "frames"))
            one = (value, row.get("option", ""))
            found[same] = best(found.get(same, one), one)
    if not found:
        return Verdict(goal, None)
    value, option = worst(found.values())
    return Verdict(goal, value, "" if option == "eager" else option)


def _matches(row: Row, wanted: dict[str, Any]) -> bool:
    return all(
        row.get(name) in value if isinstance(value, tuple) else row.get(name) == value for name, value in wanted.items()
    )
