"""Where a number comes from: versions, revision, machine, date."""

import os
import platform
import re
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
    """The git revision of the source that runs, with + when it was changed since; empty outside avseg's own checkout.

    Where avseg was installed or copied into somebody else's repository, that repository's revision says nothing of it.
    """
    here = Path(__file__).resolve().parent
    # Variables of a git that runs us, as from a hook, would name its repository in place of this folder's.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()

    try:
        project = (here.parent / "pyproject.toml").read_text(encoding="utf-8")
        if not re.search(r'^name = "avseg"$', project, re.MULTILINE) or git("rev-parse", "--show-prefix") != "avseg/":
            return ""
        git("ls-files", "--error-unmatch", "provenance.py")
        # Of files that git doesn't know, those beside this one run with it; what lies elsewhere is the user's.
        changed = git("status", "--porcelain", "-uno") or git("ls-files", "--others", "--exclude-standard")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, UnicodeDecodeError, subprocess.CalledProcessError):
        return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
