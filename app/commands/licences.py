"""`bud models license`: what a licence says, and whether it allows a use."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands import output
from app.commands.output import Json
from core.kernel.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from core.registry.licences.schemas import Identified, Verdict

_Name = Annotated[
    str | None,
    typer.Argument(help="A tag of Hugging Face, an SPDX identifier, a ScanCode key or a name."),
]
_Text = Annotated[
    str | None, typer.Option("--text", help="Identify the licence text of a file; - reads stdin.")
]
_Question = Annotated[
    str | None, typer.Option("--question", help="Show one answer with its quotation.")
]
_NO_ADVICE = "This is no legal advice."


def show_licence(
    name: _Name = None, text: _Text = None, question: _Question = None, as_json: Json = False
) -> None:
    """Show what a licence says, and whether it allows the usual uses."""
    from core.registry import licences

    identified = _identified(text) if text else None
    key = identified.key if identified else _key(name)
    found, answers = licences.licence(key), licences.answers(key)
    if question:
        _show_answer(key, question, as_json=as_json)
        return
    is_sure = identified is None or identified.is_sure
    verdicts = {
        use: licences.verdict(key, stated) for use, stated in licences.USES.items() if is_sure
    }
    lines = [
        output.details(
            [
                ("licence", found.name),
                ("key", found.key),
                ("spdx", found.spdx or "—"),
                ("category", found.category),
                ("released", found.released or "—"),
                ("published at", found.url or "—"),
                *([("note", found.note)] if found.note else []),
            ]
        ),
        *([_identification(identified)] if identified else []),
        _verdict_table(verdicts),
        output.table(
            ("question", "answer", "impact", "section", "what it means"),
            [
                (name, answer.reply, answer.impact, answer.section or "—", answer.explanation)
                for name, answer in answers.items()
            ],
            empty="Nobody has answered the 22 questions for this licence: read its text.",
        ),
        _NO_ADVICE,
    ]
    value = {
        "licence": found,
        "identified": identified,
        "verdicts": verdicts,
        "answers": answers,
        "note": _NO_ADVICE,
    }
    output.show(value, "\n\n".join(lines), as_json=as_json)


def _key(name: str | None) -> str:
    from core.registry import licences

    if name is None:
        raise InvalidInput(
            "No licence is named.", remedy="Give a name, or a text with --text FILE."
        )
    key = licences.by_id(name)
    if key is None:
        raise NotFound(
            "Bud does not know this name, or several licences could bear it.",
            value=name,
            remedy="Give the text that came with the model: bud models license --text FILE",
        )
    return key


def _identified(file: str) -> Identified:
    from core.registry import licences

    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(errors="replace")
    except OSError as error:
        raise InvalidInput(
            "This file cannot be read.", value=file, remedy="Name a text file."
        ) from error
    found = licences.identify(text)
    if found is None:
        raise NotFound(
            "This text is near to no licence that Bud has.",
            remedy="It needs review by a person.",
        )
    return found


def _identification(found: Identified) -> str:
    lines = [f"The text is this licence: {found.certainty}, similarity {found.similarity:.1%}."]
    if not found.is_sure:
        lines = [
            f"The text differs from this licence in words that matter (similarity "
            f"{found.similarity:.1%}): it needs review, and the answers below may not hold.",
            *(f"  + {passage}" for passage in found.added),
            *(f"  - {passage}" for passage in found.removed),
        ]
    return "\n".join(lines)


def _verdict_table(verdicts: dict[str, Verdict]) -> str:
    rows = [
        (use, found.outcome, ", ".join(reason.question for reason in found.reasons[:3]
         if reason.effect != "allows") or "—")
        for use, found in verdicts.items()
    ]  # fmt: skip
    return output.table(("use", "verdict", "because of"), rows, empty="No verdict: needs review.")


def _show_answer(key: str, question: str, *, as_json: bool) -> None:
    from core.registry import licences

    answers = licences.answers(key)
    if question not in answers:
        raise NotFound(
            f"There is no answer to {question!r} for {key}.",
            remedy=f"There are: {', '.join(answers) or 'none; it needs review'}.",
        )
    answer = answers[question]
    pairs = [
        ("question", licences.QUESTIONS[question].asks),
        ("answer", answer.reply),
        ("impact", answer.impact),
        ("section", answer.section or "—"),
        ("quotation", f"“{answer.quotation}”" if answer.quotation else "—"),
        ("what it means", answer.explanation),
    ]
    output.show(answer, output.details(pairs), as_json=as_json)
