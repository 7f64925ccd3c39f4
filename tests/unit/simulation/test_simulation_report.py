"""A report is one file that needs nothing else, and its CSV has every number with its origin."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from core.simulation import questions, report, subjects, what_if
from core.simulation.costs import Rates, given
from core.simulation.questions import Pairing
from core.simulation.schemas import Answer, Basis, WhatIf

BASIS = Basis("1.2", "2026-11-20", "abc123", 8000)


def _answer(**asked: object) -> Answer:
    query = WhatIf(gpus=8, tp=2).model_copy(update=asked)
    known = subjects.shipped()
    at = Pairing(
        known,
        known.find_model(query.model),
        known.find_system(query.hardware),
        Rates([given("h100_sxm", 2.0)]),
    )
    questions.check(query)
    return what_if.answer(query, at, BASIS)


class _Page(HTMLParser):
    """Collects what a page links to and shows, and that its elements close."""

    _VOID = frozenset({"meta", "br", "line", "circle", "rect", "polyline"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.seen: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag not in self._VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self._VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_file_needs_nothing_else() -> None:
    html = report.html([_answer()])
    page = _Page(html)
    assert not page.links
    assert not page.open
    assert "script" not in page.seen
    assert "url(" not in html
    assert len(html.encode()) < 200_000
    assert {"svg", "polyline", "table"} <= page.seen


def test_it_says_what_was_asked_answered_and_by_what() -> None:
    answer = _answer()
    text = " ".join(_Page(report.html([answer])).text)
    for said in (
        answer.title,
        "1,155",
        f"{answer.outcome.tpot_ms.mean:,.1f} ms",
        "vllm serve",
        "2026-11-20",
        "abc123",
        "extrapolated" if answer.outcome.nearby == 0 else "nearby",
        "FP8 weights",
        "$16.00",
    ):
        assert said in text


def test_what_does_not_fit_is_said_first() -> None:
    text = " ".join(_Page(report.html([_answer(model="deepseek-v3", gpus=8, tp=8)])).text)
    assert "does not fit in memory" in text
    assert "TP 16" in text


def test_names_cannot_break_the_page() -> None:
    answer = replace(_answer(), model_name='<script>alert("x")</script>')
    page = _Page(report.html([answer], title="<b>bold</b>"))
    assert "script" not in page.seen
    assert "<b>bold</b>" in " ".join(page.text)


@pytest.mark.parametrize("mode", ["agg", "disagg"])
def test_several_answers_stand_side_by_side(mode: str) -> None:
    answers = [_answer(mode=mode), _answer(model="qwen3-8b", mode=mode)]
    text = " ".join(_Page(report.html(answers)).text)
    assert "Side by side" in text
    assert "qwen3-8b" in text


def test_every_row_of_the_csv_has_its_question_its_bounds_and_its_origin() -> None:
    answer = _answer()
    rows = list(csv.DictReader(io.StringIO(report.csv_text([answer, _answer(model="qwen3-8b")]))))
    kinds = [row["kind"] for row in rows]
    assert kinds.count("asked") == 2
    assert {"curve", "change"} <= set(kinds)
    first = rows[0]
    assert float(first["tpot_ms"]) == pytest.approx(answer.outcome.tpot_ms.mean, rel=1e-5)
    assert (first["model"], first["gpus"], first["tp"]) == ("llama-3.1-8b", "8", "2")
    for row in rows:
        assert float(row["ttft_ms_low"]) <= float(row["ttft_ms"]) <= float(row["ttft_ms_high"])
        assert (row["predictor_version"], row["data_date"], row["data_hash"]) == (
            "1.2",
            "2026-11-20",
            "abc123",
        )
    curve = next(row for row in rows if row["kind"] == "curve" and row["name"] == "8 × TP 1")
    asked = WhatIf.model_validate({name: curve[name] for name in WhatIf.model_fields})
    assert (asked.tp, asked.gpus) == (1, 8)
