"""Film strips, and timelines of loudness and sounding area."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from avseg.render.figures import (
    MASK_COLOUR,
    OKABE_ITO,
    TRUTH_COLOUR,
    Picture,
    blank_figure,
    grey,
    hexadecimal,
    show_picture,
    show_time,
)
from avseg.render.images import enlarged, flow_bound, flow_colours, flow_wheel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 10
"""Moments beside each other that can still be looked at."""

_EXAMPLE = 0.96  # seconds of a log-mel example, 96 rows of 10 ms
_GAP = 0.06  # inches between tiles
_SIDE = 0.95  # inches of names on the left
_COLUMNS = 1600  # of a spectrogram, at most; where time is long, up to 8 examples are averaged in each
_RANGE = 50.0  # decibels below the loudest that the loudness shows


def strip_moments(count: int, most: int = MOST) -> list[int]:
    """Which of ``count`` moments a film strip shows: evenly spaced, ``most`` at most, neither end favoured."""
    step = max(1, -(-count // most))
    shown = count // step
    first = (count - 1 - step * (shown - 1)) // 2
    return [first + step * k for k in range(shown)]


def filmstrip(
    times: Sequence[float],
    frames: npt.NDArray[np.uint8],
    masks: npt.NDArray[np.bool_],
    log_mel: npt.NDArray[np.floating],
    score: npt.NDArray[np.floating] | None = None,
    flow: npt.NDArray[np.floating] | None = None,
    truth: npt.NDArray[np.bool_] | None = None,
    sound_starts: Sequence[float] | None = None,
    most: int = MOST,
) -> "Figure":
    """A video on one time axis: frames, flow, score, mask and truth above its log-mel spectrogram and loudness.

    Of more than ``most`` moments, evenly spaced ones are shown (`strip_moments`); all of the sound is. Images stand
    above their time. Where times are too uneven for that, images stand side by side and lines lead to their times.

    Args:
        times: Seconds of the T frames, rising.
        frames: ``(T, H, W, 3)`` uint8.
        masks: ``(T, H, W)`` bool, predicted.
        log_mel: ``(T, 96, 64)``: each frame's example of 0.96 s.
        score: ``(T, H, W)`` in [0, 1].
        flow: ``(T, 2, H, W)`` in pixels; all frames share one bound, which stands beside the colour wheel.
        truth: ``(T, H, W)`` bool.
        sound_starts: Seconds at which the examples start; None centres each on its frame. With it there may be more
            examples than frames.
        most: How many moments are shown at most.

    Raises:
        ValueError: no frames, or other numbers of frames, masks or examples than of times.
    """
    if not len(times):
        raise ValueError("A film strip needs at least one frame.")
    starts = np.asarray([time - _EXAMPLE / 2 for time in times] if sound_starts is None else sound_starts, float)
    for name, given, wanted in (("frames", frames, times), ("masks", masks, times), ("examples", log_mel, starts)):
        if len(given) != len(wanted):
            raise ValueError(f"There are {len(given)} {name} for {len(wanted)} times.")
    chosen = strip_moments(len(times), most)
    shown = frames[chosen]
    lanes: list[tuple[str, list[Picture]]] = [("frame", list(shown))]
    bound = 0.0
    if flow is not None:
        bound = flow_bound(flow[chosen])
        lanes.append(("flow", [flow_colours(one, bound) for one in flow[chosen]]))
    if score is not None:
        lanes.append(("score", [grey(one) for one in score[chosen]]))
    lanes.append(("mask", [enlarged(f, m, MASK_COLOUR) for f, m in zip(shown, masks[chosen], strict=True)]))
    if truth is not None:
        lanes.append(("truth", [enlarged(f, m, TRUTH_COLOUR) for f, m in zip(shown, truth[chosen], strict=True)]))

    aspect = frames.shape[1] / frames.shape[2]
    tile = min(1.4, 1.5 / aspect)
    axis = _Axis.over(np.asarray(times, float), chosen, tile + _GAP, None if sound_starts is None else starts)
    tall = tile * aspect
    height = len(lanes) * (tall + _GAP) + 2.4
    figure = blank_figure(axis.width, height)
    top = height - 0.1
    for name, pictures in lanes:
        middle = (top - tall / 2) / height
        _name_lane(figure, name, middle, bound)
        for centre, picture in zip(axis.centres, pictures, strict=True):
            left = (centre - tile / 2) / axis.width
            show_picture(figure.add_axes((left, (top - tall) / height, tile / axis.width, tall / height)), picture)
        top -= tall + _GAP
    _leaders(figure, axis, [times[i] for i in chosen], top + _GAP)
    _sound(figure, axis, *_spectrogram(log_mel, starts, axis.begin, axis.end), top - 0.12)
    return figure


@dataclass(frozen=True)
class _Axis:
    """Where things stand across a strip, in inches.

    Attributes:
        begin: Seconds at which the axis begins.
        end: Seconds at which it ends.
        left: Where it begins.
        span: Its length.
        centres: Of the chosen images.
        width: Of the figure.
    """

    begin: float
    end: float
    left: float
    span: float
    centres: npt.NDArray[np.floating]
    width: float

    @classmethod
    def over(cls, times: npt.NDArray, chosen: list[int], pitch: float, starts: npt.NDArray | None) -> "_Axis":
        half = float(np.median(np.diff(times))) / 2 if len(times) > 1 else _EXAMPLE / 2
        begin, end = float(times[0]) - half, float(times[-1]) + half
        if starts is not None:
            begin, end = (
                min(float(times[0]), float(starts.min())),
                max(float(times[-1]), float(starts.max()) + _EXAMPLE),
            )
        count = len(chosen)
        closest = float(np.diff(times[chosen]).min()) if count > 1 else end - begin
        span = max((end - begin) * pitch / closest, 3.0)
        centres = (times[chosen] - begin) * span / (end - begin)
        if span > 1.5 * count * pitch + 3.0:
            span = max(count * pitch, 3.0)
            centres = (np.arange(count) + 0.5) * span / count
        # The outer images may stand out beyond the axis.
        before, after = max(0.0, pitch / 2 - centres[0]), max(0.0, centres[-1] + pitch / 2 - span)
        left = _SIDE + before
        return cls(begin, end, left, span, left + centres, left + span + max(0.5, after + 0.1))

    def place(self, time: float) -> float:
        """Where a time stands, in inches."""
        return self.left + (time - self.begin) * self.span / (self.end - self.begin)


def _name_lane(figure: "Figure", name: str, middle: float, bound: float) -> None:
    width, height = figure.get_size_inches()
    x = (_SIDE - 0.1) / width
    if name != "flow":
        figure.text(x, middle, name, ha="right", va="center", fontsize=9)
        return
    size = 0.4
    figure.text(x, middle + 0.3 / height, name, ha="right", va="center", fontsize=9)
    axes = figure.add_axes((x - size / width, middle - 0.5 * size / height, size / width, size / height))
    axes.imshow(flow_wheel(), interpolation="lanczos")
    axes.set_axis_off()
    figure.text(x, middle - 0.3 / height, f"rim: {bound:.2g} px", ha="right", va="center", fontsize=7)


def _leaders(figure: "Figure", axis: _Axis, times: Sequence[float], top: float) -> None:
    """A short line from each image to its time."""
    from matplotlib.lines import Line2D

    height = figure.get_figheight()
    for centre, time in zip(axis.centres, times, strict=True):
        across = [centre / axis.width, axis.place(time) / axis.width]
        down = [top / height, (top - _GAP - 0.12) / height]
        figure.add_artist(Line2D(across, down, color="#8a8a8a", linewidth=0.8))


def _spectrogram(
    log_mel: npt.NDArray[np.floating], starts: npt.NDArray, begin: float, end: float
) -> tuple[npt.NDArray, npt.NDArray]:
    """``(columns, 64)`` of evenly spaced times, NaN where there is no sound, and each column's level in decibels.

    Examples overlap where moments are close: each time is taken from the example in whose middle it is most.
    """
    wanted = max(1, round((end - begin) / 0.01))
    columns, each = min(_COLUMNS, wanted), min(8, -(-wanted // _COLUMNS))
    at = begin + (np.arange(columns * each) + 0.5) * (end - begin) / (columns * each)
    middles = starts + _EXAMPLE / 2
    after = np.clip(np.searchsorted(middles, at), 1, max(1, len(middles) - 1))
    nearest = np.where(np.abs(at - middles[after - 1]) <= np.abs(at - middles[after % len(middles)]), after - 1, after)
    nearest = np.minimum(nearest, len(middles) - 1)
    row = np.floor((at - starts[nearest]) / 0.01 + 1e-6).astype(int)
    heard = (row >= 0) & (row < log_mel.shape[1])
    found = np.zeros((columns * each, log_mel.shape[2]), np.float32)
    found[heard] = log_mel[nearest[heard], row[heard]]
    counts = heard.reshape(columns, each).sum(1, dtype=np.float32)[:, None]
    found = found.reshape(columns, each, -1).sum(1)
    found = np.divide(found, counts, where=counts > 0, out=np.full_like(found, np.nan))
    # An example holds ln(magnitude + 0.01) of 64 mel bands every 10 ms.
    level = 20 * np.log10(np.maximum(np.exp(found.astype(np.float64)) - 0.01, 1e-4).mean(-1))
    return found, level


def _sound(figure: "Figure", axis: _Axis, found: npt.NDArray, level: npt.NDArray, top: float) -> None:
    """The spectrogram and below it the loudness, whose axis shows the time."""
    height = figure.get_figheight()
    left, width = axis.left / axis.width, axis.span / axis.width
    spectrogram = figure.add_axes((left, (top - 0.9) / height, width, 0.9 / height))
    loudness = figure.add_axes((left, (top - 1.65) / height, width, 0.65 / height))
    extent = (axis.begin, axis.end, 0, found.shape[1])
    spectrogram.imshow(found.T, origin="lower", aspect="auto", extent=extent, cmap="magma", interpolation="antialiased")
    spectrogram.set(facecolor="#f4f4f4", xticks=[], yticks=[], xlim=(axis.begin, axis.end))
    at = axis.begin + (np.arange(len(level)) + 0.5) * (axis.end - axis.begin) / len(level)
    loudness.plot(at, level, color=hexadecimal(OKABE_ITO["blue"]), linewidth=1)
    loudness.yaxis.tick_right()
    loudest = float(np.nanmax(level))
    # A click of silence, as at the end of many files, may leave the axis, so that all else can be told apart.
    loudness.set_ylim(max(float(np.nanpercentile(level, 2)), loudest - _RANGE) - 2, loudest + 2)
    show_time(figure, loudness, axis.begin, axis.end)
    for axes, label, hidden in ((spectrogram, "log-mel", "right"), (loudness, "loudness\n(dB)", "left")):
        box = axes.get_position()
        figure.text((_SIDE - 0.1) / axis.width, box.y0 + box.height / 2, label, ha="right", va="center", fontsize=9)
        axes.spines[["top", hidden]].set_visible(False)


QUIET = -70.0
"""Decibels below which sound is drawn as none."""

PER_INCH = 40
"""Steps that can still be told apart."""


def timeline(
    times: Sequence[float] | npt.NDArray[np.floating],
    loudness: Sequence[float] | npt.NDArray[np.floating],
    shares: Sequence[float] | npt.NDArray[np.floating],
    now: float | None = None,
    width: float = 9.0,
    ink: str = "#1f2328",
    paper: str = "white",
) -> "Figure":
    """Loudness above sounding area, so that silence and what is marked in it can be seen together.

    A moment holds until the next one, as in the overlay video. Where there are more moments than steps that can be told
    apart, neighbours are averaged.

    Args:
        times: Seconds of the moments, rising.
        loudness: Of each moment, in decibels relative to full scale; less than −70 is drawn as silence.
        shares: Share of the image that sounds in each, in [0, 1].
        now: A moment to point at, in seconds.
        width: Of the figure, in inches.
        ink: Colour of axes and text.
        paper: Colour behind them, or ``none``.

    Raises:
        ValueError: no moments, or other numbers of loudnesses or shares than of times.
    """
    if not len(times) or not len(times) == len(loudness) == len(shares):
        raise ValueError(
            f"A timeline needs as many loudnesses ({len(loudness)}) and shares ({len(shares)}) as times ({len(times)})."
        )
    height, left, right, panel = 2.7, 0.5, 0.15, 0.75
    figure = blank_figure(width, height, paper)
    at = np.asarray(times, float)
    edges = np.append(at, at[-1] + (float(np.median(np.diff(at))) if len(at) > 1 else 1.0))
    area = 100 * np.asarray(shares, float)
    rows: tuple[tuple[str, np.ndarray, float, float, str, float], ...] = (
        ("loudness (dB)", np.maximum(np.asarray(loudness, float), QUIET), QUIET, 0.0, "blue", 1.65),
        ("sounding area (% of the image)", area, 0.0, max(5.0, 1.1 * float(area.max())), "sky blue", 0.5),
    )
    for title, values, low, high, colour, bottom in rows:
        box = (left / width, bottom / height, (width - left - right) / width, panel / height)
        axes = figure.add_axes(box, facecolor="none")
        _steps(axes, *_merged(edges, values, round(PER_INCH * width)), low, hexadecimal(OKABE_ITO[colour]))
        axes.set_ylim(low, high)
        axes.set_xlim(edges[0], edges[-1])
        axes.set_title(title, loc="left", fontsize=9, color=ink, pad=4)
        axes.tick_params(labelsize=8, colors=ink)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(ink)
        axes.locator_params(axis="y", nbins=3)
        if now is not None:
            _point(axes, at, values, now)
    upper, lower = figure.axes
    upper.set_xticks([])
    show_time(figure, lower, edges[0], edges[-1])
    lower.xaxis.label.set_color(ink)
    return figure


def _merged(edges: np.ndarray, values: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours averaged where there are more than ``most`` values, which would run into each other."""
    size = -(-len(values) // most)
    starts = np.arange(0, len(values), size)
    means = np.add.reduceat(values, starts) / np.diff([*starts, len(values)])
    return np.append(edges[starts], edges[-1]), means


def _steps(axes: "Axes", edges: np.ndarray, values: np.ndarray, low: float, tone: str) -> None:
    axes.stairs(values, edges, baseline=low, fill=True, color=tone, alpha=0.35, linewidth=0)
    axes.stairs(values, edges, baseline=None, color=tone, linewidth=1.2)


def _point(axes: "Axes", at: np.ndarray, values: np.ndarray, now: float) -> None:
    tone = hexadecimal(OKABE_ITO["vermillion"])
    axes.axvline(now, color=tone, linewidth=1.4)
    axes.plot([now], [values[np.abs(at - now).argmin()]], "o", color=tone, markersize=4.5, clip_on=False)
