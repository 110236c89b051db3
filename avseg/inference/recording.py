"""Frames and sound that are no video file: arrays in memory, or a folder of images with a sound file."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from avseg.errors import AvsegError
from avseg.media.audio import SAMPLE_RATE, load_audio
from avseg.media.container import noted
from avseg.media.images import read_image

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
SOUNDS = (".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac")


@dataclass(frozen=True, eq=False)
class Recording:
    """Frames with the sound that belongs to them.

    Attributes:
        frames: ``(N, H, W, 3)`` uint8 RGB, or any sequence of ``(H, W, 3)`` arrays of one size.
        frame_rate: Frames per second.
        wave: ``(n,)`` or ``(n, channels)`` float in [−1, 1]; its first sample is heard at the first frame.
        sample_rate: Samples per second of ``wave``.
        times: ``(N,)`` seconds at which each frame begins, rising from 0; None is one every ``1 / frame_rate``.
        name: What it is called in messages and where results are written.
        sound: A file that ``wave`` is the sound of, whose own track goes into videos that are written.
        notes: Sentences about what a person should know of how it was read.

    Raises:
        AvsegError: no frames, or arrays of another form.
    """

    frames: Sequence[Any] | np.ndarray
    frame_rate: float
    wave: np.ndarray
    sample_rate: int = 16_000
    times: np.ndarray | None = None
    name: str = "recording"
    sound: Path | None = None
    notes: tuple[str, ...] = ()
    shape: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        if not (_number(self.frame_rate) and 0 < self.frame_rate <= 1000):
            raise AvsegError(f"{self.name}: frame_rate is {self.frame_rate}: give frames per second, above 0.")
        if isinstance(self.frames, np.ndarray) and self.frames.ndim != 4:
            raise AvsegError(f"{self.name}: frames are {self.frames.shape}: give (N, H, W, 3) uint8, or a list.")
        if len(self.frames) == 0:
            raise AvsegError(f"{self.name} has no frames: give at least one.")
        wave = np.asarray(self.wave)
        if wave.ndim not in (1, 2) or len(wave) == 0 or (wave.ndim == 2 and not 1 <= wave.shape[1] <= 8):
            raise AvsegError(f"{self.name}: the sound is {wave.shape}: give (samples,) or (samples, channels).")
        if not np.issubdtype(wave.dtype, np.floating) or not np.isfinite(wave).all():
            raise AvsegError(f"{self.name}: the sound must be finite floats in [-1, 1]: divide 16-bit values by 32768.")
        if not (_number(self.sample_rate) and self.sample_rate >= 1):
            raise AvsegError(f"{self.name}: sample_rate is {self.sample_rate}: give samples per second.")
        begins = np.arange(len(self.frames)) / self.frame_rate if self.times is None else np.asarray(self.times, float)
        if begins.shape != (len(self.frames),) or begins[0] != 0 or not (np.diff(begins) > 0).all():
            raise AvsegError(f"{self.name}: times must be one for each frame, rising from 0.")
        object.__setattr__(self, "wave", wave)
        object.__setattr__(self, "sample_rate", int(self.sample_rate))
        object.__setattr__(self, "times", begins)
        object.__setattr__(self, "shape", np.shape(self.frames[0])[:2])
        self.frame(0)

    def frame(self, index: int) -> np.ndarray:
        """Frame ``index``, ``(H, W, 3)`` uint8.

        Raises:
            AvsegError: it has another type or size than the first.
        """
        frame = np.asarray(self.frames[index])
        if frame.dtype != np.uint8 or frame.shape != (*self.shape, 3):
            raise AvsegError(
                f"{self.name}: frame {index} is {frame.shape} {frame.dtype}: give (H, W, 3) uint8, all of one size."
            )
        return frame

    @property
    def begins(self) -> np.ndarray:
        """``(N,)`` seconds at which each frame begins."""
        assert self.times is not None
        return self.times

    @property
    def duration(self) -> float:
        """Seconds from the first frame to the end of the last."""
        return float(self.begins[-1]) + 1 / self.frame_rate

    @classmethod
    def from_folder(cls, folder: str | Path, frame_rate: float | None = None) -> "Recording":
        """Numbered images and one sound file in a folder; images are read when they are looked at.

        Images come in the order of the number that varies in their names, or of all of them from left to right where
        several do (``take2_9.png`` before ``take2_10.png`` before ``take10_1.png``). Names such as
        ``000012_0.480.png``, a number and seconds, say when each begins (counted from the first), unless a rate is
        given. With neither the images are spread evenly over the sound.

        Args:
            folder: Holds png, jpg, bmp or webp images and one wav, mp3, flac, ogg, opus, m4a or aac file.
            frame_rate: Images per second.

        Raises:
            AvsegError: no images, no or several sound files, names without numbers, or files that can't be read.
        """
        folder = Path(folder)
        pictures, sounds = listing(folder)
        if not pictures:
            raise AvsegError(f"{folder} holds no images: give numbered png or jpg files and a sound file.")
        if len(sounds) != 1:
            found = f"{len(sounds)} sound files" if sounds else "no sound file"
            raise AvsegError(f"{folder} holds {found}: put exactly one beside the images, such as sound.wav.")
        paths = _in_order(pictures)
        notes: list[str] = []
        with noted(notes):
            wave = load_audio(sounds[0])
        times = None if frame_rate else _times_in_names(paths)
        if times is not None:
            frame_rate = (len(times) - 1) / float(times[-1])
        rate = frame_rate or len(paths) * SAMPLE_RATE / len(wave)
        return cls(_Pictures(paths), rate, wave, SAMPLE_RATE, times, str(folder), sounds[0], tuple(notes))


class _Pictures(Sequence[np.ndarray]):
    """Image files as a sequence of frames."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: Any) -> Any:
        try:
            return read_image(self._paths[index])
        except AvsegError as error:
            # The reader's advice is for a data set's frames.
            told = str(error).rpartition(": ")[0]
            raise AvsegError(f"{told}: copy that image again, or take it out of the folder.") from None


def listing(folder: Path) -> tuple[list[Path], list[Path]]:
    """Images and sound files that lie in a folder itself, by name."""
    if not folder.is_dir():
        raise AvsegError(f"{folder} is not a folder: check the path.")
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    pictures = [path for path in files if path.suffix.lower() in PICTURES]
    return pictures, [path for path in files if path.suffix.lower() in SOUNDS]


def _in_order(pictures: list[Path]) -> list[Path]:
    """Image files by the numbers in their names.

    Raises:
        AvsegError: no number in a name, or nothing that tells two of them apart.
    """
    found = {path: [int(number) for number in re.findall(r"\d+", path.stem)] for path in pictures}
    for path, numbers in found.items():
        if not numbers:
            raise AvsegError(f"{path} has no number in its name: number the images in their order.")
    if len({len(numbers) for numbers in found.values()}) > 1:
        # Only what stands first means the same in all of them.
        found = {path: numbers[:1] for path, numbers in found.items()}
    paths = sorted(pictures, key=found.__getitem__)
    for path, after in pairwise(paths):
        if found[path] == found[after]:
            raise AvsegError(f"{after} and {path.name} have one number: rename one of them.")
        if len(_decimals(path)) == len(_decimals(after)) and _decimals(path) > _decimals(after):
            raise AvsegError(f"{after} and {path.name} are ambiguous: give decimals one length, as 0.50 and 0.25.")
    return paths


def _decimals(path: Path) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", path.stem)]


def _times_in_names(paths: list[Path]) -> np.ndarray | None:
    found = [re.fullmatch(r"\D*\d+_(\d+\.\d+)s?", path.stem) for path in paths]
    if len(paths) < 2 or not all(found):
        return None
    times = np.array([float(match[1]) for match in found if match])
    return times - times[0] if (np.diff(times) > 0).all() else None


def _number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and math.isfinite(value)
