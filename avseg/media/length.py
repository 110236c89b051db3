"""How long the pictures of a file are shown, and how evenly."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from avseg.media.container import timeline
from avseg.media.pictures import PictureReader

# Seconds that sound may go on after the last picture without that picture being held for it.
_HELD = 0.5
# Share by which the rate that a file states may miss the number of its pictures and still be the better figure.
_STEADY = 0.02


@dataclass(frozen=True)
class Length:
    """How long a picture track is shown, and how evenly.

    Attributes:
        duration: seconds from the first picture until the last one has been shown, which stays with sound that goes
            on for more than half a second.
        pictures: seconds from the first picture to the end of the last one by itself.
        fps: pictures per second on average.
        longest: seconds that a picture stays at most.
    """

    duration: float
    pictures: float
    fps: float
    longest: float

    @classmethod
    def of(cls, reader: PictureReader) -> Length:
        """As the packets say: headers count decoding times, or know nothing."""
        found = timeline(reader.path)
        rate, origin = reader.frame_rate, reader.origin
        shown = [] if origin is None else [float(stamp - origin) for stamp in found.stamps if stamp >= origin]
        if origin is None or not shown:  # pictures follow each other at a constant rate
            shown = [k / rate for k in range(max(1, found.pictures))]
            origin = Fraction(0)
        usual = shown[-1] / (len(shown) - 1) if len(shown) > 1 else 1 / rate
        end = shown[-1] + (float(found.last) or usual)
        heard = 0.0 if found.sound_end is None else float(found.sound_end - origin)
        duration = heard if heard > end + _HELD else end
        holds = [after - before for before, after in pairwise([*shown, duration])]
        average = len(shown) / end
        return cls(duration, end, rate if abs(rate / average - 1) < _STEADY else average, max(holds))
