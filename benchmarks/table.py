"""A run's rows and verdicts as plain text, at most 80 columns wide."""

import textwrap
from collections.abc import Sequence
from typing import Any

from benchmarks.timing import Row

_NAME = 34
_GOAL = 38
_HEAD = f"{'':{_NAME}} {'ours':>9} {'plain':>9} {'unit':<9} {'better':>6}  memory"


def table(rows: Sequence[Row]) -> str:
    """Rows by group. ``better`` is how many times ours is faster; ``memory`` is ours as a share of the reference's."""
    lines: list[str] = []
    for group in dict.fromkeys(row["group"] for row in rows):
        lines += ["", _HEAD.replace(" " * _NAME, f"{group:<{_NAME}}", 1), "-" * 80]
        for row in rows:
            if row["group"] == group:
                lines += _lines(row)
    return "\n".join(lines[1:])


def _lines(row: Row) -> list[str]:
    first, *more = textwrap.wrap(row["name"], _NAME, subsequent_indent="  ")
    values = (number(row.get("ours")), number(row.get("reference")))
    times = "" if row.get("ratio") is None else f"{number(row['ratio'])}×"
    line = f"{first:<{_NAME}} {values[0]:>9} {values[1]:>9} {row['unit']:<9} {times:>6}  {share(row)}".rstrip()
    notes = [note for text in _notes(row) for note in textwrap.wrap(text, 78, initial_indent="  ")]
    return [line, *more, *notes]


def _notes(row: Row) -> list[str]:
    notes = [row["note"]] if row.get("note") else []
    if row.get("option", "eager") != "eager" and row.get("difference"):
        apart = row["difference"]
        changed = f"{100 * apart['flipped']:.2g} % of pixels change sides"
        notes.append(f"probabilities differ by {apart['largest']:.1g} at most, {changed}")
    if row.get("supervised"):
        notes.append(f"a supervised step: {number(row['supervised'])} ms")
    return [f"({note})" for note in notes]


def share(row: Row) -> str:
    """Ours as a share of the reference's memory, or what there is of both."""
    ours, reference = row.get("memory_ours"), row.get("memory_reference")
    if ours is None or not reference:
        return ""
    return f"{ours / reference:.2f}" if ours >= 0.01 * reference else f"{ours / reference:.4f}"


def number(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.{1 if abs(value) >= 10 else 2}f}"


def report(result: dict[str, Any]) -> str:
    """A whole run: machine, rows, and which goals are reached."""
    parts = [machine_lines(result["machine"]), table(result["rows"])]
    measured = [goal for goal in result["goals"] if goal["verdict"] != "not measured"]
    if measured:
        parts.append(
            "\n".join([f"{'goals':<{_GOAL}} {'reached':>9} {'to reach':>11}", "-" * 80, *map(_goal, measured)])
        )
    return "\n\n".join(parts)


def _goal(goal: dict[str, Any]) -> str:
    sign = "≥" if goal["least"] else "≤"
    option = f"\n  (with {goal['option']})" if goal["option"] else ""
    target = f"{sign} {goal['target']:g}"
    return (
        f"{goal['name']:<{_GOAL}} {number(goal['value']):>9} {target:>11} {goal['unit']:<8} {goal['verdict']}{option}"
    )


def machine_lines(machine: dict[str, Any]) -> str:
    """The machine in a few lines."""
    words = [f"{name} {value}" for name, value in machine.items() if name != "machine" and value not in (None, "")]
    return textwrap.fill(", ".join([machine["machine"], *words]), 80)
