"""The pieces of a self-contained HTML page: its frame and style, tables, facts, figures for light and dark pages."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from avseg.evaluation.curves import as_uri

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def html_page(title: str, lead: str, sections: Sequence[tuple[str, str]]) -> str:
    """A whole page.

    Args:
        title: Its heading, as text.
        lead: What stands below it, as HTML.
        sections: Headings as text and bodies as HTML; those without a body are left out.
    """
    body = "\n".join(f"<section>\n<h2>{escape(name)}</h2>\n{html}\n</section>" for name, html in sections if html)
    return _PAGE.format(title=escape(title), style=_STYLE, lead=lead, body=body)


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> str:
    """A table of cells that are HTML already; the first column heads the rows."""
    top = "".join(f"<th scope='col'>{cell}</th>" for cell in head)
    lines = "".join(
        f"<tr><th scope='row'>{row[0]}</th>{''.join(f'<td>{cell}</td>' for cell in row[1:])}</tr>" for row in rows
    )
    below = f'<p class="note">{note}</p>' if note else ""
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>{below}'


def themed(light: "Figure", dark: "Figure", alt: str) -> str:
    """A figure of which a page shows the form that suits it, light or dark."""
    return (
        f'<image><source media="(prefers-color-scheme: dark)" srcset="{as_uri(dark)}">'
        f'<img src="{as_uri(light)}" alt="{escape(alt)}"></image>'
    )


def facts_table(rows: Mapping[str, Any]) -> str:
    """Labelled facts, one a row; empty where there are none."""
    cells = "".join(f"<tr><th scope='row'>{escape(k)}</th><td>{escape(_plain(v))}</td></tr>" for k, v in rows.items())
    return f'<table class="facts">{cells}</table>' if cells else ""


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    return str(value)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{lead}
{body}
</main>
</body>
</html>
"""

_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #59636e; --page: #ffffff; --line: #d1d9e0; --box: #f6f8fa;
  --link: #0b57d0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --soft: #9da7b1; --page: #16191d; --line: #3a4149;
  --box: #20252b; --link: #8ab4f8; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .75rem; text-wrap: balance; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; }
h3 { font-size: 1rem; margin: 0 0 .25rem; font-weight: 600; }
.lead { font-size: 1.15rem; margin: 0 0 .5rem; max-width: 46rem; }
.note, figcaption { color: var(--soft); font-size: .875rem; margin: .5rem 0 1.25rem; max-width: 46rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: baseline; }
td { white-space: nowrap; }
thead th { vertical-align: bottom; }
th { font-weight: 600; }
tbody th { font-weight: 400; min-width: 6rem; }
th:first-child { text-align: left; padding-left: 0; }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.facts th { color: var(--soft); font-weight: 400; min-width: 8rem; }
figure { margin: 0; }
img, video { max-width: 100%; height: auto; display: block; }
video { width: 100%; max-width: 32rem; background: #000; }
.paper { background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: .75rem; }
.paper figcaption { color: #59636e; margin-bottom: 0; }
.paper .scroll img { min-width: 34rem; max-width: 100%; }
.dense th, .dense td { padding: .35rem .4rem; font-size: .875rem; }
.dense th:first-child { padding-left: 0; }
.wide { margin: 1rem 0; }
.wide img { min-width: 34rem; max-width: 100%; }
.narrow img { width: 100%; max-width: 32rem; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1.5rem; }
.panels img { width: 100%; }
pre { background: var(--box); border: 1px solid var(--line); border-radius: 6px; padding: .75rem; overflow-x: auto;
  font: .875rem/1.5 ui-monospace, monospace; }
a { color: var(--link); }
ul { padding-left: 1.2rem; max-width: 46rem; }
@media (max-width: 30rem) { th, td { padding: .35rem .3rem; } body { font-size: 15px; } }
"""
