"""Draw a result: how many times faster ours is, and how the cost of attention grows with T.

python -m benchmarks.plot RESULT.json PICTURE.png
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avseg.errors import AvsegError
from avseg.files import whole_file
from avseg.render import OKABE_ITO
from benchmarks.result import read_result
from benchmarks.table import number
from benchmarks.timing import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_KINDS = (".png", ".svg", ".pdf")
_GROUPS = {"attention": "bluish green", "forward": "blue", "step": "vermillion", "loader": "orange"}
_GROWTH = (("attention", "TPAVI attention", "bluish green"), ("block", "TPAVI block", "blue"))


def plot(result: dict[str, Any], path: Path) -> Path:
    """Draw a result to ``path``; its suffix is the format.

    Raises:
        AvsegError: a format that there is not, or a result without a single comparison.
    """
    check_format(path)
    bars = [row for row in result["rows"] if row.get("ratio") and row["group"] in _GROUPS]
    if not bars:
        raise AvsegError("There is nothing to draw: measure one of the groups " + ", ".join(_GROUPS) + ".")
    from matplotlib.figure import Figure

    tall = max(3.2, 0.22 * len(bars) + 0.9)
    figure = Figure(figsize=(12, tall), facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _ratios(left, bars)
    _growth(right, result["rows"])
    figure.suptitle(f"avseg {result['machine']['revision']}, {result['machine']['machine']}", fontsize=9)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=130)
    return path


def check_format(path: Path) -> None:
    """Raise AvsegError where ``path`` names no format of images."""
    if path.suffix not in _KINDS:
        raise AvsegError(f"{path} is no image: give a name that ends in {', '.join(_KINDS)}.")


def _colour(name: str) -> tuple[float, ...]:
    return tuple(channel / 255 for channel in OKABE_ITO[name])


def _ratios(axes: "Axes", rows: list[Row]) -> None:
    from matplotlib.ticker import ScalarFormatter

    places = range(len(rows), 0, -1)
    ratios = [row["ratio"] for row in rows]
    colours = [_colour(_GROUPS[row["group"]]) for row in rows]
    axes.barh(places, [value - 1 for value in ratios], left=1, color=colours, height=0.7)
    axes.set_yticks(places, [row["name"] for row in rows], fontsize=7)
    for place, value in zip(places, ratios, strict=True):
        axes.text(value * 1.03, place, f"{number(value)}×", va="center", fontsize=7)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlim(min(0.9, 0.9 * min(ratios)), 1.6 * max(ratios))
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("times faster than the plain reference", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def _growth(axes: "Axes", rows: list[Row]) -> None:
    for part, label, colour in _GROWTH:
        found = [row for row in rows if row.get("part") == part and row["group"] == "attention" and not row["training"]]
        for key, style, whose in (("ours", "-", "ours"), ("reference", "--", "plain")):
            points = sorted((row["frames"], row[key]) for row in found if row[key])
            if points:
                axes.plot(
                    *zip(*points, strict=True), style, marker="o", color=_colour(colour), label=f"{label}, {whose}"
                )
    axes.set_yscale("log")
    axes.set_xticks(sorted({row["frames"] for row in rows if row["group"] == "attention"}))
    axes.set_xlabel("frames of a clip, T", fontsize=8)
    axes.set_ylabel("milliseconds, one clip at stride 4", fontsize=8)
    if axes.lines:
        axes.legend(fontsize=7, frameon=False)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """The command of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("picture", type=Path)
    asked = parser.parse_args()
    try:
        plot(read_result(asked.result), asked.picture)
    except AvsegError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
