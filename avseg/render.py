"""Pictures that people look at: overlays, flow in colours, grids of results, a video's film strip.

Colours are those of Okabe and Ito, which people with any common colour vision tell apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Picture = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Colour = tuple[int, int, int]

OKABE_ITO: dict[str, Colour] = {
    "orange": (230, 159, 0),
    "sky blue": (86, 180, 233),
    "bluish green": (0, 158, 115),
    "yellow": (240, 228, 66),
    "blue": (0, 114, 178),
    "vermillion": (213, 94, 0),
    "reddish purple": (204, 121, 167),
    "black": (0, 0, 0),
}
MASK_COLOUR = OKABE_ITO["sky blue"]  # what makes a sound is more often brown, red or green
TRUTH_COLOUR = OKABE_ITO["yellow"]
FINE = 400
"""Pixels to which small pictures are enlarged before a contour is drawn, so that it stays thin beside the object."""
LEAST_BOUND = 1.0


def overlay(
    frame: Picture,
    mask: Mask,
    score: npt.NDArray[np.floating] | None = None,
    colour: Colour = MASK_COLOUR,
    alpha: float = 0.45,
    contour: bool = True,
) -> Picture:
    """Mark a mask on a frame: a tint, and a contour between two dark lines that shows on any background.

    Args:
        frame: ``(H, W, 3)`` uint8, RGB.
        mask: ``(H, W)`` bool.
        score: ``(H, W)`` in [0, 1]: the tint's opacity follows it everywhere. None tints the mask evenly.
        colour: RGB of tint and contour.
        alpha: Opacity of the tint where the score is 1.
        contour: Whether the contour is drawn.

    Returns:
        A new ``(H, W, 3)`` uint8 picture.

    Raises:
        ValueError: shapes or types are not as above, or ``alpha`` is not in [0, 1].
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ValueError(f"A frame must be (H, W, 3) uint8, not {frame.shape} {frame.dtype}.")
    for name, given in (("mask", mask), ("score", score)):
        if given is not None and given.shape != frame.shape[:2]:
            raise ValueError(f"The {name} is {given.shape} where the frame is {frame.shape[:2]}.")
    if mask.dtype != np.bool_:
        raise ValueError(f"A mask must be bool, not {mask.dtype}.")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be between 0 and 1, not {alpha}.")
    strength = mask.astype(np.float32) if score is None else np.clip(score, 0, 1).astype(np.float32)
    opacity = alpha * strength[..., None]
    mixed = frame * (1 - opacity) + np.array(colour, np.float32) * opacity
    drawn: Picture = np.round(mixed).astype(np.uint8)
    if contour and mask.any():
        _draw_contour(drawn, mask, colour)
    return drawn


def flow_colours(flow: npt.NDArray[np.floating], bound: float | None = None) -> Picture:
    """Optical flow as colours: hue is direction (right red, down green, left cyan, up violet), white is no motion.

    Args:
        flow: ``(2, H, W)``, ``u`` right and ``v`` down, in pixels.
        bound: Length in pixels that gets the full colour; None takes the 99th percentile of the lengths, at least 1, so
            that noise in a still picture stays pale.

    Returns:
        ``(H, W, 3)`` uint8, RGB.

    Raises:
        ValueError: the flow is not (2, H, W), or the bound is not positive.
    """
    if flow.ndim != 3 or flow.shape[0] != 2:
        raise ValueError(f"Flow must be (2, H, W), not {flow.shape}.")
    u, v = np.nan_to_num(flow.astype(np.float32))
    length = np.hypot(u, v)
    if bound is None:
        bound = max(float(np.percentile(length, 99)), LEAST_BOUND)
    if bound <= 0:
        raise ValueError(f"The bound must be positive, not {bound}.")
    hue = np.degrees(np.arctan2(v, u)) % 360
    colours = np.stack([hue, np.clip(length / bound, 0, 1), np.ones_like(hue)], -1)
    return np.round(cv2.cvtColor(colours, cv2.COLOR_HSV2RGB) * 255).astype(np.uint8)


@dataclass(frozen=True)
class Moment:
    """One row of a `qualitative_grid`: a moment of a video.

    Attributes:
        pictures: By column: ``(H, W, 3)`` uint8 pictures, or ``(H, W)`` bool masks, which are drawn on ``frame``.
        category: What sounds.
        seconds: The moment.
        name: The video's name, shown where the category is unknown.
    """

    pictures: Mapping[str, Picture | Mask]
    category: str = ""
    seconds: float | None = None
    name: str = ""

    @property
    def label(self) -> str:
        """What stands beside the row."""
        lines = [self.category.replace("_", " ") or self.name]
        if self.seconds is not None:
            lines.append(f"{self.seconds:.1f} s")
        return "\n".join(line for line in lines if line)


def qualitative_grid(
    rows: Sequence[Moment],
    columns: Sequence[str] = ("frame", "flow", "truth", "baseline", "UFE"),
    tile: float = 1.5,
) -> "Figure":
    """Results side by side, as in the paper's Fig. 3: a row for each moment, labelled columns.

    Masks are drawn on the row's frame; beside ``truth``, they carry their Jaccard index with it. Pictures keep their
    aspect.

    Args:
        rows: At least one.
        columns: Which of each row's pictures to show, in order; a row that lacks one shows an empty tile.
        tile: Width of a tile in inches.

    Raises:
        ValueError: no rows or no columns.
    """
    if not rows or not columns:
        raise ValueError("A grid needs at least one row and one column.")
    gap, side, head, note = 0.06, 1.05, 0.28, 0.2
    aspects = [_aspect(row) for row in rows]
    noted = any("truth" in row.pictures for row in rows)
    below = note if noted else 0.0
    width = side + len(columns) * (tile + gap)
    height = head + sum(tile * aspect + below + gap for aspect in aspects)
    figure = _figure(width, height)
    for j, column in enumerate(columns):
        x = (side + j * (tile + gap) + tile / 2) / width
        figure.text(x, 1 - 0.6 * head / height, column, ha="center", va="center", fontsize=10, weight="bold")
    top = height - head
    for row, aspect in zip(rows, aspects, strict=True):
        tall = tile * aspect
        middle = (top - tall / 2) / height
        figure.text((side - 0.1) / width, middle, _wrap(row.label), ha="right", va="center", fontsize=9)
        for j, column in enumerate(columns):
            left = side + j * (tile + gap)
            axes = figure.add_axes((left / width, (top - tall) / height, tile / width, tall / height))
            _show(axes, _tile(row, column))
            found = _jaccard(row, column)
            if found is not None:
                x, y = (left + tile / 2) / width, (top - tall - 0.5 * note) / height
                figure.text(x, y, f"IoU {found:.2f}", ha="center", va="center", fontsize=8, color="#444444")
        top -= tall + below + gap
    return figure


def filmstrip(
    times: Sequence[float],
    frames: npt.NDArray[np.uint8],
    masks: npt.NDArray[np.bool_],
    log_mel: npt.NDArray[np.floating],
    score: npt.NDArray[np.floating] | None = None,
    flow: npt.NDArray[np.floating] | None = None,
    truth: npt.NDArray[np.bool_] | None = None,
    sound_starts: Sequence[float] | None = None,
) -> "Figure":
    """A video on one time axis: frames, flow, score, mask and truth above its log-mel spectrogram and loudness.

    Args:
        times: Seconds of the T frames, rising.
        frames: ``(T, H, W, 3)`` uint8.
        masks: ``(T, H, W)`` bool, predicted.
        log_mel: ``(T, 96, 64)``: each frame's example of 0.96 s.
        score: ``(T, H, W)`` in [0, 1].
        flow: ``(T, 2, H, W)`` in pixels; all frames share one bound.
        truth: ``(T, H, W)`` bool.
        sound_starts: Seconds at which the examples start; None centres each on its frame.

    Raises:
        ValueError: no frames.
    """
    count = len(times)
    if not count:
        raise ValueError("A film strip needs at least one frame.")
    lanes: list[tuple[str, list[Picture]]] = [("frame", list(frames))]
    if flow is not None:
        bound = max(float(np.percentile(np.hypot(flow[:, 0], flow[:, 1]), 99)), LEAST_BOUND)
        lanes.append(("flow", [flow_colours(one, bound) for one in flow]))
    if score is not None:
        lanes.append(("score", [_grey(one) for one in score]))
    lanes.append(("mask", [_marked(f, m, MASK_COLOUR) for f, m in zip(frames, masks, strict=True)]))
    if truth is not None:
        lanes.append(("truth", [_marked(f, m, TRUTH_COLOUR) for f, m in zip(frames, truth, strict=True)]))
    starts = [time - 0.48 for time in times] if sound_starts is None else list(sound_starts)
    spacing = min(np.diff(times)) if count > 1 else 1.0
    begin = min(times[0] - spacing / 2, min(starts))
    end = max(times[-1] + spacing / 2, max(starts) + 0.96)
    tile, side, gap = 1.4, 0.9, 0.06
    per_second = tile / spacing
    tall = (tile - gap) * frames.shape[1] / frames.shape[2]
    width = side + (end - begin) * per_second + 0.45
    height = len(lanes) * (tall + gap) + 2.3
    figure = _figure(width, height)
    top = height - 0.1
    for name, pictures in lanes:
        figure.text((side - 0.1) / width, (top - tall / 2) / height, name, ha="right", va="center", fontsize=9)
        for time, picture in zip(times, pictures, strict=True):
            left = side + (time - begin) * per_second - (tile - gap) / 2
            _show(figure.add_axes((left / width, (top - tall) / height, (tile - gap) / width, tall / height)), picture)
        top -= tall + gap
    span = (side / width, (end - begin) * per_second / width)
    _sound(figure, log_mel, starts, (begin, end), span, height, top)
    return figure


def _draw_contour(picture: Picture, mask: Mask, colour: Colour) -> None:
    width = max(1, round(min(mask.shape) / 150))
    shapes, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, shapes, -1, (20, 20, 20), 3 * width, cv2.LINE_AA)
    cv2.drawContours(picture, shapes, -1, colour, width, cv2.LINE_AA)


def _figure(width: float, height: float) -> "Figure":
    # Without pyplot: no display is asked for and no figure outlives its use. Overlays alone need no matplotlib.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor="white")


def _show(axes: "Axes", picture: Picture | None) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color="#cccccc", linewidth=0.5)
    if picture is None:
        axes.set_facecolor("#f4f4f4")
    else:
        axes.imshow(picture, interpolation="lanczos", aspect="equal")


def _aspect(row: Moment) -> float:
    shapes = [picture.shape for picture in row.pictures.values()]
    return shapes[0][0] / shapes[0][1] if shapes else 1.0


def _tile(row: Moment, column: str) -> Picture | None:
    picture, frame = row.pictures.get(column), row.pictures.get("frame")
    if picture is None or picture.ndim == 3:
        return None if picture is None else picture.astype(np.uint8)
    if frame is None or frame.shape[:2] != picture.shape:
        return _grey(picture)
    colour = TRUTH_COLOUR if column == "truth" else MASK_COLOUR
    return _marked(frame.astype(np.uint8), picture.astype(bool), colour)


def _marked(frame: Picture, mask: Mask, colour: Colour) -> Picture:
    scale = max(1, round(FINE / min(mask.shape)))
    size = (mask.shape[1] * scale, mask.shape[0] * scale)
    large: Picture = cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    shape = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0.5
    return overlay(large, shape, colour=colour)


def _jaccard(row: Moment, column: str) -> float | None:
    truth, found = row.pictures.get("truth"), row.pictures.get(column)
    if column == "truth" or truth is None or found is None or found.ndim != 2 or truth.shape != found.shape:
        return None
    either = (truth | found).sum()
    return float((truth & found).sum() / either) if either else 1.0


def _grey(values: npt.NDArray) -> Picture:
    grey = np.round(np.clip(values.astype(np.float32), 0, 1) * 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, -1)


def _wrap(label: str, width: int = 13) -> str:
    lines: list[str] = []
    for line in label.split("\n"):
        start = len(lines)
        for word in line.split(" "):
            if len(lines) > start and len(lines[-1]) + len(word) < width:
                lines[-1] += " " + word
            else:
                lines.append(word)
    return "\n".join(lines)


def _sound(
    figure: "Figure",
    log_mel: npt.NDArray[np.floating],
    starts: Sequence[float],
    limits: tuple[float, float],
    span: tuple[float, float],
    height: float,
    top: float,
) -> None:
    """The spectrogram and below it the loudness, whose axis shows the time."""
    spectrogram = figure.add_axes((span[0], (top - 1.0) / height, span[1], 0.9 / height))
    loudness = figure.add_axes((span[0], (top - 1.75) / height, span[1], 0.65 / height))
    low, high = float(log_mel.min()), float(log_mel.max())
    # An example holds ln(magnitude + 0.01) of 64 mel bands every 10 ms.
    level = 20 * np.log10(np.maximum(np.exp(log_mel.astype(np.float64)) - 0.01, 1e-4).mean(-1))
    for start, example, decibel in zip(starts, log_mel, level, strict=True):
        extent = (start, start + 0.96, 0, 64)
        spectrogram.imshow(example.T, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=low, vmax=high)
        at = start + 0.01 * np.arange(len(decibel))
        loudness.plot(at, decibel, color=np.array(OKABE_ITO["blue"]) / 255, linewidth=1)
    loudness.yaxis.tick_right()
    for axes, label, hidden in ((spectrogram, "log-mel", "right"), (loudness, "loudness\n(dB)", "left")):
        axes.set_xlim(*limits)
        middle = axes.get_position().y0 + axes.get_position().height / 2
        figure.text(span[0] - 0.1 / figure.get_figwidth(), middle, label, ha="right", va="center", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", hidden]].set_visible(False)
    spectrogram.set_ylim(0, 64)
    spectrogram.set_xticks([])
    spectrogram.set_yticks([])
    spectrogram.set_facecolor("#f4f4f4")
    loudness.set_xlabel("seconds", fontsize=9)
