"""What documents show of a table's results, as rows of text: results, gains, breakdowns, settings, provenance."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from statistics import fmean
from typing import Any

from avseg.reproduce import wording
from avseg.reproduce.hypotheses import Outcomes
from avseg.reproduce.records import Record
from avseg.reproduce.summary import CellSummary, Summary
from avseg.reproduce.wording import DASH, Block

# Settings that say where a run happened rather than what it was, and those of which only the file's name says what.
_PLACES = ("run.", "data.root", "data.store", "data.workers")
_FILES = ("data.labelled", "data.distant_root", "weights.start", "weights.image", "weights.audio", "weights.flow")


@dataclass(frozen=True)
class Sheet:
    """A table of plain text; a cell may have several lines.

    Attributes:
        title: Its heading; may be empty.
        head: One for each column; the first column heads the rows.
        rows: Cells.
        note: What stands below it.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def result_sheet(summary: Summary, block: Block) -> Sheet:
    """Ours and the papers', row by row, with gains."""
    over = list(dict.fromkeys(wording.over(summary, cell, gain.over) for cell in block.cells for gain in cell.gains))
    printed = [
        name for name in block.papers if any(name in gains for c in block.cells for gains in c.published_gains.values())
    ]
    head = ["", "mIoU, %", "F", "seeds"]
    if over:
        head += [f"gain{' ' + over[0] if len(over) == 1 else ''}, mIoU", "p"]
    for name in block.papers:
        paper = wording.encoder_name(name)
        head += [f"paper, {paper}: mIoU, %", "F", *(["gain"] if name in printed else [])]
    rows = []
    for cell in block.cells:
        row = [
            cell.cell.row.label,
            wording.miou(cell.miou),
            wording.f_score(cell.f_score),
            str(len(cell.records)) if cell.records else DASH,
        ]
        if over:
            row += _gain_cells(summary, cell, len(over) > 1)
        for name in block.papers:
            numbers = cell.published.get(name)
            row += [wording.printed(numbers, "miou"), wording.printed(numbers, "f_score")]
            if name in printed:
                gains = [by_encoder[name].miou for by_encoder in cell.published_gains.values() if name in by_encoder]
                row.append("\n".join(filter(None, gains)) or DASH)
        rows.append(row)
    return Sheet(block.column.label if block.column else "", head, rows)


def gains_sheet(summary: Summary) -> Sheet:
    """All gains with both metrics."""
    rows = [
        [
            f"{wording.full_label(cell)}, {wording.over(summary, cell, gain.over)}",
            wording.miou_gain(gain.miou),
            wording.f_score_gain(gain.f_score),
            wording.p_value(gain.p),
            str(gain.miou.seeds),
            str(gain.miou.videos),
        ]
        for cell, gain in summary.gains
    ]
    return Sheet("", ["", "mIoU, points", "F", "p", "seeds", "videos"], rows)


def answers_sheet(outcomes: Outcomes) -> Sheet:
    """The answers to what was asked beforehand."""
    rows = []
    for one in outcomes.outcomes:
        found = one.difference
        rows.append(
            [
                one.hypothesis.question,
                one.hypothesis.label,
                wording.miou_gain(found) if found else DASH,
                wording.p_value(one.p),
                str(found.seeds) if found else DASH,
                str(found.videos) if found else DASH,
            ]
        )
    head = ["", "difference", "mIoU, points [95 % interval]", "p", "seeds", "videos"]
    return Sheet(outcomes.protocol.title, head, rows)


def diagnostics_sheets(summary: Summary) -> list[Sheet]:
    """Choice of the object, quality of its mask and silent seconds, by kind of scene: means over seeds."""
    found = []
    for subset in summary.data:
        cells = [cell for cell in summary.cells if cell.records and cell.records[0].subset == subset]
        cells = [cell for cell in cells if all("sounding" in one.diagnostics for one in cell.records)]
        if not cells:
            continue
        where = f" ({subset.upper()})" if len(summary.data) > 1 else ""
        first = cells[0].records[0].diagnostics
        kinds = {"all": first["sounding"], **first.get("strata", {})}
        frames = ["frames", *(str(kind["frames"]) for kind in kinds.values())]
        for key, title, note in (
            ("selection", "Right object, % of frames", "Frames whose mask has an IoU above 0.5 with the truth."),
            ("quality", "IoU where the object is right, %", "The mean over these frames alone."),
            ("iou", "IoU, %", "The mean over all frames with a sounding object."),
        ):
            rows = [
                [wording.full_label(cell), *(_mean_percent(cell.records, _kind_value(kind, key)) for kind in kinds)]
                for cell in cells
            ]
            found.append(Sheet(f"{title}{where}", ["", *kinds], [frames, *rows], note))
        silent = first["silent"]["frames"]
        if silent:
            rows = [
                [wording.full_label(cell), _mean_percent(cell.records, lambda one: one["silent"]["background"])]
                for cell in cells
            ]
            note = f"{silent} frames in which nothing sounds: the share of their pixels that is left unmarked."
            found.append(Sheet(f"Silent seconds{where}", ["", "background kept, %"], rows, note))
    return found


def settings_sheet(summary: Summary) -> Sheet:
    """In what cells differ: settings of the configuration, parameters, steps, wall time."""
    cells = [cell for cell in summary.cells if cell.records]
    settings = {cell.cell.key: settings_of(cell.records[0]) for cell in cells}
    names = sorted({name for values in settings.values() for name in values})
    varying = [name for name in names if len({values.get(name, DASH) for values in settings.values()}) > 1]
    rows = [
        [
            wording.full_label(cell),
            *(settings[cell.cell.key].get(name, DASH) for name in varying),
            _span(cell.records, lambda one: f"{one.steps:,}"),
            _span(cell.records, lambda one: f"{one.parameters / 1e6:.2f}"),
            f"{fmean(one.seconds for one in cell.records) / 60:.1f}",
        ]
        for cell in cells
    ]
    note = "Settings that are the same in all cells are left out. Parameters in millions, minutes of training a run."
    return Sheet("", ["", *varying, "steps", "parameters", "minutes"], rows, note)


def settings_of(record: Record) -> dict[str, str]:
    """The settings of a run by dotted name, without those that say where it happened."""
    return {
        name: json.dumps(PurePath(value).name if name in _FILES and isinstance(value, str) else value).strip('"')
        for name, value in _flat(record.config)
        if not name.startswith(_PLACES)
    }


def provenance(summary: Summary) -> dict[str, str]:
    """Where the numbers come from: data, revision, versions, machines, dates, wall time."""
    records = summary.records
    if not records:
        return {}
    facts = {f"{subset.upper()} data": wording.data_name(data) for subset, data in summary.data.items()}
    for name in sorted({name for one in records for name in one.origin}, key=_origin_order):
        facts[name] = ", ".join(sorted({str(one.origin[name]) for one in records if one.origin.get(name)})) or DASH
    facts["runs"] = f"{len(records)}, {wording.hours(records)} of training together"
    return facts


def _gain_cells(summary: Summary, cell: CellSummary, name_them: bool) -> list[str]:
    if not cell.gains:
        return [DASH if cell.cell.row.against else "", DASH if cell.cell.row.against else ""]
    lines = [
        wording.miou_gain(gain.miou) + (f" {wording.over(summary, cell, gain.over)}" if name_them else "")
        for gain in cell.gains
    ]
    return ["\n".join(lines), "\n".join(wording.p_value(gain.p) for gain in cell.gains)]


def _kind_value(kind: str, key: str) -> Callable[[Mapping[str, Any]], float | None]:
    def value(diagnostics: Mapping[str, Any]) -> float | None:
        part = diagnostics["sounding"] if kind == "all" else diagnostics.get("strata", {}).get(kind, {})
        return part.get(key)

    return value


def _mean_percent(records: Sequence[Record], value: Callable[[Mapping[str, Any]], float | None]) -> str:
    known = [found for one in records if (found := value(one.diagnostics)) is not None]
    return f"{100 * fmean(known):.1f}" if known else DASH


def _span(records: Sequence[Record], form: Callable[[Record], str]) -> str:
    return " / ".join(dict.fromkeys(form(one) for one in records))


def _origin_order(name: str) -> tuple[int, str]:
    first = ("date", "machine", "revision", "avseg")
    return (first.index(name) if name in first else len(first)), name


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
