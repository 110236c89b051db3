"""Any sound -> 16 kHz mono -> VGGish log-mel examples, and WAV files."""

import wave as wave_file
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from avseg.config import AUDIO_OFFSET
from avseg.errors import AvsegError
from avseg.files import whole_file
from avseg.media.resample import Mixer, resample
from avseg.media.sound import check_form, iter_sound

SAMPLE_RATE = 16_000
"""Samples per second that VGGish's front end works at."""

EXAMPLE_SAMPLES = 15_600
"""Samples that one example needs at 16 kHz: 96 frames of 400 samples, one every 160."""

_FRAME = 400
_HOP = 160
_FFT = 512
_BANDS = 64
_FRAMES = 96
_LOG_OFFSET = 0.01


def load_audio(path: str | Path, sample_rate: int = SAMPLE_RATE, track: int | None = None) -> np.ndarray:
    """Sound of an audio or video file: mixed down to one channel, then resampled (see `avseg.media.resample.Mixer`).

    In a file with frames sample ``i`` is heard ``i / sample_rate`` seconds after the first frame: silence is
    put in front of a track that starts later, and what sounds before the first frame is dropped.

    Args:
        path: any file that PyAV reads.
        sample_rate: wanted samples per second.
        track: which audio track, counted from 0; the default one if not given.

    Returns:
        ``(n,)`` float32 in [−1, 1].

    Raises:
        AvsegError: the file is missing, unreadable, without a (or that) audio track, its sound states an impossible
            form, or nothing of it can be decoded.
    """
    pieces = list(iter_audio(path, sample_rate, track=track))
    sound = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.float32)
    if len(sound) == 0:
        raise AvsegError(f"{path} has a audio track without any sound that can be decoded: copy or convert it again.")
    return sound


def iter_audio(
    path: str | Path, sample_rate: int = SAMPLE_RATE, start: int = 0, track: int | None = None
) -> Iterator[np.ndarray]:
    """The same piece by piece, from a whole second on: `load_audio`'s samples from ``start * sample_rate`` on.

    After a jump into the file the first hundredth of a second may differ, since what came before isn't known.

    Args:
        path: any file that PyAV reads.
        sample_rate: wanted samples per second.
        start: seconds after the first frame.
        track: as in `load_audio`.

    Yields:
        ``(n,)`` float32 in [−1, 1]; nothing where the sound ends before ``start``.

    Raises:
        AvsegError: the file is missing, unreadable, or without a audio track.
    """
    mixer = Mixer(sample_rate)
    made = (mixer.push(block.samples, block.rate, block.layout) for block in iter_sound(path, start, track))
    for samples in chain(made, (mixer.finish() for _ in range(1))):
        if samples.shape[1]:
            yield np.clip(samples[0], -1, 1)


def log_mel_examples(wave: np.ndarray, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """VGGish's log-mel examples: 0.96 s each, without overlap; what is left at the end is dropped.

    Frames of 400 samples every 160 at 16 kHz, periodic Hann window, magnitude of a 512-point transform, 64 mel bands
    from 125 to 7,500 Hz, ``ln(x + 0.01)``; computed in float64 (Hershey et al., *CNN Architectures for Large-Scale
    Audio Classification*, 2017).

    Args:
        wave: ``(n,)`` or ``(n, channels)`` float in [−1, 1]; channels are averaged.
        sample_rate: its samples per second.

    Returns:
        ``(examples, 1, 96, 64)`` float32; no examples from fewer than 15,600 samples at 16 kHz.

    Raises:
        ValueError: another shape, or whole numbers instead of floats.
    """
    mono = _mono(wave, sample_rate)
    count = _example_count(len(mono))
    if count == 0:
        return np.zeros((0, 1, _FRAMES, _BANDS), dtype=np.float32)
    starts = np.arange(count) * _FRAMES * _HOP
    return _log_mel(mono, starts)


def frame_log_mel(wave: np.ndarray, count: int = 5, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """The sound of a clip's frames as AVSBench pairs them: example ``k`` belongs to frame ``k``.

    Examples don't overlap; the last is repeated up to ``count``, and further ones are cut off. Sound too short for one
    example is filled up with silence to 15,600 samples; no samples at all count as silence.

    Args:
        wave: as in :func:`log_mel_examples`.
        count: number of frames.
        sample_rate: samples per second of ``wave``.

    Returns:
        ``(count, 1, 96, 64)`` float32.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    mono = _padded(_mono(wave, sample_rate))
    available = _example_count(len(mono))
    order = np.minimum(np.arange(count), available - 1)
    examples = _log_mel(mono, np.arange(min(count, available)) * _FRAMES * _HOP)
    return examples[order]


def log_mel_at(
    wave: np.ndarray,
    times: Sequence[float] | np.ndarray,
    sample_rate: int = SAMPLE_RATE,
    offset: float = AUDIO_OFFSET,
) -> np.ndarray:
    """The example that belongs to each timestamp of a video, see :func:`window_starts`.

    Args:
        wave: as in :func:`log_mel_examples`. Sound shorter than one example is filled up with silence at its end.
        times: timestamps in seconds from the first sample.
        sample_rate: samples per second of ``wave``.
        offset: see :func:`window_starts`.

    Returns:
        ``(len(times), 1, 96, 64)`` float32.

    Raises:
        ValueError: a moment that isn't finite, or as in :func:`log_mel_examples`.
    """
    mono = _padded(_mono(wave, sample_rate))
    return _log_mel(mono, window_starts(times, len(mono), offset))


def window_starts(
    times: Sequence[float] | np.ndarray | float, samples: int, offset: float = AUDIO_OFFSET
) -> npt.NDArray[np.int64]:
    """Where the sound that belongs to timestamps is cut: the one rule for all videos but AVSBench's own frames.

    Those have windows end to end (:func:`frame_log_mel`). Frame 1 lies 0.4575 s behind the middle of its window, and so
    does any timestamp behind that of its own.

    Args:
        times: timestamps in seconds from the first sample at 16 kHz.
        samples: how many there are; windows are shifted inside them.
        offset: seconds from a moment to the middle of its window.

    Returns:
        ``(len(times),)``: the first of 15,600 samples.

    Raises:
        ValueError: a moment that isn't finite.
    """
    middles = np.asarray(times, dtype=np.float64).reshape(-1) + offset
    if not np.isfinite(middles).all():
        raise ValueError("times must be finite")
    starts = np.rint(middles * SAMPLE_RATE - EXAMPLE_SAMPLES / 2)
    return np.clip(starts, 0, max(0, samples - EXAMPLE_SAMPLES)).astype(np.int64)


def write_wav(path: str | Path, wave: np.ndarray, sample_rate: int = SAMPLE_RATE) -> None:
    """Write 16-bit PCM, whole or not at all.

    Args:
        path: a name that ends in ``.wav``.
        wave: ``(n,)`` or ``(n, channels)`` float; values outside [−1, 1) are clipped.
        sample_rate: samples per second.

    Raises:
        ValueError: another shape or type, or values that aren't finite.
    """
    _check_wave(wave)
    if not np.isfinite(wave).all():
        raise ValueError("wave holds values that aren't finite")
    values = np.clip(np.rint(np.asarray(wave, dtype=np.float64) * 2**15), -(2**15), 2**15 - 1).astype("<i2")
    with whole_file(path) as temporary, wave_file.open(str(temporary), "wb") as file:
        file.setnchannels(1 if values.ndim == 1 else values.shape[1])
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(values.tobytes())


def read_wav(path: str | Path) -> tuple[np.ndarray, int]:
    """Read 16-bit PCM, as :func:`write_wav` writes it. For any other file see :func:`load_audio`.

    Returns:
        ``(n,)``, or ``(n, channels)`` for more than one channel, float32 in [−1, 1); and the samples per second.

    Raises:
        AvsegError: the file is missing, isn't a 16-bit PCM WAV file, or states an impossible form.
    """
    try:
        with wave_file.open(str(path), "rb") as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            data = file.readframes(file.getnframes())
    except OSError as error:
        raise AvsegError(f"{path} can't be read ({error.strerror}): check the path.") from None
    except (wave_file.Error, EOFError, RuntimeError):  # the last from chunks that reach beyond each other
        raise AvsegError(f"{path} isn't a WAV file of 16-bit PCM: convert it.") from None
    check_form(path, rate, channels)
    if width != 2:
        raise AvsegError(f"{path} has {8 * width}-bit samples: convert it to 16-bit PCM.")
    # A file that was cut off may end within a sample.
    values = np.frombuffer(data[: len(data) // (2 * channels) * 2 * channels], dtype="<i2")
    sound = values.astype(np.float32) / 2**15
    return (sound if channels == 1 else sound.reshape(-1, channels)), rate


def _example_count(samples: int) -> int:
    frames = 1 + (samples - _FRAME) // _HOP if samples >= _FRAME else 0
    return frames // _FRAMES


def _padded(mono: np.ndarray) -> np.ndarray:
    return np.pad(mono, (0, max(0, EXAMPLE_SAMPLES - len(mono))))


def _check_wave(wave: np.ndarray) -> None:
    if wave.ndim not in (1, 2) or (wave.ndim == 2 and wave.shape[1] == 0):
        raise ValueError(f"wave must be (n,) or (n, channels), not {wave.shape}")
    if not np.issubdtype(wave.dtype, np.floating):
        raise ValueError(f"wave must hold floats in [-1, 1], not {wave.dtype}: divide 16-bit values by 32768")


def _mono(wave: np.ndarray, sample_rate: int) -> np.ndarray:
    _check_wave(wave)
    mono = wave.astype(np.float64) if wave.ndim == 1 else wave.mean(axis=1, dtype=np.float64)
    return resample(mono, sample_rate, SAMPLE_RATE)


def _log_mel(mono: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """``(len(starts), 1, 96, 64)`` float32: the example that begins at each sample."""
    window, bands = _hann(), _mel_matrix()
    out = np.empty((len(starts), 1, _FRAMES, _BANDS), dtype=np.float32)
    for k, start in enumerate(starts):
        stretch = mono[start : start + EXAMPLE_SAMPLES]
        frames = np.lib.stride_tricks.sliding_window_view(stretch, _FRAME)[::_HOP]
        magnitude = np.abs(np.fft.rfft(frames * window, _FFT))
        out[k, 0] = np.log(magnitude @ bands + _LOG_OFFSET)
    return out


@lru_cache(maxsize=1)
def _hann() -> np.ndarray:
    """``(400,)``: the periodic Hann window."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_FRAME) / _FRAME)


@lru_cache(maxsize=1)
def _mel_matrix() -> np.ndarray:
    """``(257, 64)``: triangles that are linear in mel, not normalised, with nothing from the DC bin."""

    def mel(hertz: np.ndarray) -> np.ndarray:
        return 1127 * np.log(1 + hertz / 700)

    lowest, highest = mel(np.array([125.0, 7500.0]))
    edges = np.linspace(lowest, highest, _BANDS + 2)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    bins = mel(np.arange(_FFT // 2 + 1) * SAMPLE_RATE / _FFT)[:, None]
    return np.maximum(0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)))
