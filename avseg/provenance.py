"""Where a number comes from: versions, revision, machine, date."""

import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import avseg


def provenance() -> dict[str, Any]:
    """Versions, revision and machine: what a number needs beside it."""
    return {
        "avseg": avseg.__version__,
        "revision": _revision(),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "lightning", "transformers")},
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
    }


def machine() -> str:
    """The machine in words: processor, cores, accelerator; no names of hosts."""
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    words = f"{processor}, {os.cpu_count()} cores"
    import torch

    if torch.cuda.is_available():
        words += f", {torch.cuda.get_device_name(0)}"
    return words


def _revision() -> str:
    """The git revision of the source that runs, with + when it was changed since; empty outside a checkout."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
