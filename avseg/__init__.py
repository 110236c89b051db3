"""avseg: audio-visual segmentation with unlabeled frame exploitation.

Importing this package is quick: the names below are loaded when they are first used.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# PyTorch's OpenMP threads spin while they wait. On a busy machine with few cores that costs
# 4 to 20 times the work itself; it must be set before torch is imported anywhere.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# The same of NumPy's OpenBLAS, whose threads spin for 25 ms after each small product: 2^10 cycles in place of 2^26.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "10")

__version__ = "0.1.0"

if TYPE_CHECKING:
    from avseg.config import Config as Config
    from avseg.config import load_config as load_config
    from avseg.errors import AvsegError as AvsegError
    from avseg.inference.moments import Moment as Moment
    from avseg.inference.moments import Smoothing as Smoothing
    from avseg.inference.recording import Recording as Recording
    from avseg.inference.result import Result as Result
    from avseg.inference.segmenter import AVSegmenter as AVSegmenter
    from avseg.inference.video import SegmentReport as SegmentReport
    from avseg.inference.video import segment_video as segment_video
    from avseg.training.run import train as train

_HOMES = {
    "AVSegmenter": "avseg.inference.segmenter",
    "AvsegError": "avseg.errors",
    "Config": "avseg.config",
    "Moment": "avseg.inference.moments",
    "Recording": "avseg.inference.recording",
    "Result": "avseg.inference.result",
    "SegmentReport": "avseg.inference.video",
    "Smoothing": "avseg.inference.moments",
    "load_config": "avseg.config",
    "segment_video": "avseg.inference.video",
    "train": "avseg.training.run",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'avseg' has no attribute '{name}'")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
