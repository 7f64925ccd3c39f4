"""A project's guardrails, ready to be run; made when the route table is read, off the loop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from core.contracts.guardrails import Classifier, Guardrail, JsonSchema, Kind
from core.detection.examination import Examiner, examiner
from core.kernel.errors import KeyProblem
from gateway.guardrails.classifier import ClassifierClient

log = logging.getLogger(__name__)

# What costs least comes first, and a classifier last: it gets what the others have masked.
_ORDER: tuple[Kind, ...] = (
    *("max_length", "deny_list", "secrets", "pii", "injection", "json_schema"),
    "classifier",
)


@dataclass(frozen=True, eq=False)
class Rail:
    """One rule, ready. `problem` is why it can never say anything, "" for most."""

    rule: Guardrail
    examiner: Examiner | None = None
    classifier: ClassifierClient | None = None
    problem: str = ""

    @property
    def masks(self) -> bool:
        """Whether it takes out what it finds, in the place of refusing it."""
        places = self.examiner is not None and self.examiner.finder is not None
        return places and self.rule.action == "mask"

    @property
    def needs_all(self) -> bool:
        """Whether it can judge an answer only when all of it is there."""
        return isinstance(self.rule.check, JsonSchema | Classifier) or bool(self.problem)


@dataclass(frozen=True)
class Rails:
    """The rules of a project, in the order in which they are run."""

    asked: tuple[Rail, ...] = ()
    asked_report: tuple[Rail, ...] = ()
    answered: tuple[Rail, ...] = ()
    answered_report: tuple[Rail, ...] = ()


class RailMaker:
    """Makes rules ready; what did not change is taken over.

    Args:
        reveal: Opens a sealed credential, given its context. Raises KeyProblem.
    """

    def __init__(self, reveal: Callable[[str, str], str]) -> None:
        self._reveal = reveal
        self._rails: dict[str, Rail] = {}
        self._unused: list[Rail] = []

    def ready(self, rules: Iterable[Guardrail]) -> dict[str, Rails]:
        """The rules by project. One that cannot be made ready can say nothing: `Rail.problem`."""
        before, self._rails = self._rails, {}
        for rule in rules:
            known = before.get(rule.id)
            is_same = known is not None and known.rule == rule and not known.problem
            self._rails[rule.id] = known if known is not None and is_same else self._made(rule)
        self._unused += [rail for key, rail in before.items() if self._rails.get(key) is not rail]
        by_project: dict[str, list[Rail]] = {}
        for rail in sorted(self._rails.values(), key=_place):
            by_project.setdefault(rail.rule.project_id, []).append(rail)
        return {project_id: _sorted(rails) for project_id, rails in by_project.items()}

    def close_unused(self) -> None:
        """Close the connections of what is not used any more; on the event loop."""
        unused, self._unused = self._unused, []
        for rail in unused:
            if rail.classifier is not None:
                rail.classifier.close()

    def _made(self, rule: Guardrail) -> Rail:
        try:
            if isinstance(rule.check, Classifier):
                sealed = rule.check.credential
                credential = self._reveal(sealed, f"guardrail:{rule.id}") if sealed else ""
                return Rail(rule, classifier=ClassifierClient(rule.check, credential))
            return Rail(rule, examiner(rule.check))
        except (ValueError, KeyProblem) as error:
            log.error("the guardrail %r cannot check anything: %s", rule.name, error)
            return Rail(rule, problem="it cannot be used: the gateway's log says why")


def _place(rail: Rail) -> tuple[int, str]:
    return _ORDER.index(kind_of(rail.rule)), rail.rule.name


def kind_of(rule: Guardrail) -> Kind:
    """What a rule checks."""
    kind: Kind = rule.check.__struct_config__.tag  # type: ignore[assignment]
    return kind


def _sorted(rails: list[Rail]) -> Rails:
    def those(side: str, mode: str) -> tuple[Rail, ...]:
        return tuple(
            rail
            for rail in rails
            if rail.rule.applies_to in (side, "both") and rail.rule.mode == mode
        )

    return Rails(
        those("input", "enforce"), those("input", "report"), those("output", "enforce"),
        those("output", "report"),
    )  # fmt: skip
