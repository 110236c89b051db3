"""How a table's numbers and surroundings are worded, in the terminal, in Markdown and on a page alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avseg.evaluation.compare import Difference
from avseg.reproduce.definition import Axis, Published
from avseg.reproduce.hypotheses import Outcomes
from avseg.reproduce.records import Record
from avseg.reproduce.summary import CellSummary, Gain, Spread, Summary

DASH = "–"
ENCODERS = {
    "resnet50": "ResNet-50",
    "pvt_v2_b5": "PVT-v2",
    "sam_vit_b": "SAM ViT-B",
    "sam_vit_h": "SAM ViT-H",
    "efficientnet_lite0": "EfficientNet-Lite0",
}


@dataclass(frozen=True)
class Block:
    """The part of a table that is printed in one piece: a column of it, or all where it has no columns.

    Attributes:
        column: Which; None where there are none.
        cells: Its cells.
        papers: The image encoders that a paper gives numbers for here.
    """

    column: Axis | None
    cells: list[CellSummary]
    papers: list[str]


def blocks(summary: Summary) -> list[Block]:
    """A table in pieces, in order."""
    found = []
    for column in summary.experiment.columns or (None,):
        cells = summary.column(column.key if column else None)
        papers = [name for name in summary.experiment.paper if any(name in cell.published for cell in cells)]
        found.append(Block(column, cells, papers))
    return found


_SIZES = {"truth": "the truth's", "model": "the model's"}


def encoder_name(encoder: str) -> str:
    """An image encoder in words."""
    return ENCODERS.get(encoder, encoder)


def heading(summary: Summary) -> str:
    """``Table 5. Neighbouring frames …``"""
    name = summary.experiment.name
    known = f"Table {name[5:]}" if name.startswith("table") else name.capitalize()
    return f"{known}. {summary.experiment.title}"


def ours(summary: Summary) -> str:
    """What our numbers are of: data with their hash, encoder, image size, steps, T, seeds."""
    records = summary.records
    if not records:
        return f"Ours ({encoder_name(summary.encoder)}): nothing has been run yet"
    sizes = sorted({one.config["model"]["inputs"]["image_size"] for one in records})
    seeds = [len(cell.records) for cell in summary.cells if cell.records]
    return ", ".join(
        (
            f"Ours: {_data_names(summary.data)}",
            encoder_name(summary.encoder),
            f"{_span(sizes)} px",
            f"{_span(sorted({one.steps for one in records}))} steps",
            summary.protocol.replace("=", " = "),
            f"{_span(sorted(set(seeds)))} seed{'s' * (max(seeds) > 1)}",
            f"scale “{summary.scale}”",
            f"scored at {' or '.join(sorted({_SIZES[one.size] for one in records}))} size",
        )
    )


def data_name(data: Mapping[str, Any]) -> str:
    """Data in words, with their hash."""
    return f"{_kind(data)} (hash {data.get('hash', 'unknown')})"


def papers(summary: Summary) -> str:
    """What the published numbers are of, and whether ours may be held against them; empty where there are none."""
    names = [name for name in summary.experiment.paper if any(name in cell.published for cell in summary.cells)]
    if not names:
        return ""
    of = f"Paper: {summary.experiment.source}; AVSBench, {', '.join(map(encoder_name, names))}"
    kinds = {str(data.get("kind", "")) for data in summary.data.values()}
    if kinds and all(kind.startswith("AVSBench") for kind in kinds) and summary.encoder in names:
        # A folder in AVSBench's layout may hold anyone's videos.
        return f"{of}. Comparable with ours where our data are AVSBench itself"
    return f"{of}. Other data, other encoders: set the gains side by side, never the scores"


def miou(spread: Spread | None) -> str:
    """``78.15 ± 0.32``: percent."""
    return _spread(spread, percent)


def f_score(spread: Spread | None) -> str:
    """``.887 ± .004``: in [0, 1]."""
    return _spread(spread, fraction)


def percent(value: float) -> str:
    """0.7815 as ``78.15``."""
    return f"{100 * value:.2f}"


def fraction(value: float, sign: str = "") -> str:
    """0.887 as ``.887``, as the papers print it."""
    return f"{value:{sign}.3f}".replace("0.", ".", 1) if abs(value) < 0.9995 else f"{value:{sign}.3f}"


def miou_gain(gain: Difference) -> str:
    """``+1.10 [+0.42, +1.78]``: percentage points and their interval."""
    return f"{100 * gain.mean:+.2f} [{100 * gain.low:+.2f}, {100 * gain.high:+.2f}]"


def f_score_gain(gain: Difference) -> str:
    """``+.011 [+.004, +.018]``."""
    return f"{fraction(gain.mean, '+')} [{fraction(gain.low, '+')}, {fraction(gain.high, '+')}]"


def p_value(p: float | None) -> str:
    """``0.0123``, or a dash."""
    return DASH if p is None else f"{p:.4f}"


def over(summary: Summary, cell: CellSummary, place: tuple[str, str]) -> str:
    """``over neither``; for a row of another table with that table: ``over neither (Table 5)``."""
    table = f" (Table {place[0][5:]})" if place[0].startswith("table") else f" ({place[0]})"
    return f"over {summary.labels[place]}{table * (place[0] != cell.cell.table)}"


def gain_over(cell: CellSummary, place: tuple[str, str]) -> Gain | None:
    """The gain of a cell over a place, if there is one."""
    return next((gain for gain in cell.gains if gain.over == place), None)


def printed(published: Published | None, metric: str) -> str:
    """A published number as printed, or a dash."""
    return (getattr(published, metric) if published else "") or DASH


def full_label(cell: CellSummary) -> str:
    """Row, after the column where there is one."""
    return f"{cell.cell.column.label}: {cell.cell.row.label}" if cell.cell.column else cell.cell.row.label


def remarks(summary: Summary) -> list[str]:
    """What stands below a table, in sentences."""
    found = []
    if summary.records:
        found.append("± is the standard deviation over seeds.")
    if summary.gains:
        gains = [gain for _, gain in summary.gains]
        found.append(
            f"Gains are paired by seed and video; in brackets {100 * gains[0].miou.confidence:g} % intervals of a "
            f"bootstrap over seeds and {_span(sorted({gain.miou.videos for gain in gains}))} test videos. p, of no "
            f"difference in mIoU, is two-sided and corrected after Holm over the table's "
            f"{len(gains)} gain{'s' * (len(gains) > 1)}."
        )
        if any(gain.miou.seeds == 1 for gain in gains):
            found.append("With one seed an interval does not say how much another training run would differ.")
    return [*found, *summary.notes]


def answer_remarks(outcomes: Outcomes) -> list[str]:
    """What stands below the answers to a protocol's questions, in sentences."""
    found = [
        f"{_data_names(outcomes.data) or 'No results'}, {encoder_name(outcomes.encoder)}, scale “{outcomes.scale}”; "
        f"{outcomes.protocol.protocol.replace('=', ' = ')}, mIoU."
    ]
    found += [
        f"{one.hypothesis.label}: the better one by its mean over all seeds and videos is {one.better}."
        for one in outcomes.outcomes
        if one.better
    ]
    found += [
        f"{one.hypothesis.label}: no answer without results of {', '.join(one.missing)}."
        for one in outcomes.outcomes
        if one.missing
    ]
    found += [
        f"{one.hypothesis.label}: no answer, as no seed is in all of its cells."
        for one in outcomes.outcomes
        if not one.missing and one.difference is None
    ]
    found.append(
        "Paired by seed and video; intervals of a bootstrap over seeds and videos; p corrected after Holm over all "
        f"{len(outcomes.outcomes)}, a missing one counting as p = 1."
    )
    return [*found, *outcomes.notes]


def hours(records: Sequence[Record]) -> str:
    """The wall time of some runs together."""
    minutes = sum(one.seconds for one in records) / 60
    return f"{minutes / 60:.1f} h" if minutes >= 120 else f"{minutes:.0f} min"


def _kind(data: Mapping[str, Any]) -> str:
    kind = str(data.get("kind", "unknown data"))
    if not data.get("edition"):
        return kind
    version = str(data.get("version", "")).split(" ")[0]
    return f"generated benchmark {data['edition']} {version}".rstrip()


def _data_names(data: Mapping[str, Mapping[str, Any]]) -> str:
    """The data of all subsets; a kind that they share is said once."""
    kinds = {_kind(one) for one in data.values()}
    if len(data) > 1 and len(kinds) == 1:
        hashes = ", ".join(f"{subset.upper()} {one.get('hash', 'unknown')}" for subset, one in data.items())
        return f"{kinds.pop()} (hashes {hashes})"
    return "; ".join(data_name(one) for one in data.values())


def _spread(spread: Spread | None, form: Any) -> str:
    if spread is None:
        return DASH
    return form(spread.mean) if spread.sd is None else f"{form(spread.mean)} ± {form(spread.sd)}"


def _span(values: Sequence[Any]) -> str:
    return f"{values[0]}" if len(values) == 1 else f"{values[0]}–{values[-1]}"
