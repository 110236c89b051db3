"""A table in the terminal, within 80 columns."""

from dataclasses import replace

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from avseg.reproduce import wording
from avseg.reproduce.hypotheses import Outcomes
from avseg.reproduce.summary import CellSummary, Summary
from avseg.reproduce.wording import DASH, Block

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
