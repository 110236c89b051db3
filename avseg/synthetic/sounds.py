"""The sound of a scene: which stretches of a recording are heard when, and what the room does to them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from avseg.synthetic.knobs import Knobs
from avseg.synthetic.objects import Recording, read_recording

Sound = npt.NDArray[np.float32]
Stretch = tuple[float, float]

NOMINAL_DB = -20.0  # RMS of a source in dB of full scale, before its loudness is drawn
LEAD = 1.0  # seconds before the video begins, so that the first second is no beginning
TRIES = 20
BANDS = (100.0, 250.0, 600.0, 1500.0, 3500.0, 8000.0)  # Hz, of the equaliser
FADE = 0.015  # seconds, between two windows
GUARD = 0.025  # seconds left out at either side of a cut
BLOCK = 3.0  # seconds of a recording in which training and test each have a part
LONGEST = 2.0  # seconds of a window


@dataclass(frozen=True)
class Window:
    """One stretch of a recording: heard from ``at`` (seconds of the video) for ``length`` seconds.

    ``start`` is where it begins in the trimmed recording, in its own seconds.
    """

    at: float
    start: float
    length: float


@dataclass(frozen=True)
class Track:
    """What is heard of one object, before it is switched on and off."""

    recording: Recording
    windows: tuple[Window, ...]
    speed: float
    equaliser_db: tuple[float, ...]
    reverb: float
    reverb_seconds: float
    level_db: float
    stretches: tuple[Stretch, ...]
    shared: bool  # whether training and test hear the same stretches
    seed: int


@dataclass(frozen=True)
class Ambience:
    """The noise of the place: its RMS, the exponent of its spectrum, and its seed."""

    level_db: float
    exponent: float
    seed: int


def stretches_of(recording: Recording, training: bool, knobs: Knobs) -> tuple[tuple[Stretch, ...], bool]:
    """The parts of a recording that a split may play, in seconds of the trimmed recording, and whether it shares them.

    A recording of at least ``knobs.split_seconds`` is cut into blocks of about three seconds, and every block in
    two: 60 % for training and the rest for validation and test, a twentieth of a second between them. So both
    hear all of a recording's course, and no sample is in both. A shorter recording, or one where either would
    be left with what can hardly be heard, is shared whole.
    """
    sound = read_recording(recording, knobs.sample_rate)
    length = len(sound) / knobs.sample_rate
    if length >= knobs.split_seconds:
        blocks = max(1, int(length / BLOCK))
        edges = np.linspace(0, length, blocks + 1)
        first_is_training = sum(recording.name.encode()) % 2 == 0
        parts: tuple[list[Stretch], list[Stretch]] = [], []
        for start, end in itertools.pairwise(float(e) for e in edges):
            cut = start + (end - start) * (0.6 if first_is_training else 0.4)
            parts[0].append((start + GUARD, cut - GUARD))
            parts[1].append((cut + GUARD, end - GUARD))
        heard = [[p for p in side if _rms(_cut(sound, p, knobs)) > 0.3 * _rms(sound)] for side in parts]
        if all(heard):
            return tuple(heard[0 if training == first_is_training else 1]), False
    return ((0.0, length),), True


def draw_track(
    rng: np.random.Generator,
    recording: Recording,
    training: bool,
    sounding: Sequence[bool],
    knobs: Knobs,
    level_db: float,
    noise_db: float,
) -> Track:
    """Draw what is heard of an object: windows, pitch, equaliser and reverb.

    Windows are drawn again until every sounding second is above ``knobs.audible_db`` and not below the
    ambience; if no draw reaches it, all windows come from the recording's loudest place.

    Args:
        rng: the video's generator.
        recording: whose sound.
        training: whether the training stretches are played.
        sounding: for every second whether it is heard.
        knobs: the settings.
        level_db: RMS of the sounding seconds, in dB of full scale.
        noise_db: RMS of the ambience, in dB of full scale.
    """
    stretches, shared = stretches_of(recording, training, knobs)
    draw: dict[str, Any] = {
        "recording": recording,
        "speed": float(2 ** (rng.uniform(-knobs.pitch, knobs.pitch) / 12)),
        "equaliser_db": tuple(float(v) for v in rng.uniform(-knobs.equaliser_db, knobs.equaliser_db, len(BANDS))),
        "reverb": float(rng.uniform(0, knobs.reverb)),
        "reverb_seconds": float(rng.uniform(0.1, 0.4)),
        "level_db": level_db,
        "stretches": stretches,
        "shared": shared,
        "seed": int(rng.integers(2**31)),
    }
    # no recording is even enough for every second to be as loud as the whole: 3 dB below is always enough
    floor = max(knobs.audible_db, min(noise_db, level_db - 3)) - level_db
    heard = np.flatnonzero(sounding) if any(sounding) else np.arange(knobs.seconds)
    best: Track | None = None
    best_margin = -np.inf
    for attempt in range(TRIES + 1):
        loudest = attempt == TRIES
        windows = _draw_windows(rng, recording, stretches, draw["speed"], knobs, loudest)
        track = Track(windows=windows, **draw)
        margin = seconds_db(_play(track, knobs), knobs)[heard].min() - floor
        if margin > best_margin:
            best, best_margin = track, margin
        if margin > 0:
            break
    assert best is not None
    return best


def render_track(track: Track, sounding: Sequence[bool], knobs: Knobs) -> Sound:
    """The track through equaliser and reverb, at its level, ``seconds * sample_rate`` samples, not switched.

    The level is that of the sounding seconds.
    """
    dry = _play(track, knobs)
    size = 1 << (len(dry) + knobs.sample_rate // 2).bit_length()
    spectrum = np.fft.rfft(dry, size)
    frequencies = np.fft.rfftfreq(size, 1 / knobs.sample_rate)
    gain = np.interp(np.log(np.maximum(frequencies, 20)), np.log(BANDS), track.equaliser_db)
    spectrum *= 10 ** (gain / 20) * (1 - track.reverb + track.reverb * _room(track, size, knobs))
    wet = np.fft.irfft(spectrum, size)[: len(dry)][_lead(knobs) :]
    heard = np.repeat(np.asarray(sounding if any(sounding) else [True] * knobs.seconds), knobs.sample_rate)
    return np.asarray(wet * (_gain(track.level_db) / max(_rms(wet[heard]), 1e-6)), dtype=np.float32)


def gate(sounding: Sequence[bool], rate: int, ramp: float = 0.04) -> Sound:
    """1 where the object sounds and 0 where not, ``rate`` values a second, with ramps of ``ramp`` seconds."""
    on = np.repeat(np.asarray(sounding, dtype=np.float32), rate)
    width = max(1, int(ramp * rate))
    padded = np.pad(on, (width // 2, width - 1 - width // 2), mode="edge")
    return np.asarray(np.convolve(padded, np.ones(width) / width, mode="valid"), dtype=np.float32)


def render_ambience(ambience: Ambience, knobs: Knobs) -> Sound:
    """Coloured noise that slowly swells and fades."""
    rng = np.random.default_rng(ambience.seed)
    samples = knobs.seconds * knobs.sample_rate
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequencies = np.fft.rfftfreq(samples, 1 / knobs.sample_rate)
    noise = np.fft.irfft(spectrum * np.maximum(frequencies, 50) ** (-ambience.exponent / 2), samples)
    swell = np.interp(np.linspace(0, 1, samples), np.linspace(0, 1, 16), rng.uniform(0.7, 1.3, 16))
    noise *= swell
    return np.asarray(noise * (_gain(ambience.level_db) / _rms(noise)), dtype=np.float32)


def mix(tracks: Sequence[tuple[Track, Sequence[bool]]], ambience: Ambience, knobs: Knobs) -> Sound:
    """The whole sound of a scene: every track switched by its sounding seconds, plus the ambience."""
    total = render_ambience(ambience, knobs).copy()
    for track, sounding in tracks:
        total += render_track(track, sounding, knobs) * gate(sounding, knobs.sample_rate)
    peak = float(np.abs(total).max())
    return total if peak <= 0.98 else np.asarray(total * (0.98 / peak), dtype=np.float32)


def envelope(track: Track, knobs: Knobs) -> npt.NDArray[np.float64]:
    """Loudness of a track at every frame: smoothed RMS, 1 at its 95th percentile. Shape (frames,)."""
    sound = _play(track, knobs)[_lead(knobs) :]
    hop = knobs.sample_rate // knobs.fps
    level = np.sqrt((sound[: knobs.frames * hop].reshape(knobs.frames, hop) ** 2).mean(1))
    padded = np.pad(level, 1, mode="edge")
    level = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return np.clip(level / max(float(np.percentile(level, 95)), 1e-6), 0, 1.3)


def seconds_db(sound: Sound, knobs: Knobs) -> npt.NDArray[np.float64]:
    """RMS of every second against that of the whole, in dB; a lead before the video is left out."""
    sound = sound[len(sound) - knobs.seconds * knobs.sample_rate :]
    power = (sound.reshape(knobs.seconds, -1).astype(np.float64) ** 2).mean(1)
    return 10 * np.log10(np.maximum(power, 1e-12) / max(float(power.mean()), 1e-12))


def _draw_windows(
    rng: np.random.Generator,
    recording: Recording,
    stretches: Sequence[Stretch],
    speed: float,
    knobs: Knobs,
    loudest: bool,
) -> tuple[Window, ...]:
    if loudest:
        stretches = [_loudest(recording, stretches, knobs)]
    lengths = np.array([(end - start) / speed for start, end in stretches])
    windows = []
    # the first window begins before the lead does, as far as any window may last: its phase is random
    at = -LEAD - float(rng.uniform(0, min(LONGEST, lengths.max())))
    while at < knobs.seconds:
        chosen = int(rng.choice(len(stretches), p=lengths / lengths.sum()))
        start, end = stretches[chosen]
        length = float(rng.uniform(0.5, 1.0)) * min(LONGEST, float(lengths[chosen]))
        windows.append(Window(at, float(rng.uniform(start, max(start, end - length * speed))), length))
        at += length - FADE + (0 if lengths.max() > 0.7 else float(rng.uniform(0, 0.2)))
    return tuple(windows)


def _loudest(recording: Recording, stretches: Sequence[Stretch], knobs: Knobs) -> Stretch:
    """The second of the stretches, or the whole stretch where they are shorter, with most power."""
    sound = read_recording(recording, knobs.sample_rate)
    pieces = []
    for start, end in stretches:
        starts = np.arange(start, max(start, end - 1.0) + 1e-6, 0.02)
        pieces += [(float(s), min(float(s) + 1.0, end)) for s in starts]
    return max(pieces, key=lambda piece: _rms(_cut(sound, piece, knobs)))


def _cut(sound: Sound, stretch: Stretch, knobs: Knobs) -> Sound:
    return sound[int(stretch[0] * knobs.sample_rate) : int(stretch[1] * knobs.sample_rate)]


def _play(track: Track, knobs: Knobs) -> Sound:
    rate = knobs.sample_rate
    sound = read_recording(track.recording, rate)
    out = np.zeros(_lead(knobs) + knobs.seconds * rate, dtype=np.float32)
    fade = int(FADE * rate)
    for window in track.windows:
        count = int(window.length * rate)
        places = window.start * rate + np.arange(count) * track.speed
        before = np.minimum(places.astype(np.int64), len(sound) - 2)
        heard = sound[before] + (places - before) * (sound[before + 1] - sound[before])
        ramp = np.minimum(1, (np.arange(count) + 1) / fade)
        heard *= ramp * ramp[::-1]
        first = int((window.at + LEAD) * rate)
        skip = max(0, -first)
        part = heard[skip : max(skip, len(out) - first)]
        out[first + skip : first + skip + len(part)] += part
    return out


def _room(track: Track, size: int, knobs: Knobs) -> npt.NDArray[np.complex128]:
    rng = np.random.default_rng(track.seed)
    taps = int(track.reverb_seconds * knobs.sample_rate)
    response = rng.standard_normal(taps) * np.exp(-6.9 * np.arange(taps) / taps)
    response /= np.sqrt((response**2).sum())
    return np.fft.rfft(response, size)


def _lead(knobs: Knobs) -> int:
    return int(LEAD * knobs.sample_rate)


def _gain(level_db: float) -> float:
    return float(10 ** (level_db / 20))


def _rms(sound: npt.NDArray) -> float:
    return float(np.sqrt((sound.astype(np.float64) ** 2).mean())) if sound.size else 0.0
