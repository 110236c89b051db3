"""A case: functions of one kind and size, timed side by side, and their peak memory."""

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch

from benchmarks.memory import OutOfMemory, bounded, peak
from benchmarks.timing import Function, Maker, Row, Settings, interleaved, timed_row


@dataclass(frozen=True)
class Case:
    """What can be made anew anywhere: ``make(device, **spec)`` of a module gives makers of functions by name.

    Attributes:
        module: The module's full name.
        spec: Plain values.
        name: For people.
        tags: What was measured, for the row.
    """

    module: str
    spec: dict[str, Any]
    name: str
    tags: dict[str, Any] = field(default_factory=dict)

    def make(self, settings: Settings) -> dict[str, Function]:
        """Its functions, ``ours`` and ``reference`` among them."""
        makers: dict[str, Maker] = import_module(self.module).make(settings.device, **self.spec)
        return {name: maker() for name, maker in makers.items()}


def compare(group: str, case: Case, settings: Settings, memory: str | None = None) -> Row:
    """Time ours against the reference. A reference that does not fit into memory is left out, with a note.

    Args:
        group: Of the row.
        case: What to compare.
        settings: Of the run.
        memory: Which peak counts: ``above``, ``between``, ``total``, or None for no measurement of memory.
    """
    settings.tell(f"{group}: {case.name}")
    samples, note = sampled(case.make(settings), settings)
    found = timed_row(group, case.name, samples, **case.tags)
    if note:
        found["note"] = note
    if memory:
        add_memory(found, case, settings, memory)
    return found


def sampled(functions: dict[str, Function], settings: Settings) -> tuple[dict[str, list[float]], str]:
    """Samples of all functions, without the reference where it does not fit into memory; and a note that says so."""
    try:
        with bounded(settings.gpu):
            return interleaved(_working(functions, settings), settings), ""
    except OutOfMemory:
        if "reference" not in functions:
            raise
    if settings.gpu:
        torch.cuda.empty_cache()
    alone = {name: function for name, function in functions.items() if name != "reference"}
    return sampled(alone, settings)[0], "the reference does not fit into memory"


def _working(functions: dict[str, Function], settings: Settings) -> dict[str, Function]:
    """Without the options that fail here: a compiler may be missing, or not know an operation."""
    found = {}
    for name, function in functions.items():
        if name not in ("ours", "reference"):
            try:
                function()
            except Exception as error:
                settings.tell(f"{name} is left out: {' '.join(str(error).split())[:300]} ({type(error).__name__})")
                continue
        found[name] = function
    return found


def add_memory(found: Row, case: Case, settings: Settings, kind: str) -> None:
    """Add ``memory_ours`` and ``memory_reference`` in MiB to a row, and the processes' totals."""
    for function in ("ours", "reference"):
        if found[function] is None:
            continue
        taken = peak(case.module, case.spec, function, settings)
        found[f"memory_{function}"] = None if taken is None else round(getattr(taken, kind), 2)
        found[f"memory_total_{function}"] = None if taken is None else round(taken.total, 1)
    found["memory"] = kind
