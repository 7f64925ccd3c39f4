"""Conditions of blocking rules, checked and brought into one form."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from core.kernel import addresses, patterns

_MOST = 1000
_LONGEST_PATTERN = 200


def _country(code: str) -> str:
    if len(code) != 2 or not code.isascii() or not code.isalpha():
        raise ValueError(f"{code!r} is no two-letter country code, such as DE")
    return code.upper()


def _pattern(pattern: str) -> str:
    try:
        patterns.compiled([pattern])
    except ValueError as error:
        raise ValueError(f"{pattern!r} is no regular expression in RE2's syntax: {error}") from None
    return pattern


def _together(given: tuple[str, ...]) -> tuple[str, ...]:
    try:
        patterns.compiled(given)
    except ValueError as error:
        raise ValueError(f"together they are too much for RE2: {error}") from None
    return given


def _path(path: str) -> str:
    if not path.startswith("/") or "*" in path[:-1]:
        raise ValueError(f"{path!r} is no path: it begins with /, and * may stand at its end only")
    return path


_Network = Annotated[str, AfterValidator(addresses.normalised)]
_Country = Annotated[str, AfterValidator(_country)]
_UserAgent = Annotated[str, Field(min_length=1, max_length=200)]
_Pattern = Annotated[
    str, Field(min_length=1, max_length=_LONGEST_PATTERN), AfterValidator(_pattern)
]
_Path = Annotated[str, Field(max_length=200), AfterValidator(_path)]


class BlockConditions(BaseModel):
    """What a request must meet to be refused: one of each kind that is given.

    `networks` are addresses or CIDR ranges (IPv4, IPv6); `countries` two-letter codes, compared
    with the header that BUD_COUNTRY_HEADER names; `user_agents` parts of the User-Agent header in
    any case; `user_agent_patterns` regular expressions in RE2's syntax, found anywhere in it;
    `paths` whole paths, or with `*` at the end their beginnings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    networks: tuple[_Network, ...] = Field((), max_length=_MOST)
    countries: tuple[_Country, ...] = Field((), max_length=_MOST)
    user_agents: tuple[_UserAgent, ...] = Field((), max_length=100)
    user_agent_patterns: Annotated[tuple[_Pattern, ...], AfterValidator(_together)] = Field(
        (), max_length=20
    )
    paths: tuple[_Path, ...] = Field((), max_length=100)

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not any(self.model_dump().values()):
            raise ValueError("a rule without a condition would refuse every request")
        return self


class BlockView(BaseModel):
    """A blocking rule; `project_id` "" means that it holds in every project."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    id: str
    project_id: str
    name: str
    conditions: BlockConditions
    set_at: datetime
    set_by_name: str
