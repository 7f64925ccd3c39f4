"""Blocking rules in the form requests are compared with."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from core.contracts.route_table import BlockRule
from core.kernel import patterns
from gateway.networks import Address, Networks

log = logging.getLogger(__name__)

# Of a User-Agent, what is over it is not looked at.
_LONGEST_AGENT = 512


@dataclass(frozen=True, slots=True)
class Visit:
    """What rules look at: where a request comes from and what it asks."""

    address: Address | None
    country: str
    user_agent: str
    path: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: all of its conditions must hold."""

    name: str
    networks: Networks | None
    countries: frozenset[str]
    user_agents: tuple[str, ...]
    pattern: Any
    paths: frozenset[str]
    path_beginnings: tuple[str, ...]

    def matches(self, visit: Visit) -> bool:
        """Whether it refuses a visit."""
        return (
            (self.networks is None or visit.address in self.networks)
            and (not self.countries or visit.country in self.countries)
            and self._is_on_path(visit.path)
            and self._is_agent(visit.user_agent[:_LONGEST_AGENT])
        )

    def _is_on_path(self, path: str) -> bool:
        if not self.paths and not self.path_beginnings:
            return True
        return path in self.paths or path.startswith(self.path_beginnings)

    def _is_agent(self, agent: str) -> bool:
        if not self.user_agents and self.pattern is None:
            return True
        lowered = agent.lower()
        if any(part in lowered for part in self.user_agents):
            return True
        return self.pattern is not None and self.pattern.search(agent) is not None


@dataclass(frozen=True)
class Blocks:
    """The rules of a route table: those of every project, and those of each."""

    everywhere: tuple[Rule, ...] = ()
    by_project: dict[str, tuple[Rule, ...]] = field(default_factory=dict)


def compiled(rules: Iterable[BlockRule]) -> Blocks:
    """The rules, ready. One that cannot be understood is told in the log and left out."""
    by_project: dict[str, list[Rule]] = {}
    for rule in rules:
        try:
            by_project.setdefault(rule.project_id, []).append(_compiled(rule))
        except ValueError as error:
            log.error("the blocking rule %r is left out: %s", rule.name, error)
    everywhere = tuple(by_project.pop("", ()))
    return Blocks(everywhere, {project: tuple(own) for project, own in by_project.items()})


def first_match(rules: Iterable[Rule], visit: Visit) -> str:
    """The name of the first rule that refuses a visit; "" when none does."""
    return next((rule.name for rule in rules if rule.matches(visit)), "")


def _compiled(rule: BlockRule) -> Rule:
    return Rule(
        name=rule.name,
        networks=Networks(rule.networks) if rule.networks else None,
        countries=frozenset(rule.countries),
        user_agents=tuple(part.lower() for part in rule.user_agents),
        pattern=patterns.compiled(rule.user_agent_patterns) if rule.user_agent_patterns else None,
        paths=frozenset(path for path in rule.paths if not path.endswith("*")),
        path_beginnings=tuple(path[:-1] for path in rule.paths if path.endswith("*")),
    )
