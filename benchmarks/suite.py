"""A whole run: which groups there are, what the machine is, and the result that is written as JSON."""

import os
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from avseg.errors import AvsegError
from avseg.provenance import provenance
from benchmarks.goals import verdicts
from benchmarks.memory import OutOfMemory
from benchmarks.result import FORMAT_VERSION, GROUPS
from benchmarks.timing import Row, Settings, use_threads

_WITH_QUICK_ALONE = ("loader", "prepare")  # their `measure` needs to know nothing else


def run(
    settings: Settings, only: Sequence[str] = (), keep: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """Measure, and give what the JSON file holds: machine, settings, rows and verdicts.

    Args:
        settings: Of the run.
        only: Groups; all if empty.
        keep: Is given the result so far after each group, so that a run that is stopped is not lost.

    Raises:
        AvsegError: a group that there is not.
    """
    groups = chosen(only)
    use_threads(settings.threads)
    began = time.monotonic()
    found = machine(settings)
    rows: list[Row] = []
    for done, group in enumerate(groups, start=1):
        rows += _measure(group, settings)
        result = _result(settings, found, groups[:done], rows, time.monotonic() - began)
        if keep is not None:
            keep(result)
    return result


def _result(
    settings: Settings, machine: dict[str, Any], groups: Sequence[str], rows: list[Row], seconds: float
) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "machine": machine,
        "settings": {
            "device": settings.device,
            "threads": torch.get_num_threads(),
            "repeats": settings.repeats,
            "quick": settings.quick,
            "options": list(settings.options),
            "groups": list(groups),
            "seconds": round(seconds, 1),
        },
        "rows": rows,
        "goals": [
            {
                "name": item.goal.name,
                "value": item.value,
                "target": item.goal.target,
                "least": item.goal.least,
                "unit": item.goal.unit,
                "option": item.option,
                "verdict": item.word,
            }
            for item in verdicts(rows, settings.device)
        ],
    }


def chosen(only: Sequence[str]) -> tuple[str, ...]:
    """The groups that are asked for, in the order of `GROUPS`; all that there are if none is.

    Raises:
        AvsegError: a group that there is not.
    """
    there = [group for group in GROUPS if find_spec(f"benchmarks.{group}") is not None]
    for name in only:
        if name not in there:
            raise AvsegError(f"--only: '{name}' is no group of benchmarks: there are {', '.join(there)}.")
    return tuple(group for group in there if not only or group in only)


def _measure(group: str, settings: Settings) -> list[Row]:
    measure: Callable[..., list[Row]] = import_module(f"benchmarks.{group}").measure
    try:
        if group not in _WITH_QUICK_ALONE:
            return measure(settings)
        settings.tell(f"{group}")
        return [_row(group, row) for row in measure(quick=settings.quick)]
    except OutOfMemory:
        settings.tell(f"{group}: stopped, since it does not fit into memory")
        return []


def _row(group: str, row: Row) -> Row:
    """A row of a group that calls its own number ``value`` and does not name itself."""
    row = dict(row)
    if "value" in row:
        row["ours"] = row.pop("value")
    return {"group": group, **row}


def machine(settings: Settings) -> dict[str, Any]:
    """The machine, the versions and how busy it was; no name of a host."""
    memory = ""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        memory = f"{int(meminfo.read_text().split()[1]) / 2**20:.0f} GiB"
    return {
        **provenance(),
        "numpy": version("numpy"),
        "opencv": _opencv(),
        "memory": memory,
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", ""),
        "device": torch.cuda.get_device_name(settings.device) if settings.gpu else "cpu",
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }


def _opencv() -> str:
    import cv2

    return str(cv2.__version__)
