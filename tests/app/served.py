"""The page in a process of its own, as `avseg app` serves it, with toy models that mark what is bright."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from helpers import hears_ctrl_c
from toy_models import toy

from avseg.media.writer import write_video

TESTS = Path(__file__).parents[1]

# What the process does before it becomes `avseg app`: it knows the toy model, and notes whom it wants to reach.
BEFORE = """
import socket, sys
sys.path[:0] = [{tests!r}]
import toy_models
from avseg.cli import main

def noted(name):
    real = getattr(socket.socket, name)
    def connect(self, address, *rest):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1"):
            with open({log!r}, "a") as file:
                file.write(f"{{address}}\\n")
        return real(self, address, *rest)
    setattr(socket.socket, name, connect)

noted("connect")
noted("connect_ex")
asked = socket.getaddrinfo
def getaddrinfo(host, *rest, **more):
    if host not in ("127.0.0.1", "localhost", "::1", None):
        with open({log!r}, "a") as file:
            file.write(f"{{host}}\\n")
    return asked(host, *rest, **more)
socket.getaddrinfo = getaddrinfo
sys.exit(main({arguments!r}))
"""


@dataclass(frozen=True)
class Served:
    """A page that is being served.

    Attributes:
        address: Of the page.
        folder: The process's working folder, with models in ``runs/``.
        reached: A file that lists every other machine that the process wanted to reach.
        process: Which serves it.
    """

    address: str
    folder: Path
    reached: Path
    process: subprocess.Popen

    def strangers(self) -> str:
        return self.reached.read_text() if self.reached.exists() else ""


@contextmanager
def served(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[Served]:
    """Serve the page from ``folder`` until the block ends."""
    for name, reads in (("light", "light"), ("sound", "sound")):
        toy(reads).save_pretrained(folder / "runs" / name)
    log = folder / "reached.txt"
    given = ["app", "--port", "0", "--no-browser", "--device", "cpu", "--checkpoint", "runs/light", *arguments]
    script = BEFORE.format(tests=str(TESTS), log=str(log), arguments=given)
    with (folder / "errors.txt").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **(environment or {})},
            preexec_fn=hears_ctrl_c,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://[\w.:]+", line)
        assert found, f"{line}{(folder / 'errors.txt').read_text()}"
        yield Served(found[0], folder, log, process)
    finally:
        process.terminate()
        process.wait()


BARS = (0.45, 0.53, 0.6)
"""Brightness of three bars: the toy model gives them probabilities of 0.27, 0.65 and 0.88."""


def write_bars(path: Path, mirrored: bool = False, seconds: float = 3.0, sound: bool = True) -> np.ndarray:
    """A video, 192×96, of dark ground with three bars of different brightness, and noise; returns its frame.

    Args:
        path: The mp4.
        mirrored: The brightest bar stands on the left.
        seconds: Length; in the last second there is silence.
        sound: Whether there is a track.
    """
    frame = np.full((96, 192, 3), 20, np.uint8)
    for number, light in enumerate(BARS):
        frame[16:80, 16 + 56 * number : 64 + 56 * number] = round(255 * light)
    if mirrored:
        frame = frame[:, ::-1].copy()
    time = np.arange(round(seconds * 16000)) / 16000
    noise = (np.random.default_rng(0).normal(0, 0.2, len(time)) * (time < seconds - 1)).astype(np.float32)
    more = {"audio": noise, "sample_rate": 16000} if sound else {}
    write_video(path, [frame] * round(10 * seconds), 10, **more)
    return frame


def bar(number: int, mirrored: bool = False) -> tuple[slice, slice]:
    """Rows and columns well inside a bar."""
    left = 24 + 56 * (2 - number if mirrored else number)
    return slice(28, 68), slice(left, left + 32)
