"""The curated answers: one TOML file a licence, written from its text."""

from __future__ import annotations

import tomllib
from functools import cache
from typing import Any

from core.registry.licences.questions import QUESTIONS
from core.registry.licences.schemas import Answer
from core.registry.licences.texts import DATA

_FOLDER = DATA / "answers"


@cache
def curated_keys() -> tuple[str, ...]:
    """The keys of the licences with answers, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def is_curated(key: str) -> bool:
    """Whether there are answers for the licence."""
    return key in curated_keys()


@cache
def answers(key: str) -> dict[str, Answer]:
    """The 22 answers of a licence, by question; {} when nobody has answered them."""
    if not is_curated(key):
        return {}
    stated = _stated(key)
    return {
        question: Answer(**{"document": key, **stated[question]})
        if question in stated
        else _silent(question)
        for question in QUESTIONS
    }


def released(key: str) -> str:
    """When this version of the licence came out; "" when the text does not say."""
    return str(_file(key).get("released", "")) if is_curated(key) else ""


def _stated(key: str) -> dict[str, dict[str, Any]]:
    """What the licence answers in words; what it is silent on does not come from its parent."""
    file = _file(key)
    parent = _stated(file["extends"]) if "extends" in file else {}
    inherited = {name: answer for name, answer in parent.items() if name not in file["silent"]}
    own = {name: _typed(answer) for name, answer in file.get("answers", {}).items()}
    return inherited | own


def _typed(answer: dict[str, Any]) -> dict[str, Any]:
    return answer | ({"when": tuple(answer["when"])} if "when" in answer else {})


def _silent(question: str) -> Answer:
    found = QUESTIONS[question]
    return Answer(found.silent_reply, "none", "", "", found.silent, silent=True)


@cache
def _file(key: str) -> dict[str, Any]:
    return tomllib.loads((_FOLDER / f"{key}.toml").read_text(encoding="utf-8"))
