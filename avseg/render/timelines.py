"""How loud a video is and how much of its image sounds, over its time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from avseg.render.colours import OKABE_ITO, hexadecimal
from avseg.render.figures import blank_figure, show_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
