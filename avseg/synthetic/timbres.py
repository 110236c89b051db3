"""Sounds of the built-in objects, by synthesis: each category its own timbre, whatever the pitch."""

import zlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

REVISION = "timbres-1"
"""Changes whenever a sound does: it is part of the benchmark's hash."""

TIMBRES = 3
SECONDS = 8.0

Sound = npt.NDArray[np.float64]
Rng = np.random.Generator


def timbres(category: str) -> tuple[str, ...]:
    """Names of the recordings of a category."""
    return tuple(f"{category}-{i}" for i in range(TIMBRES))


def play(name: str, sample_rate: int) -> npt.NDArray[np.float32]:
    """Synthesise a recording by its name, 8 seconds mono; the same name gives the same sound."""
    category, number = name.rsplit("-", 1)
    rng = np.random.default_rng([zlib.crc32(category.encode()), int(number), 7])
    sound = _PLAY[category](rng, np.arange(int(SECONDS * sample_rate)) / sample_rate)
    return (sound / np.abs(sound).max() * 0.9).astype(np.float32)


def _events(rng: Rng, low: float, high: float) -> list[float]:
    """Uneven moments over the recording, ``low`` to ``high`` seconds apart."""
    at, moments = float(rng.uniform(0, low)), []
    while at < SECONDS:
        moments.append(at)
        at += float(rng.uniform(low, high))
    return moments


def _add(total: Sound, time: Sound, at: float, event: Sound) -> None:
    first = int(at / (time[1] - time[0]))
    part = event[: len(total) - first]
    total[first : first + len(part)] += part


def _local(time: Sound, seconds: float) -> Sound:
    return time[: int(seconds / (time[1] - time[0]))]


def _band(noise: Sound, time: Sound, low: float, high: float) -> Sound:
    """Noise between two frequencies, with soft edges."""
    spectrum = np.fft.rfft(noise)
    frequencies = np.fft.rfftfreq(len(noise), time[1] - time[0])
    shape = 1 / (1 + (low / np.maximum(frequencies, 1)) ** 6) / (1 + (frequencies / high) ** 6)
    return np.fft.irfft(spectrum * shape, len(noise))


def _harmonics(phase: Sound, weights: npt.NDArray, top: int = 24) -> Sound:
    """Sum of harmonics of a phase (in turns), weighted."""
    return np.asarray(sum(w * np.sin(2 * np.pi * (n + 1) * phase) for n, w in enumerate(weights[:top])))


def _phase(frequency: Sound, time: Sound) -> Sound:
    return np.cumsum(frequency) * (time[1] - time[0])


def _siren_truck(rng: Rng, time: Sound) -> Sound:
    low, high = rng.uniform(500, 650), rng.uniform(1100, 1500)
    turn = np.sin(2 * np.pi * time / rng.uniform(1.2, 3.0))
    sweep = turn if rng.random() < 0.6 else np.tanh(8 * turn)
    frequency = low + (high - low) * (0.5 + 0.5 * sweep)
    return _harmonics(_phase(frequency, time), 1 / np.arange(1, 6) ** rng.uniform(0.8, 1.5))


def _drum(rng: Rng, time: Sound) -> Sound:
    total = np.zeros_like(time)
    pitch = rng.uniform(70, 140)
    for at in _events(rng, 0.18, 0.5):
        t = _local(time, 0.4)
        sweep = _phase(pitch * (1 + 1.2 * np.exp(-t / 0.02)), t)
        skin = np.sin(2 * np.pi * sweep) * np.exp(-t / rng.uniform(0.06, 0.12))
        hit = rng.standard_normal(len(t)) * np.exp(-t / 0.015) * 0.4
        _add(total, time, at, (skin + hit) * rng.uniform(0.5, 1))
    return total


def _bird(rng: Rng, time: Sound) -> Sound:
    total = np.zeros_like(time)
    base = rng.uniform(2600, 4200)
    for at in _events(rng, 0.12, 0.45):
        t = _local(time, float(rng.uniform(0.06, 0.2)))
        slope, trill = rng.uniform(-0.5, 0.5), rng.uniform(15, 45)
        bend = 1 + slope * t / t[-1] + 0.12 * np.sin(2 * np.pi * trill * t)
        _add(total, time, at, np.sin(2 * np.pi * _phase(base * bend, t)) * np.hanning(len(t)))
    return total


def _guitar(rng: Rng, time: Sound) -> Sound:
    total = np.zeros_like(time)
    bright, decay = rng.uniform(0.7, 1.4), rng.uniform(0.3, 0.8)
    for at in _events(rng, 0.2, 0.45):
        t = _local(time, 1.5)
        note = 110 * 2 ** (rng.integers(0, 25) / 12)
        partials = np.arange(1, 16)
        fade = np.exp(-t[:, None] * partials**0.7 / decay)
        tone = np.sin(2 * np.pi * note * partials * t[:, None]) * fade / partials**bright
        _add(total, time, at, tone.sum(1) * np.minimum(t / 0.003, 1) * rng.uniform(0.5, 1))
    return total


def _tractor(rng: Rng, time: Sound) -> Sound:
    rate = rng.uniform(14, 24) * (1 + 0.06 * np.sin(2 * np.pi * 0.4 * time + rng.uniform(0, 6)))
    beat = (_phase(rate, time) % 1) / rate
    knock = np.exp(-beat / 0.012) * np.sin(2 * np.pi * rng.uniform(60, 95) * beat)
    rattle = _band(rng.standard_normal(len(time)), time, 300, 1500) * np.exp(-beat / 0.008)
    return knock + 0.35 * rattle / rattle.std() * knock.std()


def _bell(rng: Rng, time: Sound) -> Sound:
    total = np.zeros_like(time)
    base = rng.uniform(420, 800)
    ratios = np.array([0.5, 1.0, 1.19, 1.5, 2.0, 2.74, 3.76, 5.4])
    for at in _events(rng, 0.5, 1.0):
        t = _local(time, 2.0)
        fade = np.exp(-t[:, None] * ratios / 0.7)
        tone = (np.sin(2 * np.pi * base * ratios * t[:, None]) * fade / ratios**0.4).sum(1)
        _add(total, time, at, tone * np.minimum(t / 0.002, 1) * rng.uniform(0.6, 1))
    return total


def _dog(rng: Rng, time: Sound) -> Sound:
    total = np.zeros_like(time)
    pitch, formant = rng.uniform(180, 320), rng.uniform(700, 1100)
    for at in _events(rng, 0.3, 0.7):
        t = _local(time, float(rng.uniform(0.14, 0.24)))
        phase = _phase(pitch * (1 + 0.5 * np.sin(np.pi * t / t[-1])), t)
        partials = np.arange(1, 20)
        weights = np.exp(-(((partials * pitch - formant) / 600) ** 2)) + 0.1 / partials
        bark = _harmonics(phase, weights) + 0.5 * _band(rng.standard_normal(len(t)), t, 500, 2000)
        _add(total, time, at, bark * np.abs(np.sin(np.pi * t / t[-1])) ** 0.6 * rng.uniform(0.6, 1))
    return total


def _bee(rng: Rng, time: Sound) -> Sound:
    wander = np.interp(time, np.linspace(0, SECONDS, 40), rng.uniform(0.85, 1.15, 40))
    phase = _phase(rng.uniform(180, 240) * wander, time)
    buzz = _harmonics(phase, 1 / np.arange(1, 21) ** 0.7, 20)
    near = np.interp(time, np.linspace(0, SECONDS, 20), rng.uniform(0.35, 1, 20))
    return buzz * near * (1 + 0.3 * np.sin(2 * np.pi * 28 * time))


def _horn(rng: Rng, time: Sound) -> Sound:
    total = np.zeros_like(time)
    for at in _events(rng, 0.35, 0.8):
        t = _local(time, float(rng.uniform(0.3, 0.7)))
        note = 220 * 2 ** (rng.integers(0, 13) / 12) * (1 + 0.008 * np.sin(2 * np.pi * 5.5 * t))
        attack = np.minimum(t / 0.06, 1)
        partials = np.arange(1, 15)
        weights = partials**-0.3 * np.exp(-partials / rng.uniform(5, 7))
        tone = sum(
            w * np.sin(2 * np.pi * n * _phase(note, t)) * attack ** (1 + n / 4)
            for n, w in zip(partials, weights, strict=True)
        )
        _add(total, time, at, np.asarray(tone) * np.minimum((t[-1] - t) / 0.05, 1))
    return total


def _clock(rng: Rng, time: Sound) -> Sound:
    total = np.zeros_like(time)
    period, pitch = rng.uniform(0.11, 0.2), rng.uniform(2200, 3200)
    for i in range(int(SECONDS / period)):
        t = _local(time, 0.05)
        click = rng.standard_normal(len(t)) * np.exp(-t / 0.003)
        ring = np.sin(2 * np.pi * pitch * (1 if i % 2 else 0.8) * t) * np.exp(-t / 0.008)
        _add(total, time, i * period, click * 0.5 + ring)
    return total


def _frog(rng: Rng, time: Sound) -> Sound:
    total = np.zeros_like(time)
    carrier = rng.uniform(480, 750)
    for at in _events(rng, 0.35, 0.7):
        t = _local(time, float(rng.uniform(0.22, 0.38)))
        pulses = np.maximum(0, np.sin(2 * np.pi * rng.uniform(32, 48) * t)) ** 3
        tone = np.sin(2 * np.pi * carrier * t) + 0.6 * np.sin(2 * np.pi * 2.4 * carrier * t)
        _add(total, time, at, tone * pulses * np.abs(np.sin(np.pi * t / t[-1])) ** 0.5)
    return total


def _kettle(rng: Rng, time: Sound) -> Sound:
    steam = _band(rng.standard_normal(len(time)), time, rng.uniform(2500, 3500), 7500)
    bubbles = _band(rng.standard_normal(len(time)), time, 150, 500)
    swell = np.interp(time, np.linspace(0, SECONDS, 24), rng.uniform(0.5, 1, 24))
    return steam / steam.std() * swell + 0.3 * bubbles / bubbles.std()


_PLAY: dict[str, Callable[[Rng, Sound], Sound]] = {
    "siren_truck": _siren_truck,
    "drum": _drum,
    "bird": _bird,
    "guitar": _guitar,
    "tractor": _tractor,
    "bell": _bell,
    "dog": _dog,
    "bee": _bee,
    "horn": _horn,
    "clock": _clock,
    "frog": _frog,
    "kettle": _kettle,
}
