"""A stretch of a file's sound as a file of its own, for a video that begins later than its source."""

import wave
from pathlib import Path

import numpy as np

from avseg.media.sound import iter_sound


def cut_sound(path: str | Path, target: str | Path, start: float, end: float | None = None) -> None:
    """Write the sound of ``[start, end)`` as a 16-bit WAV file, in bounded memory.

    Args:
        path: A file with a sound track, whose first picture is at 0 s.
        target: The WAV file; it has the source's channels and sample rate, and ends early where the sound does.
        start: Seconds.
        end: Seconds; None takes all that follows.

    Raises:
        AvsegError: no sound track.
    """
    with wave.open(str(target), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        opening = next(iter_sound(path), None)
        if opening is None:
            return
        # Its form is the file's, also where all sound ends before the stretch.
        rate = opening.rate
        file.setnchannels(len(opening.samples))
        file.setframerate(rate)
        reached = float(max(0, int(start) - 1))
        for block in iter_sound(path, int(reached)):
            if block.rate != rate or len(block.samples) != file.getnchannels():
                break  # a WAV file has one form from beginning to end
            count = block.samples.shape[1]
            first = max(0, round((start - reached) * rate))
            last = count if end is None else min(count, round((end - reached) * rate))
            reached += count / rate
            if first < last:
                values = np.clip(np.rint(block.samples[:, first:last].T * 2.0**15), -(2**15), 2**15 - 1)
                file.writeframes(values.astype("<i2").tobytes())
            if end is not None and reached >= end:
                break
