"""Videos that the tests of inference are run on, and how a mask is compared."""

from pathlib import Path

import numpy as np
from helpers import disc_at

from avseg.media.writer import write_video


def disc(time: float, width: int, height: int) -> np.ndarray:
    """Where `helpers.write_mp4` draws its disc."""
    x, y, radius = disc_at(time, 0, 1024)
    rows, columns = np.mgrid[:height, :width]
    across = (columns - x * width / 1024) / (radius * width / 1024)
    down = (rows - y * height / 1024) / (radius * height / 1024)
    return across**2 + down**2 <= 1


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def write_late(path: Path) -> None:
    """4 s, 10 fps: two seconds of silence, then noise of level 0.2."""
    sound = np.concatenate([np.zeros(32000), np.random.default_rng(0).normal(0, 0.2, 32000)]).astype(np.float32)
    write_video(path, [np.full((32, 32, 3), 90, np.uint8)] * 40, 10, audio=sound, sample_rate=16000)
