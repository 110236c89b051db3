"""A table's results in the terminal, as Markdown, and as one HTML page that needs nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from avseg.evaluation.page import facts_table, html_page, html_table, themed
from avseg.files import whole_file
from avseg.reproduce import figures, wording
from avseg.reproduce.hypotheses import Outcomes
from avseg.reproduce.sheets import (
    Sheet,
    answers_sheet,
    diagnostics_sheets,
    gains_sheet,
    provenance,
    result_sheet,
    settings_of,
    settings_sheet,
)
from avseg.reproduce.summary import CellSummary, Summary
from avseg.reproduce.wording import DASH, Block

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PAPERS = 2  # published columns beside which there is room for the standard deviation of F


def to_terminal(summary: Summary) -> RenderableType:
    """A table for `rich.console.Console.print`: ours and the papers', gains below each row, remarks below the table."""
    parts: list[RenderableType] = [Text(wording.heading(summary), style="bold")]
    parts += [Text(line, style="dim") for line in (wording.ours(summary), wording.papers(summary)) if line]
    for block in wording.blocks(summary):
        parts += [Text(), _block(summary, block)]
    parts.append(Text())
    parts += [Text(line, style="dim") for line in wording.remarks(summary)]
    return Group(*parts)


def answers_to_terminal(outcomes: Outcomes) -> RenderableType:
    """The answers to what was asked beforehand."""
    table = _table()
    table.add_column(outcomes.protocol.title, overflow="fold")
    for name in ("points [95 % interval]", "p", "seeds"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in outcomes.outcomes:
        found = one.difference
        table.add_row(
            one.hypothesis.label,
            wording.miou_gain(found) if found else DASH,
            wording.p_value(one.p),
            str(found.seeds) if found else DASH,
        )
    return Group(table, Text(), *(Text(line, style="dim") for line in wording.answer_remarks(outcomes)))


def _block(summary: Summary, block: Block) -> Table:
    table = _table()
    table.add_column(block.column.label if block.column else "", overflow="fold")
    table.add_column("mIoU, %", justify="right", no_wrap=True)
    table.add_column("F", justify="right", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    for name in block.papers:
        table.add_column(wording.encoder_name(name), no_wrap=True)
    roomy = len(block.papers) <= _PAPERS
    for cell in block.cells:
        table.add_row(
            cell.cell.row.label,
            wording.miou(cell.miou),
            wording.f_score(cell.f_score if roomy else cell.f_score and replace(cell.f_score, sd=None)),
            str(len(cell.records) or ""),
            *(_published(cell, name) for name in block.papers),
        )
        for place, published in cell.published_gains.items():
            gain = wording.gain_over(cell, place)
            numbers = [published[name].miou if name in published else "" for name in block.papers]
            if gain or any(numbers):
                table.add_row(
                    f"  {wording.over(summary, cell, place)}",
                    wording.miou_gain(gain.miou) if gain else DASH,
                    f"p {wording.p_value(gain.p)}" if gain else "",
                    str(gain.miou.seeds) if gain else "",
                    *numbers,
                    style="dim",
                )
    return table


def _published(cell: CellSummary, encoder: str) -> str:
    numbers = cell.published.get(encoder)
    if numbers is None:
        return DASH
    return " ".join(filter(None, (numbers.miou, numbers.f_score)))


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)


def to_markdown(summary: Summary, details: bool = False, level: int = 3) -> str:
    """A table with what it is of above it and remarks below.

    Args:
        summary: The results.
        details: Whether to add gains of both metrics, breakdowns, settings and provenance.
        level: Of the heading, 1 to 5.
    """
    parts = [f"{'#' * level} {wording.heading(summary)}", summary.experiment.question]
    parts += [f"{line}." for line in (wording.ours(summary), wording.papers(summary)) if line]
    parts += [sheet_markdown(result_sheet(summary, block)) for block in wording.blocks(summary)]
    parts.append("\n".join(f"- {_inline(line)}" for line in wording.remarks(summary)))
    if details:
        below = "#" * (level + 1)
        sections = [
            ("Gains", [gains_sheet(summary)] if summary.gains else []),
            ("Where the score comes from", diagnostics_sheets(summary)),
            ("In what the cells differ", [settings_sheet(summary)] if summary.records else []),
        ]
        for title, sheets in sections:
            if sheets:
                parts += [f"{below} {title}", *map(sheet_markdown, sheets)]
        facts = provenance(summary)
        if facts:
            rows = [[name, value] for name, value in facts.items()]
            parts += [f"{below} Where the numbers come from", sheet_markdown(Sheet("", ["", ""], rows))]
    return "\n\n".join(filter(None, parts)) + "\n"


def answers_to_markdown(outcomes: Outcomes, level: int = 3) -> str:
    """The answers to what was asked beforehand, with remarks below."""
    sheet = answers_sheet(outcomes)
    remarks = "\n".join(f"- {_inline(line)}" for line in wording.answer_remarks(outcomes))
    table = sheet_markdown(Sheet("", sheet.head, sheet.rows))
    return f"{'#' * level} {sheet.title}\n\n{table}\n\n{remarks}\n"


def sheet_markdown(sheet: Sheet) -> str:
    """A sheet as a Markdown table, its numbers to the right."""
    lines = [sheet.head, [":--", *["--:"] * (len(sheet.head) - 1)], *sheet.rows]
    table = "\n".join(f"| {' | '.join(_inline(cell) for cell in line)} |" for line in lines)
    return "\n\n".join(filter(None, (f"**{sheet.title}**" if sheet.title else "", table, sheet.note)))


def to_html(summary: Summary, outcomes: Outcomes | None = None, commands: Sequence[str] = ()) -> str:
    """A whole page: table, gains, breakdowns, training, settings, provenance, figures for light and dark.

    Args:
        summary: The results.
        outcomes: The answers to what was asked beforehand, where they belong to this table.
        commands: Shell commands that make the numbers again.
    """
    lead = "".join(
        f'<p class="{kind}">{escape(line)}.</p>'
        for kind, line in (
            ("lead", summary.experiment.question.rstrip(".?") + "?"),
            ("note", wording.ours(summary)),
            ("note", wording.papers(summary)),
        )
        if line
    ).replace("?.</p>", "?</p>")
    sections = [
        ("Results", _results(summary)),
        ("Gains", _gains(summary)),
        ("What was asked beforehand", _answers(outcomes) if outcomes else ""),
        ("Where the score comes from", "".join(map(_sheet, diagnostics_sheets(summary)))),
        ("Validation while training", _figure(figures.validation_figure, summary, "Validation mIoU over steps")),
        ("Pseudo masks while training", _pseudo(summary)),
        ("In what the cells differ", _sheet(settings_sheet(summary)) if summary.records else ""),
        ("Where the numbers come from", facts_table(provenance(summary)) + _settings(summary)),
        ("Do it again", f"<pre><code>{escape(chr(10).join(commands))}</code></pre>" if commands else ""),
    ]
    return html_page(wording.heading(summary), lead, sections)


def write_documents(
    summary: Summary, folder: str | Path, outcomes: Outcomes | None = None, commands: Sequence[str] = ()
) -> list[Path]:
    """Write ``NAME.md``, ``NAME.html`` and the figures ``NAME.png``, ``NAME-training.png``, ``NAME-pseudo.png``.

    Args:
        summary: The results.
        folder: Where to; made where it is missing.
        outcomes, commands: See `to_html`.

    Returns:
        What was written: figures of what nothing was run for are left out.
    """
    folder, name = Path(folder), summary.experiment.name
    markdown = to_markdown(summary, details=True, level=1)
    if outcomes:
        markdown += f"\n{answers_to_markdown(outcomes, level=2)}"
    written = []
    for path, text in (
        (folder / f"{name}.md", markdown),
        (folder / f"{name}.html", to_html(summary, outcomes, commands)),
    ):
        with whole_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        written.append(path)
    if summary.records:
        written.append(figures.save_picture(figures.arms_figure(summary), folder / f"{name}.png"))
    for kind, draw in (("training", figures.validation_figure), ("pseudo", figures.pseudo_figure)):
        figure = draw(summary)
        if figure:
            written.append(figures.save_picture(figure, folder / f"{name}-{kind}.png"))
    return written


def write_answers(outcomes: Outcomes, name: str, folder: str | Path) -> list[Path]:
    """Write the answers to a protocol's questions: ``NAME.md``, and the figure ``NAME.png`` where there are any.

    Returns:
        What was written.
    """
    path = Path(folder) / f"{name}.md"
    with whole_file(path) as temporary:
        temporary.write_text(answers_to_markdown(outcomes, level=1), encoding="utf-8")
    if not any(one.difference for one in outcomes.outcomes):
        return [path]
    return [path, figures.save_picture(figures.answers_figure(outcomes), path.with_suffix(".png"))]


def _results(summary: Summary) -> str:
    tables = "".join(_sheet(result_sheet(summary, block)) for block in wording.blocks(summary))
    image = _figure(figures.arms_figure, summary, "Test mIoU of every seed") if summary.records else ""
    remarks = "".join(f"<li>{escape(line)}</li>" for line in wording.remarks(summary))
    return f'<div class="dense">{tables}</div>{image}<ul>{remarks}</ul>'


def _gains(summary: Summary) -> str:
    if not summary.gains:
        return ""
    return _sheet(gains_sheet(summary)) + _figure(figures.gains_figure, summary, "Gains with their intervals")


def _answers(outcomes: Outcomes) -> str:
    sheet = answers_sheet(outcomes)
    remarks = "".join(f"<li>{escape(line)}</li>" for line in wording.answer_remarks(outcomes))
    table = _sheet(Sheet("", sheet.head, sheet.rows))
    if not any(one.difference for one in outcomes.outcomes):
        return f"{table}<ul>{remarks}</ul>"
    light, dark = (figures.answers_figure(outcomes, ink) for ink in ("light", "dark"))
    return f'{table}<div class="narrow">{themed(light, dark, sheet.title)}</div><ul>{remarks}</ul>'


def _pseudo(summary: Summary) -> str:
    figure = _figure(figures.pseudo_figure, summary, "IoU of the pseudo masks and their share of foreground")
    note = "Means over seeds, on distant frames whose truth no training reads; dashed: the truth's share of foreground."
    return figure and f'{figure}<p class="note">{note}</p>'


def _figure(draw: "Callable[[Summary, str], Figure | None]", summary: Summary, alt: str) -> str:
    light, dark = draw(summary, "light"), draw(summary, "dark")
    return f'<figure class="scroll wide">{themed(light, dark, alt)}</figure>' if light and dark else ""


def _settings(summary: Summary) -> str:
    """The whole configuration of the first run, folded away."""
    first = next((cell for cell in summary.cells if cell.records), None)
    if first is None:
        return ""
    lines = "\n".join(f"{name}: {value}" for name, value in settings_of(first.records[0]).items())
    title = f"All settings of “{wording.full_label(first)}”"
    return f"<details><summary>{escape(title)}</summary><pre><code>{escape(lines)}</code></pre></details>"


def _sheet(sheet: Sheet) -> str:
    def lines(cells: Sequence[str]) -> list[str]:
        return [escape(cell).replace("\n", "<br>") for cell in cells]

    title = f"<h3>{escape(sheet.title)}</h3>" if sheet.title else ""
    return title + html_table(lines(sheet.head), [lines(row) for row in sheet.rows], escape(sheet.note))


def _inline(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>")
