"""Write results into a document, between its marks ``<!-- bench:begin -->`` and ``<!-- bench:end -->``.

python -m benchmarks.document RESULT.json [RESULT.json ...] docs/speed.md
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avseg.errors import AvsegError
from avseg.files import whole_file
from benchmarks.result import GROUPS, read_result
from benchmarks.table import number, share
from benchmarks.timing import Row

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
_TITLES = {
    "startup": "Starting",
    "attention": "Attention and flow branch",
    "forward": "Forward pass",
    "step": "Training step",
    "flops": "Operations",
    "loader": "Loader",
    "prepare": "Preparing videos",
    "segment": "Segmenting videos",
}


def fill(document: Path, results: Sequence[dict[str, Any]]) -> None:
    """Replace what stands between the marks of ``document``.

    Raises:
        AvsegError: the document is missing or lacks the marks.
    """
    if not document.is_file():
        raise AvsegError(f"{document} does not exist: name a document with the marks {BEGIN} and {END}.")
    text = document.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise AvsegError(f"{document} has no place for results: write {BEGIN} and {END} where they should stand.")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    body = "\n\n".join(markdown(result) for result in results)
    with whole_file(document) as temporary:
        temporary.write_text(f"{before}{BEGIN}\n{body}\n{END}{after}", encoding="utf-8")


def markdown(result: dict[str, Any]) -> str:
    """A result as a heading, a sentence on where it comes from, and tables."""
    machine, settings = result["machine"], result["settings"]
    head = [
        f"### {machine['machine']}",
        f"`{command(settings)}` on {machine['date']}: {machine['machine']}, {machine['memory']}, {settings['threads']} "
        f"threads, PyTorch {machine['torch']}, avseg {machine['avseg']}, revision `{machine['revision']}`, "
        f"{settings['seconds'] / 60:.0f} minutes.",
    ]
    measured = [goal for goal in result["goals"] if goal["verdict"] != "not measured"]
    parts = ["\n\n".join(head)]
    if measured:
        parts.append(_table(("goal", "to reach", "reached", ""), [_goal(goal) for goal in measured]))
    for group, title in _TITLES.items():
        rows = [row for row in result["rows"] if row["group"] == group]
        if rows:
            parts += [f"#### {title}", _table(*_columns(rows))]
    return "\n\n".join(parts)


def command(settings: dict[str, Any]) -> str:
    """The command line that a result comes from."""
    words = ["avseg bench", f"--device {settings['device']}", f"--threads {settings['threads']}"]
    words.append(f"--repeats {settings['repeats']}")
    if set(settings["groups"]) != set(GROUPS):
        words.append(f"--only {','.join(settings['groups'])}")
    if settings["quick"]:
        words.append("--quick")
    if settings["options"] != ["eager"]:
        words.append(f"--options {','.join(settings['options'])}")
    return " ".join(words)


def _goal(goal: dict[str, Any]) -> tuple[str, ...]:
    sign = "≥" if goal["least"] else "≤"
    option = f" with {goal['option']}" if goal["option"] else ""
    unit = goal["unit"] if goal["unit"].startswith("×") else f" {goal['unit']}"
    return (
        goal["name"],
        f"{sign} {goal['target']:g}{unit}",
        f"{number(goal['value'])}{unit}{option}",
        goal["verdict"],
    )


def _columns(rows: Sequence[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and cells of a group; columns that would be empty are left out."""
    cells = {
        "": [row["name"] + (f" ({row['note']})" if row.get("note") else "") for row in rows],
        "ours": [f"{number(row['ours'])} {row['unit']}" for row in rows],
        "plain": [f"{number(row['reference'])} {row['unit']}" if row.get("reference") else "" for row in rows],
        "better": [f"{number(row['ratio'])}×" if row.get("ratio") else "" for row in rows],
        "memory, MiB": [_memory(row) for row in rows],
        "share": [share(row) for row in rows],
        "pixels that change sides": [_flipped(row) for row in rows],
    }
    shown = {name: column for name, column in cells.items() if any(column)}
    return tuple(shown), list(zip(*shown.values(), strict=True))


def _memory(row: Row) -> str:
    ours, reference = row.get("memory_ours"), row.get("memory_reference")
    if ours is None:
        return ""
    return number(ours) if reference is None else f"{number(ours)} / {number(reference)}"


def _flipped(row: Row) -> str:
    apart = row.get("difference")
    return f"{100 * apart['flipped']:.2g} %" if apart else ""


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" if index == 0 else "---:" for index in range(len(head))), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """The command of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULT.json")
    parser.add_argument("document", type=Path)
    asked = parser.parse_args()
    try:
        fill(asked.document, [read_result(path) for path in asked.results])
    except AvsegError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
