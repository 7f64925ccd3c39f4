"""Guardrails: precision and recall on the labelled texts, and CPU time, by kind."""

from __future__ import annotations

import json as jsonlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from core.contracts.guardrails import Injection, Pii, Secrets
from core.detection import injection, personal, secrets
from core.detection.examination import Passage, examiner
from core.detection.finding import Scan
from tests.benchmarks import guardrail_texts
from tests.benchmarks.guardrail_texts import Labelled

KINDS = ("pii", "secrets", "injection")
THRESHOLD = 0.5  # of injection, as it is set by default
_Z95 = 1.959964
_ROUNDS = 5
_PROSE_BYTES = 200_000
_EVENT_CHARACTERS = 5


@dataclass(frozen=True)
class Share:
    """A share with its 95% interval (Wilson, 1927)."""

    hits: int
    of: int

    @property
    def value(self) -> float:
        """The share; 0 of nothing."""
        return self.hits / self.of if self.of else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95% interval."""
        if not self.of:
            return 0.0, 1.0
        n, p, z = self.of, self.value, _Z95
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return max(middle - half, 0.0), min(middle + half, 1.0)


@dataclass(frozen=True)
class Scores:
    """How one kind did on a set of texts; `wrong` are the lines that it got wrong."""

    precision: Share
    recall: Share
    wrong: list[int]


def scores(kind: str, texts: list[Labelled]) -> Scores:
    """Compare what is found with the labels: a text counts as found when its entity is."""
    finds = _finder(kind)
    true = false = missed = 0
    wrong = []
    for each in texts:
        found = finds(each.text)
        is_right = each.label in found if each.is_positive else not found
        true += each.is_positive and is_right
        missed += each.is_positive and not is_right
        false += not each.is_positive and bool(found)
        if not is_right:
            wrong.append(each.line)
    return Scores(Share(true, true + false), Share(true, true + missed), wrong)


def _finder(kind: str) -> Callable[[str], set[str]]:
    if kind == "injection":
        return lambda text: {"injection"} if injection.signs_of(text).score >= THRESHOLD else set()
    finder = personal.finder() if kind == "pii" else secrets.finder()
    return lambda text: {each.entity for each in finder.find(text)}


def cpu_us_per_kb(kind: str, text: str) -> float:
    """CPU µs for a thousand bytes of a text."""
    check = Pii() if kind == "pii" else Secrets() if kind == "secrets" else Injection()
    ready = examiner(check)
    assert ready is not None
    list(ready.steps([Passage(text)], 60))  # the first time fills caches
    began_s = time.process_time()
    for _ in range(_ROUNDS):
        list(ready.steps([Passage(text)], 60))
    return (time.process_time() - began_s) * 1e6 / _ROUNDS / (len(text.encode()) / 1000)


def cpu_us_per_event(kind: str, text: str) -> float:
    """CPU µs for each piece of five characters of a stream."""
    finder = personal.finder() if kind == "pii" else secrets.finder()
    pieces = [text[at : at + _EVENT_CHARACTERS] for at in range(0, 20_000, _EVENT_CHARACTERS)]
    for _ in range(2):  # the first time fills caches
        scan = Scan(finder)
        began_s = time.process_time()
        for piece in pieces:
            scan.feed(piece)
    return (time.process_time() - began_s) * 1e6 / len(pieces)


def run(*, json: bool) -> None:
    """Print the scores of every kind."""
    document = {}
    for kind in KINDS:
        texts = guardrail_texts.read(kind)
        held_out = [each for each in texts if each.line % 2 == 0]
        harmless = " ".join(each.text for each in texts if not each.is_positive) + " "
        prose = harmless * (_PROSE_BYTES // len(harmless) + 1)
        document[kind] = {
            "texts": len(texts),
            "all": _told(scores(kind, texts)),
            "held_out": _told(scores(kind, held_out)),
            "cpu_us_per_kb": round(cpu_us_per_kb(kind, prose), 1),
            "cpu_us_per_event": None if kind == "injection"
            else round(cpu_us_per_event(kind, prose), 1),
        }  # fmt: skip
    print(jsonlib.dumps(document, indent=2) if json else _table(document))


def _told(found: Scores) -> dict[str, object]:
    told: dict[str, object] = {"wrong_lines": found.wrong}
    for name in ("precision", "recall"):
        share: Share = getattr(found, name)
        low, high = share.interval
        told[name] = asdict(share) | {
            "value": round(share.value, 3), "low": round(low, 3), "high": round(high, 3),
        }  # fmt: skip
    return told


def _table(document: dict[str, dict[str, object]]) -> str:
    lines = [
        "Labelled texts in tests/data/guardrails; intervals are Wilson's, 95%. Held out: lines",
        "that were not looked at while the rules were made.",
        "",
        f"{'kind':<10}{'texts':>6}  {'set':<9}{'precision':<24}{'recall':<24}"
        f"{'CPU µs/kB':>10}{'CPU µs/event':>14}",
    ]
    for kind, row in document.items():
        for name in ("all", "held_out"):
            found = row[name]
            assert isinstance(found, dict)
            shown = [
                f"{share['value']:.2f} ({share['low']:.2f}–{share['high']:.2f}, n={share['of']})"
                for share in (found["precision"], found["recall"])
            ]
            first = name == "all"
            per_event = row["cpu_us_per_event"]
            lines.append(
                f"{kind if first else '':<10}{row['texts'] if first else '':>6}  "
                f"{name.replace('_', ' '):<9}{shown[0]:<24}{shown[1]:<24}"
                f"{row['cpu_us_per_kb'] if first else '':>10}"
                f"{(per_event if per_event is not None else '–') if first else '':>14}"
            )
    return "\n".join(lines)
