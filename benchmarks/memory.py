"""How peak memory is taken: on a CPU in a fresh process for each function, on a GPU from PyTorch's own account.

The child process is `python -m benchmarks.memory`; it gives freed memory back at once, so that what is resident
is what is in use.
"""

import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import Function, Settings, use_threads

MIB = 2**20
_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")
_SHARE = 0.8  # of the available memory that a measurement may take
# Without these glibc keeps freed memory, and its limit for what it keeps grows as it goes.
_GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "2"}


@dataclass(frozen=True)
class Peak:
    """The most memory that a call had in use, in MiB.

    Attributes:
        above: Above what was in use before the call: inputs, weights and optimiser states are not in it.
        total: With all that the process holds; on a GPU, all tensors.
        result: Of what the call returns.
    """

    above: float
    total: float
    result: float

    @property
    def between(self) -> float:
        """Beyond input and output."""
        return max(self.above - self.result, 0.0)


class OutOfMemory(Exception):
    """A function needs more memory than the machine has."""


def peak(module: str, spec: dict[str, Any], function: str, settings: Settings) -> Peak | None:
    """Peak memory of one function of a case; None where it cannot be measured or does not fit.

    Args:
        module: Has ``make(device, **spec)``, which gives makers of functions by name.
        spec: Of the case.
        function: Its name.
        settings: Device and threads.
    """
    if settings.gpu:
        return _peak_on_gpu(import_module(module).make(settings.device, **spec)[function]())
    if not _STATUS.exists():
        return None
    asked = json.dumps({"module": module, "spec": spec, "function": function, "threads": settings.threads})
    command = [sys.executable, "-m", "benchmarks.memory", asked]
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, **_GIVE_BACK, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        return None
    return Peak(**json.loads(done.stdout.splitlines()[-1]))


def _peak_on_gpu(function: Function) -> Peak | None:
    try:
        function()
        gc.collect()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        result = function()
        torch.cuda.synchronize()
    except torch.cuda.OutOfMemoryError:
        return None
    highest = torch.cuda.max_memory_allocated()
    return Peak((highest - before) / MIB, highest / MIB, size(result) / MIB)


def peak_here(function: Function) -> Peak:
    """Peak memory of a call in this process, which `peak` has started for it."""
    function()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = _status("VmRSS")
    _RESET.write_text("5")
    result = function()
    highest = _status("VmHWM")
    return Peak(max(highest - before, 0) / MIB, highest / MIB, size(result) / MIB)


def _status(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def size(value: Any) -> int:
    """Bytes of all tensors in a result."""
    if isinstance(value, Tensor):
        return value.untyped_storage().nbytes()
    if isinstance(value, dict):
        return sum(size(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return sum(size(item) for item in value)
    return sum(size(item) for item in vars(value).values()) if hasattr(value, "logits") else 0


@contextmanager
def bounded(gpu: bool = False) -> Iterator[None]:
    """Raise OutOfMemory within the block instead of letting the machine run out of memory.

    Args:
        gpu: Whether it is a GPU's memory that counts, which has a limit of its own.

    Raises:
        OutOfMemory: a tensor asked for more than most of what was available.
    """
    try:
        with nullcontext() if gpu or not _STATUS.exists() else _limited():
            yield
    except MemoryError as error:
        raise OutOfMemory from error
    except RuntimeError as error:
        if "allocate memory" in str(error) or "out of memory" in str(error):
            raise OutOfMemory from error
        raise


@contextmanager
def _limited() -> Iterator[None]:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    meminfo = Path("/proc/meminfo").read_text()
    line = next(line for line in meminfo.splitlines() if line.startswith("MemAvailable:"))
    limit = _status("VmData") + int(_SHARE * 1024 * int(line.split()[1]))
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def main() -> None:
    """What the child process does: one JSON object in, one out."""
    asked = json.loads(sys.argv[1])
    use_threads(asked["threads"])
    with bounded():
        # The makers, and with them what the other functions would need, are let go at once.
        found = peak_here(import_module(asked["module"]).make("cpu", **asked["spec"])[asked["function"]]())
    print(json.dumps({"above": found.above, "total": found.total, "result": found.result}))


if __name__ == "__main__":
    main()
