"""Small plots for reports: what was measured while training, and differences with their intervals."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from avseg.render import OKABE_ITO

Rows = Sequence[Mapping[str, float]]

INKS = {"light": "#1f2328", "dark": "#e6e6e6"}
ORDER = ("blue", "orange", "bluish green", "reddish purple", "vermillion", "sky blue")


@dataclass(frozen=True)
class Plot:
    """One panel: what to draw and how to call it.

    Attributes:
        columns: The first of these columns that a run has is drawn.
        title: The panel's title.
        unit: Of the vertical axis.
        scale: Factor from the column to the unit.
    """

    columns: tuple[str, ...]
    title: str
    unit: str = ""
    scale: float = 1.0


PLOTS = (
    Plot(("loss/sup", "loss"), "Supervised loss"),
    Plot(("loss/unsup",), "Consistency loss on distant frames"),
    Plot(("val/miou",), "Validation mIoU", "%", 100),
    Plot(("val/f_score",), "Validation F-score", "%", 100),
    Plot(("pseudo/foreground",), "Foreground of the teacher's pseudo masks", "% of pixels", 100),
)


def curve_panels(runs: Mapping[str, Rows], plots: Sequence[Plot] = PLOTS) -> list[tuple[str, Figure, Figure]]:
    """The panels that the runs have numbers for.

    Args:
        runs: By arm, the rows of its ``metrics.csv``.
        plots: Panels in order.

    Returns:
        For each panel its title and its figure for light and for dark pages.
    """
    panels = []
    last = max((row["step"] for rows in runs.values() for row in rows), default=0)
    for plot in plots:
        lines = {name: _line(rows, plot) for name, rows in runs.items()}
        if any(len(x) > 1 for x, _ in lines.values()):
            panels.append((plot.title, _panel(lines, plot, last, "light"), _panel(lines, plot, last, "dark")))
    return panels


def forest(
    rows: Sequence[tuple[str, float, float, float]],
    unit: str,
    ink: str = "light",
    width: float = 5.2,
    spacing: float = 0.36,
) -> Figure:
    """Differences as dots with their intervals around a line at no difference.

    Args:
        rows: Label, mean, lower and upper end.
        unit: Of the horizontal axis.
        ink: ``light`` or ``dark``: the page.
        width: Of the figure in inches.
        spacing: Inches from row to row.
    """
    figure, axes = _axes(width, 0.75 + spacing * len(rows), ink)
    colour = line_colour(0, ink)
    for i, (_, mean, low, high) in enumerate(rows):
        axes.plot([low, high], [-i, -i], color=colour, linewidth=2.5, solid_capstyle="round")
        axes.plot([mean], [-i], "o", color=colour, markersize=8)
    axes.axvline(0, color=INKS[ink], linewidth=1, linestyle=(0, (4, 3)))
    axes.set_yticks([-i for i in range(len(rows))], [row[0] for row in rows])
    axes.set_ylim(-len(rows) + 0.4, 0.6)
    axes.set_xlabel(unit)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def as_uri(figure: Figure, kind: str = "svg", dpi: int = 150) -> str:
    """A figure as a ``data:`` address that needs nothing else. Text becomes outlines, so any machine shows it alike."""
    file = io.BytesIO()
    with rc_context({"svg.fonttype": "path", "svg.hashsalt": "avseg"}):
        if kind == "svg":
            figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        else:
            figure.savefig(file, format="png", dpi=dpi)
    mime = {"svg": "image/svg+xml", "png": "image/png"}[kind]
    return f"data:{mime};base64,{base64.b64encode(file.getvalue()).decode()}"


def _line(rows: Rows, plot: Plot) -> tuple[list[float], list[float]]:
    column = next((name for name in plot.columns if any(name in row for row in rows)), None)
    found = [(row["step"], row[column] * plot.scale) for row in rows if column in row] if column else []
    return [x for x, _ in found], [y for _, y in found]


def _panel(lines: Mapping[str, tuple[list[float], list[float]]], plot: Plot, last: float, ink: str) -> Figure:
    figure, axes = _axes(5.2, 3.2, ink)
    for i, (name, (x, y)) in enumerate(lines.items()):
        if not x:
            continue
        smooth = _moving_mean(y)
        if smooth is not None:
            axes.plot(x, y, color=line_colour(i, ink), linewidth=0.7, alpha=0.3)
        drawn, marker = y if smooth is None else smooth, "o" if len(x) <= 40 else None
        axes.plot(x, drawn, marker=marker, color=line_colour(i, ink), markersize=3.5, linewidth=1.8, label=name)
    axes.set_xlabel("step")
    axes.set_ylabel(plot.unit)
    axes.set_xlim(0, last)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, labelcolor=INKS[ink], loc="best")
    return figure


def _moving_mean(values: Sequence[float], at_least: int = 60) -> list[float] | None:
    """A centred mean over a twentieth of the curve; None for a curve too short to need it."""
    if len(values) < at_least:
        return None
    half = len(values) // 40
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def style_axes(axes: Axes, ink: str) -> None:
    """Make axes calm, without a background, and legible on a ``light`` or ``dark`` page."""
    axes.set_facecolor("none")
    axes.tick_params(colors=INKS[ink], labelsize=11)
    for side, spine in axes.spines.items():
        spine.set_color(INKS[ink])
        spine.set_visible(side in ("left", "bottom"))
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INKS[ink], fontsize=11)
    axes.grid(axis="both", color=INKS[ink], alpha=0.12)
    axes.set_axisbelow(True)


def line_colour(index: int, ink: str) -> tuple[float, float, float]:
    """The colour of the line number ``index`` on a ``light`` or ``dark`` page."""
    name = ORDER[index % len(ORDER)]
    name = "sky blue" if (name, ink) == ("blue", "dark") else "blue" if (name, ink) == ("sky blue", "dark") else name
    red, green, blue = (value / 255 for value in OKABE_ITO[name])
    return red, green, blue


def _axes(width: float, height: float, ink: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
    axes = figure.add_subplot()
    style_axes(axes, ink)
    return figure, axes
