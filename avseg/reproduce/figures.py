"""Figures of a table's results: scores of every seed with their gains, training, pseudo masks."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from textwrap import fill
from typing import TYPE_CHECKING

from avseg.evaluation.compare import Difference
from avseg.evaluation.curves import INKS, ORDER, forest, line_colour, style_axes
from avseg.files import whole_file
from avseg.render.figures import blank_figure
from avseg.reproduce import wording
from avseg.reproduce.hypotheses import Outcomes
from avseg.reproduce.summary import CellSummary, Summary
from avseg.reproduce.wording import Block

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 8.4  # inches
_LETTERS = 140  # of a small line across a figure


def arms_figure(summary: Summary, ink: str = "light") -> "Figure":
    """The main figure: for each cell a dot for each seed, their mean, and the gain with its interval written beside it.

    Args:
        summary: A table's results.
        ink: ``light`` or ``dark``: the page. The background is left out.
    """
    shown = _with_results(summary)
    lines = [sum(max(1, len(cell.gains)) for cell in block.cells) for block in shown]
    figure = blank_figure(_WIDTH, 1.0 + sum(0.3 * count + 0.62 for count in lines), "none")
    figure.set_layout_engine("constrained")
    panels = figure.subplots(
        len(shown) or 1, 1, squeeze=False, sharex=True, height_ratios=[n + 1 for n in lines] or None
    )
    for number, (block, axes) in enumerate(zip(shown, panels[:, 0], strict=False)):
        style_axes(axes, ink)
        _arms(block, axes, ink)
        if number == len(shown) - 1:
            axes.set_xlabel("test mIoU, %; dots: seeds, bars: means", color=INKS[ink], fontsize=11)
    _caption(figure, wording.ours(summary).removeprefix("Ours: "), ink)
    return figure


def gains_figure(summary: Summary, ink: str = "light") -> "Figure":
    """All gains of a table with their intervals."""
    rows = [
        (f"{wording.full_label(cell)}\n{wording.over(summary, cell, gain.over)}", *_points(gain.miou))
        for cell, gain in summary.gains
    ]
    return forest(rows, "gain in test mIoU, percentage points", ink, width=7.0, spacing=0.5)


def answers_figure(outcomes: Outcomes, ink: str = "light") -> "Figure":
    """The answers to what was asked beforehand, those that there are."""
    rows = [(one.hypothesis.label, *_points(one.difference)) for one in outcomes.outcomes if one.difference]
    return forest(rows, "test mIoU, percentage points", ink)


def pseudo_figure(summary: Summary, ink: str = "light") -> "Figure | None":
    """The teacher's pseudo masks while training: IoU with the hidden truth, and share of foreground beside the truth's.

    Means over seeds. None where no run has them.
    """
    shown = [block for block in _with_results(summary) if any(_pseudo(cell, "miou") for cell in block.cells)]
    if not shown:
        return None
    figure = blank_figure(_WIDTH, 0.6 + 2.9 * len(shown), "none")
    figure.set_layout_engine("constrained")
    panels = figure.subplots(len(shown), 2, squeeze=False, sharex=True)
    for block, (left, right) in zip(shown, panels, strict=True):
        for axes, title in ((left, "IoU with the hidden truth, %"), (right, "foreground, % of pixels")):
            style_axes(axes, ink)
            axes.set_title(_titled(title, block), color=INKS[ink], fontsize=11, loc="left")
            if block is shown[-1]:
                axes.set_xlabel("step", color=INKS[ink], fontsize=11)
        for number, cell in enumerate(block.cells):
            for axes, key in ((left, "miou"), (right, "foreground")):
                points = _pseudo(cell, key)
                if points:
                    x, y = zip(*points, strict=True)
                    colour = line_colour(number, ink)
                    axes.plot(x, y, f"o{_dashes(number)}", color=colour, markersize=3.5, label=cell.cell.row.label)
        truth = [value for cell in block.cells for _, value in _pseudo(cell, "truth")]
        if truth:
            line = {"color": INKS[ink], "linewidth": 1.2, "linestyle": (0, (4, 3))}
            right.axhline(fmean(truth), label="the truth's", **line)
        for axes in (left, right):
            _legend(axes, ink)
    for column in panels.T:
        _from_zero(column)
    return figure


def validation_figure(summary: Summary, ink: str = "light") -> "Figure | None":
    """Validation mIoU over steps: the mean over seeds, and every seed as a thin line. None where nothing was run."""
    shown = [block for block in _with_results(summary) if any(one.validation for c in block.cells for one in c.records)]
    if not shown:
        return None
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    figure = blank_figure(_WIDTH if columns > 1 else 6.4, 0.5 + 3.1 * rows, "none")
    figure.set_layout_engine("constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    for block, axes in zip(shown, panels, strict=False):
        style_axes(axes, ink)
        axes.set_title(_titled("", block), color=INKS[ink], fontsize=11, loc="left")
        for number, cell in enumerate(block.cells):
            colour = line_colour(number, ink)
            for one in cell.records:
                steps, values = zip(*one.validation, strict=True) if one.validation else ((), ())
                axes.plot(
                    steps, [100 * value for value in values], _dashes(number), color=colour, linewidth=0.7, alpha=0.35
                )
            points = _mean_by(pair for one in cell.records for pair in one.validation)
            if points:
                x, y = zip(*points, strict=True)
                axes.plot(x, y, _dashes(number), color=colour, linewidth=2, label=cell.cell.row.label)
        axes.set_xlim(left=0)
        axes.set_xlabel("step", color=INKS[ink], fontsize=11)
        axes.set_ylabel("validation mIoU, %", color=INKS[ink], fontsize=11)
        _legend(axes, ink)
    _from_zero(panels[: len(shown)])
    return figure


def save_picture(figure: "Figure", path: str | Path, dpi: int = 150) -> Path:
    """Write a figure on white paper, whole; the suffix of ``path`` is the format."""
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=dpi, facecolor="white")
    return Path(path)


def _points(found: Difference) -> tuple[float, float, float]:
    """Mean, lower and upper end in percentage points."""
    return 100 * found.mean, 100 * found.low, 100 * found.high


def _arms(block: Block, axes: "Axes", ink: str) -> None:
    """One row for each cell; a row is as high as the gains written beside it need."""
    texts = [[wording.miou_gain(gain.miou) for gain in cell.gains] for cell in block.cells]
    over = [[f"over {gain.label}" for gain in cell.gains] for cell in block.cells]
    shared = {name for names in over for name in names}
    top, ticks, names = 0.0, [], []
    for number, (cell, gains, overs) in enumerate(zip(block.cells, texts, over, strict=True)):
        height = max(1, len(gains))
        middle = top + (height - 1) / 2
        ticks.append(middle)
        names.append(fill(cell.cell.row.label, 30))
        _seeds(cell, middle, axes, line_colour(number, ink), ink)
        for line, (text, name) in enumerate(zip(gains, overs, strict=True)):
            words = text if len(shared) == 1 else f"{text} {name}"
            axes.annotate(
                words, (1, top + line), (8, 0), ("axes fraction", "data"), "offset points",
                color=INKS[ink], fontsize=9.5, va="center",
            )  # fmt: skip
        top += height
    axes.set_yticks(ticks, names)
    axes.set_ylim(top - 0.4, -0.7)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    if block.column:
        axes.set_title(block.column.label, color=INKS[ink], fontsize=11, loc="left")
    if len(shared) == 1:
        head = f"gain {next(iter(shared))} [95 %]"
        axes.annotate(
            head, (1, 1), (8, 4), "axes fraction", "offset points", color=INKS[ink], fontsize=9.5, va="bottom"
        )


def _seeds(cell: CellSummary, y: float, axes: "Axes", colour: tuple[float, float, float], ink: str) -> None:
    if not cell.miou:
        return
    apart = 0.14  # so that seeds with one score don't hide each other
    for k, one in enumerate(cell.records):
        offset = (k - (len(cell.records) - 1) / 2) * apart
        axes.plot([100 * one.miou], [y + offset], "o", color=colour, markersize=6, markeredgewidth=0, zorder=4)
    mean = 100 * cell.miou.mean
    axes.plot([mean, mean], [y - 0.36, y + 0.36], color=INKS[ink], linewidth=1.6, solid_capstyle="butt")


def _with_results(summary: Summary) -> list[Block]:
    found = []
    for block in wording.blocks(summary):
        cells = [cell for cell in block.cells if cell.records]
        if cells:
            found.append(Block(block.column, cells, block.papers))
    return found


def _pseudo(cell: CellSummary, key: str) -> list[tuple[float, float]]:
    return _mean_by((row["step"], row[key]) for one in cell.records for row in one.pseudo if key in row)


def _mean_by(points: Iterable[Sequence[float]]) -> list[tuple[float, float]]:
    """Means in percent of what was measured at each place, in order."""
    by_place: dict[float, list[float]] = {}
    for place, value in points:
        by_place.setdefault(place, []).append(value)
    return [(place, 100 * fmean(values)) for place, values in sorted(by_place.items())]


def _titled(title: str, block: Block) -> str:
    return ": ".join(filter(None, (block.column.label if block.column else "", title)))


def _from_zero(panels: Iterable["Axes"]) -> None:
    """One vertical scale for all, from zero to a little above what is highest."""
    panels = list(panels)
    highest = max(axes.dataLim.ymax for axes in panels)
    for axes in panels:
        axes.set_ylim(0, 1.06 * highest or 1)


def _dashes(number: int) -> str:
    """Lines are dashed once colours recur."""
    return "-" if number < len(ORDER) else "--"


def _legend(axes: "Axes", ink: str) -> None:
    axes.legend(frameon=False, labelcolor=INKS[ink], loc="best", fontsize=9)


def _caption(figure: "Figure", text: str, ink: str) -> None:
    figure.supxlabel(fill(text, _LETTERS), x=0.01, ha="left", fontsize=8, color=INKS[ink], alpha=0.8)
