"""A view of a task to take away: one HTML file that needs nothing else, and a CSV of its rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd

from core.kernel import clock
from core.kernel import html_report as page
from core.leaderboards.ranking import since
from core.leaderboards.schemas import Evidence, Query, Ranking
from core.leaderboards.tasks import find

_MOST_ROWS = 50
_MOST_BARS = 20
_WIDTH, _ROW, _LEFT, _RIGHT = 900, 24, 290, 40
_METHOD = (
    "Of every board only the order of its models counts, as normal scores; models that stand on "
    "several boards put the boards on one scale. 50 is the middle of the models of this view, 10 "
    "is one standard deviation. The band holds the score in nine cases of ten, as far as the "
    "boards themselves measure what you want to know."
)
_QUERY = {
    "use": "Licence allows",
    "words": "Search",
    "open_weights": "Open weights only",
    "organisations": "Organisations",
    "parameters_from": "Parameters, at least",
    "parameters_to": "Parameters, at most",
    "usd_to": "USD per million tokens, at most",
    "context_from": "Context tokens, at least",
    "released_from": "Released since",
}


def html(ranking: Ranking, evidence: Mapping[str, Sequence[Evidence]]) -> str:
    """The report of a view.

    Args:
        ranking: The view.
        evidence: The counted figures of some of its models, by id.
    """
    task = find(ranking.query.task)
    heading = f"{task.title}: models by combined score"
    made = page.moment(clock.now())
    body = [
        f"<h1>{escape(heading)}</h1>",
        f'<p class="soft">Made by Bud on {made}, from the boards below. {escape(_METHOD)}</p>',
        *(f'<p class="warn">{escape(note)}</p>' for note in ranking.notes),
        page.cards(_cards(ranking)),
        "<h2>Scores with their bands</h2>",
        _bands(ranking.table.head(_MOST_BARS)),
        "<h2>Models</h2>",
        _models(ranking.table),
        "<h2>What was asked</h2>",
        page.table(["", ""], _asked(ranking.query, ranking.left_out)),
        "<h2>Boards</h2>",
        _boards(ranking),
        *_evidence(evidence),
        "<h2>How to find this again</h2>",
        page.table(["", ""], _basis(ranking, made)),
    ]
    return page.document(heading, body)


def csv_text(ranking: Ranking) -> str:
    """The models of a view as CSV; every row repeats the query, the data's date and version."""
    query = ranking.query.model_dump(mode="json")
    weights = {board.key: board.weight for board in ranking.boards}
    about = {f"asked_{name}": value for name, value in query.items() if value and name != "weights"}
    about |= {f"weight_{key}": weight for key, weight in weights.items()}
    about |= {"boards_of_these_models": [board.key for board in ranking.used]}
    about |= {"data_date": ranking.dated, "data_version": ranking.version}
    rows = ranking.table.assign(**{name: _flat(value) for name, value in about.items()})
    return str(rows.to_csv(index=False, lineterminator="\n", float_format="%.6g"))


def _flat(value: Any) -> Any:
    return " ".join(value) if isinstance(value, list) else value


def _cards(ranking: Ranking) -> Iterable[tuple[str, str, str]]:
    if len(ranking.table):
        best = ranking.table.iloc[0]
        yield "Best", str(best["name"]), f"{best['score']:.0f} ({_band(best)})"
    yield "Models", f"{len(ranking.table):,}", f"of {ranking.models:,} on the boards"
    used = ranking.used
    publishers = len({board.publisher for board in used})
    noted = f"of {publishers} publisher{'' if publishers == 1 else 's'}, that list these models"
    yield "Boards", str(len(used)), noted
    yield "Newest data", str(ranking.dated or page.NONE), f"version {ranking.version}"


def _bands(table: pd.DataFrame) -> str:
    if table.empty:
        return '<p class="soft">No model.</p>'
    low, high = float(table["low"].min()), float(table["high"].max())
    span = (high - low) or 1.0

    def x_of(value: float) -> float:
        return _LEFT + (value - low) / span * (_WIDTH - _LEFT - _RIGHT)

    parts = []
    for number, row in enumerate(table.itertuples()):
        y = 16 + number * _ROW
        name = str(row.name) if len(str(row.name)) < 38 else f"{str(row.name)[:37]}…"
        parts.append(page.text(_LEFT - 10, y + 4, name, "end"))
        parts.append(
            f'<line x1="{x_of(row.low):.1f}" x2="{x_of(row.high):.1f}" y1="{y}" y2="{y}" '
            'stroke="#18a673" stroke-opacity=".45" stroke-width="6" stroke-linecap="round"/>'
            f'<circle cx="{x_of(row.score):.1f}" cy="{y}" r="5" fill="#18a673">'
            f"<title>{row.score:.1f}, {row.low:.1f} to {row.high:.1f}</title></circle>"
        )
    bottom = 16 + len(table) * _ROW
    ticks = [low + span * share for share in (0, 0.25, 0.5, 0.75, 1)]
    parts += [page.text(x_of(tick), bottom + 14, f"{tick:.0f}", "middle") for tick in ticks]
    return page.svg(_WIDTH, bottom + 24, parts, "Scores with their bands")


def _models(table: pd.DataFrame) -> str:
    rows = [
        [
            *(str(row.position), str(row.name), f"{row.score:.1f}"),
            *(f"{row.low:.1f} to {row.high:.1f}", f"{row.best_rank} to {row.worst_rank}"),
            *(str(row.boards), _text(row.licence), _text(row.verdict)),
            *(_size(row.parameters), _usd(row.usd_per_million_tokens), _text(row.release_date)),
        ]
        for row in table.head(_MOST_ROWS).itertuples()
    ]
    header = ["#", "Model", "Score", "Band", "Rank", "Boards", "Licence", "Use", "Size"]
    more = len(table) - len(rows)
    said = f'<p class="soft">and {more:,} more in the CSV.</p>' if more > 0 else ""
    return page.table([*header, "USD/M tokens", "Released"], rows) + said


def _asked(query: Query, left_out: Mapping[str, int]) -> list[list[str]]:
    said = query.model_dump(mode="json")
    rows = [["Task", find(query.task).title]]
    rows += [[label, _said(name, said[name])] for name, label in _QUERY.items() if said[name]]
    rows += [
        ["Left out, because it is not known", f"{name}: {count:,} models"]
        for name, count in left_out.items()
    ]
    return rows


def _said(name: str, value: Any) -> str:
    if value is True:
        return "yes"
    if name.startswith("parameters"):
        return _size(value)
    return f"{value:,.10g}" if isinstance(value, int | float) else str(_flat(value))


def _boards(ranking: Ranking) -> str:
    rows = [
        [
            *(escape(each.title), escape(each.publisher), f"{each.weight:g}", f"{each.models:,}"),
            *(f"{each.shown:,}", f"{each.agreement:.2f}", escape(since(each.dated))),
            page.link(each.source, each.source_url),
        ]
        for each in ranking.boards
    ]
    header = ["Board", "Publisher", "Weight", "Models", "Of these", "Agreement", "As of"]
    return page.linked_table([*header, "Read from"], rows)


def _evidence(evidence: Mapping[str, Sequence[Evidence]]) -> Iterable[str]:
    if not evidence:
        return
    yield "<h2>Where the numbers of the first models are from</h2>"
    rows = [
        [
            *(page.link(model, each.link), escape(f"{each.board} {each.variant}")),
            *(escape(each.metric), f"{each.score:g} {escape(each.unit)}"),
            *(f"{each.rank} of {each.of}", escape(str(each.date))),
            page.link(each.source, each.source_url),
        ]
        for model, found in evidence.items()
        for each in found
    ]
    yield page.linked_table(["Model", "Board", "Figure", "", "Rank", "Date", "Read from"], rows)


def _basis(ranking: Ranking, made: str) -> list[list[str]]:
    return [
        ["Version of the scores", ranking.version],
        ["Newest board as of", str(ranking.dated or page.NONE)],
        ["Query", ranking.query.model_dump_json(exclude_defaults=True)],
        ["Report made", made],
    ]


def _band(row: Any) -> str:
    return f"{row['low']:.0f} to {row['high']:.0f}"


def _text(value: object) -> str:
    return value if isinstance(value, str) and value else page.NONE


def _size(parameters: float) -> str:
    return page.NONE if pd.isna(parameters) else f"{parameters / 1e9:,.3g} B"


def _usd(price: float) -> str:
    return page.NONE if pd.isna(price) else f"${price:,.3g}"
