"""Which published names are one model: `resolve` gives each name its model's id, and the rule.

It prefers to leave a name unresolved over merging two models: what is not understood stays in the
key, and a name that fits several snapshots is given to none.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from core.registry import makers
from core.registry.identity import Identity, Snapshot, parse

# Makers whose undated name is a pointer to the newest snapshot; of the others it is a model itself.
_POINTER_MAKERS = frozenset(("openai", "anthropic", "xai", "mistralai"))
_NOT_A_MODEL = re.compile(
    r"(?:^|/)(?:example-|simple/model|auto$|.*-auto$|.*router.*|router/|model-router|cascaded baseline"
    r"|multiple providers|im-a(?:lso)?-|late-june-chatbot|.*(?:^|[-_ ])chatbot$)",
    re.IGNORECASE,
)
_SEVERAL = re.compile(
    r" \+ (?!thinking|prompt|tool)| & |_gpt-4o-|[a-z]\+[a-z]{2,}\d", re.IGNORECASE
)
_FINE_TUNED_BY_A_CUSTOMER = re.compile(r"^ft:|/ft:|finetuned|fine-tuned|custom-", re.IGNORECASE)


@dataclass(frozen=True)
class Published:
    """A name as one source writes it.

    Attributes:
        name, organisation: As published.
        source: File and group, such as `benchmark_results.csv: BFCL`.
        preference: How well the source spells names; the lowest gives a model its id.
    """

    name: str
    organisation: str
    source: str
    preference: int = 9


@dataclass(frozen=True)
class Resolution:
    """What a published name is.

    Attributes:
        model_id: Id of the model, or None when the name stays unresolved.
        rule: Which rule decided.
        setting: Effort, prompt format … that the name gives.
    """

    model_id: str | None
    rule: str
    setting: str = ""


@dataclass(frozen=True)
class _Read:
    """A published name with what was read from it; `rule` is set when that decides already."""

    published: Published
    identity: Identity
    rule: str = ""
    refused: bool = False


def resolve(published: Sequence[Published]) -> list[Resolution]:
    """The model of each name, in the order given; names are judged together."""
    reads = _with_makers([_read(name) for name in published])
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for position, read in enumerate(reads):
        if not read.refused:
            groups[read.identity.key].append(position)
    found: list[Resolution | None] = [None] * len(reads)
    taken: set[str] = set()
    for key in sorted(groups):
        _resolve_group(reads, groups[key], found, taken)
    return [
        resolution or Resolution(None, read.rule, read.identity.setting)
        for resolution, read in zip(found, reads, strict=True)
    ]


def _read(published: Published) -> _Read:
    name = published.name
    identity = parse(name, published.organisation)
    if _NOT_A_MODEL.search(name):
        return _Read(published, identity, "not a model", refused=True)
    if _FINE_TUNED_BY_A_CUSTOMER.search(name):
        return _Read(published, identity, "a customer's fine-tune", refused=True)
    if _SEVERAL.search(name):
        return _Read(published, identity, "several models in one", refused=True)
    alias = _aliases().get(_plain(name))
    if alias is not None:
        if not alias:
            return _Read(published, identity, "ambiguous name", refused=True)
        meant = parse(alias, published.organisation)
        return _Read(published, replace(meant, setting=identity.setting), "alias")
    if not identity.words and not identity.size:
        return _Read(published, identity, "no name left", refused=True)
    return _Read(published, identity)


@cache
def _aliases() -> dict[str, str]:
    return {_plain(row["alias"]): row["same_as"] for row in makers.table("aliases.csv")}


def _plain(name: str) -> str:
    return re.sub(r"[\s_]+", "-", name.strip().lower())


def _with_makers(reads: list[_Read]) -> list[_Read]:
    """Decide whose model each name is: the stated maker, the family's, or the only one known."""
    known = {read.identity.key for read in reads if not read.refused and _is_own(read.identity)}
    by_rest: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for read in reads:
        if read.identity.maker and not read.refused:
            by_rest[read.identity.key[1:]].add(read.identity.maker)
    return [read if read.refused else _with_maker(read, known, by_rest) for read in reads]


def _is_own(identity: Identity) -> bool:
    family = makers.family_of(identity.words)
    return family is not None and identity.maker == family.maker


def _with_maker(
    read: _Read, known: set[tuple[str, ...]], by_rest: dict[tuple[str, ...], set[str]]
) -> _Read:
    identity = read.identity
    family = makers.family_of(identity.words)
    if family and identity.maker and identity.maker != family.maker:
        own = identity.made_by(family.maker)
        full_precision = replace(own, quantisation="")
        if own.key in known or (identity.quantisation and full_precision.key in known):
            return replace(read, identity=own, rule="hosted copy")
    if identity.maker:
        return read
    candidates = by_rest[identity.key[1:]]
    if len(candidates) == 1:
        return replace(read, identity=identity.made_by(*candidates), rule="only maker known")
    why = "several makers" if candidates else "maker unknown"
    return replace(read, rule=why, refused=True)


def _resolve_group(
    reads: list[_Read], members: list[int], found: list[Resolution | None], taken: set[str]
) -> None:
    """Names with one key: split them by snapshot and give each part an id."""
    snapshots = {read.identity.snapshot for read in (reads[member] for member in members)}
    full = _distinct([snapshot for snapshot in snapshots if snapshot is not None])
    parts: dict[Snapshot | None, list[tuple[int, str]]] = defaultdict(list)
    for member in members:
        identity = reads[member].identity
        snapshot, rule = _settled(identity, full)
        if rule == "several snapshots fit":
            found[member] = Resolution(None, rule, identity.setting)
        else:
            parts[snapshot].append((member, reads[member].rule or rule))
    for snapshot in sorted(parts, key=str):
        positions = [member for member, _ in parts[snapshot]]
        model_id = _model_id([reads[member] for member in positions], snapshot, taken)
        taken.add(model_id)
        for member, rule in parts[snapshot]:
            found[member] = Resolution(model_id, rule, reads[member].identity.setting)


def _distinct(snapshots: list[Snapshot]) -> list[Snapshot]:
    """The snapshots that no fuller one of the list stands for."""
    return [
        snapshot
        for snapshot in snapshots
        if not any(
            other.known_parts > snapshot.known_parts and other.fits(snapshot) for other in snapshots
        )
    ]


def _settled(identity: Identity, full: list[Snapshot]) -> tuple[Snapshot | None, str]:
    snapshot = identity.snapshot
    if snapshot is None:
        revised = identity.maker == "google" and all(other.revision for other in full)
        if len(full) == 1 and (identity.maker in _POINTER_MAKERS or revised):
            return full[0], "only snapshot"
        return None, "undated" if full else "same name"
    fitting = [other for other in full if other.fits(snapshot)]
    if len(fitting) != 1:
        return None, "several snapshots fit"
    return fitting[0], "same name" if fitting[0] == snapshot else "date completed"


def _model_id(members: list[_Read], snapshot: Snapshot | None, taken: set[str]) -> str:
    """Of the best source's spelling; the commonest, then the shortest, when several are as good."""
    exact = [read for read in members if read.identity.snapshot == snapshot] or members
    plain = [read for read in exact if not read.identity.setting and read.rule != "alias"] or exact
    best = min(read.published.preference for read in plain)
    slugs = Counter(read.identity.slug for read in plain if read.published.preference == best)
    slug = min(slugs, key=lambda text: (-slugs[text], len(text), text))
    model_id = f"{members[0].identity.maker}/{slug}"
    if model_id not in taken:
        return model_id
    identity = members[0].identity
    rest = "-".join(filter(None, [*identity.words, *identity.key[2:], str(snapshot or "")]))
    return f"{identity.maker}/{rest}"
