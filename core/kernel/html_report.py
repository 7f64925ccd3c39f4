"""Reports as one HTML file that needs nothing else: no script, charts drawn as SVG.

Plotly's script inside a file would make it some 4.5 MB and need JavaScript, which mail programs
and many viewers refuse; drawn charts take a few kilobytes, print well, and nothing in them runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape

NONE = "—"
_STYLE = """
:root { color-scheme: light dark; --line: light-dark(#dfe4df, #2a3531);
  --soft: light-dark(#5c6663, #9aa7a2); --card: light-dark(#f4f7f3, #19211e);
  --warn: light-dark(#fff4dc, #3a2f14); }
body { font: 15px/1.55 Inter, system-ui, sans-serif; max-width: 1020px; margin: 2rem auto;
  padding: 0 1rem; color: light-dark(#1c2321, #e7ece9); background: light-dark(#fff, #0f1513); }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
p.soft, td.soft, .soft { color: var(--soft); } .warn { background: var(--warn); border-radius: 8px;
  padding: .6rem .9rem; margin: .5rem 0; } a { color: inherit; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: .7rem; }
.card { background: var(--card); border-radius: 10px; padding: .7rem .9rem; }
.card b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
td:first-child { min-width: 9rem; }
td:not(:first-child):not(:last-child) { white-space: nowrap; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums; } th { color: var(--soft); font-weight: 600; }
pre { background: var(--card); padding: .8rem; border-radius: 8px; overflow-x: auto; }
svg { max-width: 100%; height: auto; } svg text { fill: currentColor; }
"""


def document(title: str, body: Iterable[str]) -> str:
    """The whole file; `body` is HTML, whose texts are already escaped."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain texts that scrolls on a narrow screen."""
    return linked_table(header, [[escape(cell) for cell in row] for row in rows])


def linked_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose cells are HTML, such as `link` makes; its header is plain text."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def link(text: str, url: str) -> str:
    """A link, or the plain text where there is no web address."""
    if not url.startswith(("https://", "http://")):
        return escape(text)
    return f'<a href="{escape(url)}" rel="noopener">{escape(text)}</a>'


def cards(found: Iterable[tuple[str, str, str]]) -> str:
    """Numbers side by side: label, value with its unit, note."""
    return '<div class="cards">' + "".join(_card(*each) for each in found) + "</div>"


def _card(label: str, value: str, note: str) -> str:
    return (
        f'<div class="card"><span class="soft">{escape(label)}</span><b>{escape(value)}</b>'
        f'<span class="soft">{escape(note)}</span></div>'
    )


def moment(at: datetime) -> str:
    """A moment in UTC, to the minute."""
    return at.strftime("%Y-%m-%d %H:%M UTC")


def svg(width: float, height: float, parts: Sequence[str], title: str) -> str:
    """A drawing that scales with the page."""
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}" '
        f'font-size="13" font-family="inherit">{"".join(parts)}</svg>'
    )


def text(x: float, y: float, said: str, anchor: str = "start") -> str:
    """A text of a drawing."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'
