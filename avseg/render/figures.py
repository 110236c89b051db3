"""What figures share: colours, a figure without a display, an image in a frame, an axis that shows the time."""

from typing import TYPE_CHECKING

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


def hexadecimal(colour: Colour) -> str:
    """``(86, 180, 233)`` as ``#56b4e9``, which matplotlib and CSS read."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


_CLOCK = 120.0  # seconds from which an axis counts minutes


def blank_figure(width: float, height: float, paper: str = "white") -> "Figure":
    """An empty figure of so many inches on ``paper``, a colour or ``none``."""
    # Without pyplot: no display is asked for and no figure outlives its use. Overlays alone need no matplotlib.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor=paper)


def show_picture(axes: "Axes", picture: Picture | None) -> None:
    """An image that keeps its aspect, thinly framed; an empty tile for None."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color="#cccccc", linewidth=0.5)
    if picture is None:
        axes.set_facecolor("#f4f4f4")
    else:
        axes.imshow(picture, interpolation="lanczos", aspect="equal")


def grey(values: npt.NDArray) -> Picture:
    """Values in [0, 1] as a grey image, ``(H, W, 3)`` uint8."""
    shades = np.round(np.clip(values.astype(np.float32), 0, 1) * 255).astype(np.uint8)
    return np.repeat(shades[..., None], 3, -1)


def show_time(figure: "Figure", axes: "Axes", begin: float, end: float, size: float = 8) -> None:
    """Make the horizontal axis that of the time: seconds, or minutes where the stretch is long."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    inches = axes.get_position().width * figure.get_figwidth()
    most = max(1, min(10, int(inches / 0.7)))
    axes.set_xlim(begin, end)
    if end - begin < _CLOCK:
        axes.xaxis.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10]))
        axes.set_xlabel("seconds", fontsize=size + 1)
    else:
        step = next((s for s in _STEPS if (end - begin) / s <= most), _STEPS[-1])
        axes.set_xticks(np.arange(np.ceil(begin / step), np.floor(end / step) + 1) * step)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: clock(x)))
        axes.set_xlabel("minutes", fontsize=size + 1)
    axes.tick_params(labelsize=size)


_STEPS = [15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400]


def clock(seconds: float) -> str:
    """Seconds as minutes, ``1:05``, or hours, ``1:00:00``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
