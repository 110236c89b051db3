"""A small AVSBench on disk for tests: real mp4 files with an AAC track, masks and CSVs, in the published layout."""

import os
import shutil
import signal
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest

from avseg.config import InputConfig
from avseg.data.avsbench import (
    avsbench,
    distant_folder,
    distant_frames,
    frame_times,
    read_frames,
    video_frames,
    write_index,
)
from avseg.data.clip import DistantBatch, LabelledBatch
from avseg.data.frames import Frame, Subset, by_video
from avseg.data.rows import FlowSource, batch_of, read_row
from avseg.media.images import write_mask

Video = tuple[Frame, ...]

CATEGORIES = ("dog_barking", "helicopter")


def disc_at(time: float, number: int, size: int) -> tuple[int, int, int]:
    """Centre x, y and radius of the disc that a video shows at ``time``: it moves 0.1 of the image a second."""
    return round(size * (0.25 + 0.1 * time)), round(size * (0.3 + 0.1 * (number % 4))), max(4, size // 6)


def write_mp4(
    path: Path,
    *,
    number: int = 0,
    seconds: float = 5.0,
    size: tuple[int, int] = (64, 64),
    fps: int = 8,
    sound: float | None = None,
    frames: int | None = None,
) -> None:
    """Write an H.264 mp4 of a bright disc moving over a dim texture.

    Args:
        path: The file; its folder is made.
        number: Which video: sets colours, the disc's height and the pitch of its tone.
        seconds: Length of the images.
        size: (width, height), even numbers.
        fps: Frames a second.
        sound: Seconds of AAC sound; None: as long as the images; 0: no track.
        frames: Number of frames in place of ``seconds``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = seconds if sound is None else sound
    rng = np.random.default_rng(number)
    texture = cv2.resize(rng.integers(20, 110, (8, 8, 3), dtype=np.uint8), size, interpolation=cv2.INTER_CUBIC)
    colour = tuple(int(c) for c in rng.integers(160, 256, 3))
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps)
        video.width, video.height = size
        video.pix_fmt = "yuv420p"
        video.options = {"crf": "20", "preset": "ultrafast", "threads": "1"}
        audio = container.add_stream("aac", rate=16000, layout="mono") if sound else None
        for i in range(round(seconds * fps) if frames is None else frames):
            x, y, radius = disc_at(i / fps, number, 1024)
            scaled = (x * size[0] // 1024, y * size[1] // 1024), (radius * size[0] // 1024, radius * size[1] // 1024)
            image = cv2.ellipse(texture.copy(), scaled[0], scaled[1], 0, 0, 360, colour, -1)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = i
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            time = np.arange(round(sound * 16000)) / 16000
            tone = 0.3 * np.sin(2 * np.pi * (300 + 150 * number) * time) + 0.01 * rng.standard_normal(len(time))
            for start in range(0, len(tone), 1024):
                piece = av.AudioFrame.from_ndarray(tone[None, start : start + 1024].astype(np.float32), "fltp", "mono")
                piece.sample_rate, piece.pts, piece.time_base = 16000, start, Fraction(1, 16000)
                container.mux(audio.encode(piece))
            container.mux(audio.encode(None))


def write_two_tones(path: Path) -> None:
    """Write an mp4 of 3 seconds: 400 Hz up to 1.5 s, then 4,000 Hz."""
    write_mp4(path, seconds=3.0, sound=0)
    with av.open(str(path)) as container:
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    time = np.arange(48000) / 16000
    tone = (0.3 * np.sin(2 * np.pi * np.where(time < 1.5, 400, 4000) * time)).astype(np.float32)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=8)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        audio = container.add_stream("aac", rate=16000, layout="mono")
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = i
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for start in range(0, 48000, 1024):
            piece = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], "fltp", "mono")
            piece.sample_rate, piece.pts = 16000, start
            container.mux(audio.encode(piece))
        container.mux(audio.encode(None))


def disc_mask(k: int, number: int, size: int) -> np.ndarray:
    """``(size, size)`` bool: the disc of frame k."""
    x, y, radius = disc_at(frame_times()[k - 1], number, size)
    rows, columns = np.mgrid[:size, :size]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def read_videos(root: str | Path, subset: Subset) -> list[Video]:
    """The frames of each video of a subset."""
    return by_video(read_frames(avsbench(root, subset)))


def make_avsbench(
    root: str | Path,
    subset: Subset = "s4",
    videos: Mapping[str, int] | None = None,
    *,
    seconds: float = 5.0,
    size: int = 64,
    distant: int = 0,
    hidden: bool = False,
    prepared: bool = False,
    settings: Mapping[str, Mapping] | None = None,
) -> list[Video]:
    """Make a tiny AVSBench: raw videos, published masks and the CSV; return its index.

    Every video shows a moving disc (the object) and carries a tone; names begin with ``-`` now and then, as on
    YouTube. Takes about 50 ms a video, and as much again to prepare.

    Args:
        root: The folder that will hold ``Single-source/`` or ``Multi-sources/``.
        subset: ``s4`` or ``ms3``.
        videos: Videos of each split; by default 4 of ``train`` and 2 each of ``val`` and ``test``.
        seconds: Length of each.
        size: Side of raw videos, masks and frames.
        distant: MS3: so many unlabelled videos in ``VGGSound/``, listed in ``MS3_Extend/index.csv``.
        hidden: S4: also write the masks of unlabelled training frames to ``hidden_masks/``.
        prepared: Run `avseg.data.prepare.prepare` in this process.
        settings: Arguments of `write_mp4` for single videos, by name, such as ``{"s4_train_1": {"sound": 0}}``.
    """
    data = avsbench(root, subset)
    index: list[Video] = []
    for split, count in (videos or {"train": 4, "val": 2, "test": 2}).items():
        for i in range(count):
            name = f"{'-' if i == 0 else ''}{subset}_{split}_{i}"
            index.append(video_frames(data, name, split, CATEGORIES[i % 2] if subset == "s4" else ""))
    for number, video in enumerate(index):
        changes = (settings or {}).get(video[0].video, {})
        write_mp4(video[0].raw, **{"number": number, "seconds": seconds, "size": (size, size), **changes})
        for frame in video:
            if frame.labelled or hidden:
                write_mask(frame.mask if frame.labelled else frame.hidden_mask, disc_mask(frame.k, number, size))
    write_index(data, [frame for video in index for frame in video])
    if distant:
        _make_distant(distant_folder(root), distant, size)
    if prepared:
        from avseg.data.prepare import prepare

        report = prepare(root, subset, size=size, workers=1)
        assert not report.failures, report.failures
    return index


def _make_distant(folder: Path, count: int, size: int) -> None:
    data = distant_frames(folder)
    frames = [Frame(data, str(n), source=f"VGGSound/-vgg_{n}_000030.mp4") for n in range(1, count + 1)]
    for n, frame in enumerate(frames):
        write_mp4(frame.raw, number=n + 3, seconds=3, size=(size, size))
    write_index(data, frames)


def ffmpeg(folder: Path, *words: str | Path) -> bytes:
    """Run FFmpeg's program in a folder and return what it prints; a test that asks for it is skipped where it isn't.

    With ``AVSEG_NEED_FFMPEG=1``, as continuous integration has it, none may be skipped.
    """
    if shutil.which("ffmpeg") is None and os.environ.get("AVSEG_NEED_FFMPEG") != "1":
        pytest.skip("needs the program ffmpeg")
    command = ["ffmpeg", "-v", "error", "-y", *map(str, words)]
    return subprocess.run(command, cwd=folder, check=True, timeout=60, stdout=subprocess.PIPE).stdout


def hears_ctrl_c() -> None:
    """In a process that is about to start: heed SIGINT, also where the tests themselves run in a shell's background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def load_clip(
    video: Sequence[Frame],
    ks: Iterable[int],
    inputs: InputConfig,
    flow: FlowSource = "computed",
    hidden: bool = False,
    labelled: Collection[int] | None = None,
) -> SimpleNamespace:
    """Some frames of a video, read from their files: the fields of a batch, without its first dimension.

    Args:
        video: Its frames.
        ks: Numbers of those that are wanted.
        inputs: Of a model.
        flow: Which flow.
        hidden: Also read hidden masks.
        labelled: Frames whose masks may be read; None: all that have one.
    """
    clip = [video[k - 1] for k in ks]
    if labelled is not None:
        clip = [replace(frame, labelled=frame.k in labelled) for frame in clip]
    kind = LabelledBatch if hidden or any(frame.labelled for frame in clip) else DistantBatch
    batch = batch_of([clip], lambda frame: read_row(frame, inputs, flow, hidden), inputs, kind)
    found = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return SimpleNamespace(**{name: value if value is None else value[0] for name, value in found.items()})
