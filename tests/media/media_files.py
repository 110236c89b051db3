"""Real media files, made when a test asks for them."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

_BLOCK = 16
_BITS = 8


def numbered_frame(number: int, width: int = 160, height: int = 96) -> np.ndarray:
    """A frame that carries its number (0 … 255) in eight squares along the top, black or white."""
    frame = np.full((height, width, 3), 90, dtype=np.uint8)
    x = number * 2 % (width - 20)
    frame[40:60, x : x + 20] = (200, 100, 50)
    for bit in range(_BITS):
        frame[:_BLOCK, bit * _BLOCK : (bit + 1) * _BLOCK] = 255 if number >> bit & 1 else 0
    return frame


def number_of(frame: np.ndarray) -> int:
    """The number that a frame of :func:`numbered_frame` carries, whatever was done to its quality."""
    squares = [frame[4:12, bit * _BLOCK + 4 : (bit + 1) * _BLOCK - 4].mean() for bit in range(_BITS)]
    return sum(int(square > 128) << bit for bit, square in enumerate(squares))


class MediaMaker:
    """Writes files with PyAV alone, so that reading is tested on files that the project's writer didn't make."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def video(
        self,
        name: str,
        times: Sequence[float],
        *,
        width: int = 160,
        height: int = 96,
        codec: str = "libx264",
        options: dict[str, str] | None = None,
        container_options: dict[str, str] | None = None,
        container_format: str | None = None,
        rotate: dict[str, object] | None = None,
        rate: Fraction | int = 25,
        time_base: Fraction = Fraction(1, 90_000),
        bframes: int = 0,
        sound: np.ndarray | None = None,
        sound_codec: str = "aac",
        sound_start: float = 0.0,
        sound_rate: int = 16_000,
    ) -> Path:
        """Numbered frames at the given times; ``sound`` is ``(channels, n)`` float32."""
        path = self.folder / name
        with av.open(str(path), "w", format=container_format, options=container_options or {}) as container:
            stream = container.add_stream(codec, rate=rate, options=options or {})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            if codec in ("mjpeg", "gif"):
                stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8"}[codec]
            stream.codec_context.time_base = time_base
            if bframes:
                stream.codec_context.max_b_frames = bframes
            if rotate:
                stream.set_display_rotation(**rotate)
            audio = None
            if sound is not None:
                layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(sound)]
                audio = container.add_stream(sound_codec, rate=sound_rate, layout=layout)
            for k, time in enumerate(times):
                frame = av.VideoFrame.from_ndarray(numbered_frame(k, width, height), format="rgb24")
                frame.pts, frame.time_base = round(time / time_base), time_base
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
            if audio is not None and sound is not None:
                block = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), format="fltp", layout=layout)
                block.sample_rate, block.time_base = sound_rate, Fraction(1, sound_rate)
                block.pts = round(sound_start * sound_rate)
                container.mux(audio.encode(block))
                container.mux(audio.encode(None))
        return path

    def sound(self, name: str, samples: np.ndarray, *, rate: int = 16_000, codec: str = "pcm_s16le") -> Path:
        """``samples`` is ``(channels, n)`` float32."""
        path = self.folder / name
        layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(samples)]
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=rate, layout=layout)
            block = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(samples, dtype=np.float32), format="fltp", layout=layout
            )
            block.sample_rate, block.pts, block.time_base = rate, 0, Fraction(1, rate)
            container.mux(stream.encode(block))
            container.mux(stream.encode(None))
        return path


def clicks(seconds: int, channels: int = 1, rate: int = 16_000) -> np.ndarray:
    """``(channels, n)`` float32: a short click in the middle of every second."""
    sound = np.zeros((channels, seconds * rate), dtype=np.float32)
    length = rate // 400
    for second in range(seconds):
        begin = second * rate + rate // 2 - length // 2
        sound[:, begin : begin + length] = 0.8 * np.hanning(length)
    return sound


def click_times(sound: np.ndarray, rate: int = 16_000) -> list[float]:
    """Moments, in seconds, at which ``(n,)`` sound holds a click."""
    loud = np.flatnonzero(np.abs(sound) > 0.2)
    groups = np.split(loud, np.flatnonzero(np.diff(loud) > rate // 10) + 1)
    return [float(group[np.abs(sound[group]).argmax()]) / rate for group in groups if len(group)]
