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
_POINTER_MAKERS = frozenset(("openai", "anthropic", "xai", "mistralai", "cohere", "ai21"))
# The same, of what they serve only: those names have no size and a whole date.
_POINTER_SERVICES = frozenset(("qwen",))
# Makers that also serve others' models under their own name.
_HOSTING_MAKERS = frozenset(
    (
        *("amazon", "databricks", "google", "groq", "microsoft", "mistralai", "perplexity", "qwen"),
        *("snowflake", "tencent", "together"),
    )
)
_MIRRORS = frozenset(("nousresearch", "decapoda-research", "together", "unsloth"))
# Words of families whose bare name is the base on the hub, and an unsaid tuning where it is served.
_BARE_IS_BASE = re.compile(
    r"^(?:llama[123]?(?:\.\d)?|codellama|gemma[\dn.]*|mistral(?:[07].*)?|mixtral.*|qwen(?:1\.5|2|2\.5)?"
    r"|yi.*|falcon.*|olmo.*|granite[\d.]*|deepseek|coder|starcoder.*|solar.*)$"
)
# Families that others fine-tune and publish under the family's name.
_FINE_TUNED_FAMILIES = frozenset(
    (
        *(
            "Llama",
            "Code Llama",
            "Gemma",
            "Qwen",
            "GLM",
            "Mistral",
            "Mixtral",
            "Yi",
            "Falcon",
            "Phi",
        ),
        *("Zephyr", "Vicuna", "Tulu", "Starling", "InternLM", "Pythia", "StarCoder", "Alpaca"),
        "DeepSeek",
    )
)
# Words that a maker may use first of a new model; a fine-tune has others beside them.
_COMMON_WORDS = frozenset(
    (
        *(
            "",
            "latest",
            "preview",
            "thinking",
            "lite",
            "mini",
            "nano",
            "pro",
            "plus",
            "turbo",
            "exp",
        ),
        *("flash", "fast", "vision", "vl", "coder", "code", "audio", "image", "tts", "realtime"),
        *("embedding", "long", "research", "deep", "beta", "alpha", "omni", "video", "x", "r"),
    )
)
COMMUNITY = "community"
_NOT_A_MODEL = re.compile(
    r"^(?:example-.*|auto|auto-.*|free|bodybuilder|pareto-code|model[-_]router|firerouter|router"
    r"|human|starttranscriptionjob|cascaded baseline|balanced|frontier|openrouter: .*|claude-code"
    r"|im-a(?:lso)?-.*chatbot|late-june-chatbot|together-ai-(?:embedding-)?(?:up-to|\d).*"
    r"|(?:deepinfra|hyperbolic|fireworks|ollama|mlx-community|huggingface via glhf)\b.*: .*)$",
    re.IGNORECASE,
)
_SEVERAL = re.compile(
    r"^aligner-|^pairrm-|\w ?\+ ?(?!thinking|prompt|tool)[a-z][\w. -]{3,}|_gpt-4o-", re.IGNORECASE
)
_ROUTER = re.compile(r"^(?:kilo-auto|openrouter/auto)/")
_FINE_TUNED_BY_A_CUSTOMER = re.compile(r"^ft:")
_TEST = re.compile(r"^(?:simple/model1|neurips/local|(?:.*/)?test-.+|.*internal-testing/.*)$")


@dataclass(frozen=True)
class Published:
    """A name as one source writes it.

    Attributes:
        name, organisation: As published.
        source: File and group, such as `benchmark_results.csv: BFCL`.
        preference: How well the source spells names; the lowest gives a model its id.
        is_hub: The maker's own entry on a hub: its organisation is the maker.
        is_served: Of a list of served chat models, where a bare name need not be the base.
        maker: Who made it, where the source knows without writing it.
    """

    name: str
    organisation: str
    source: str
    preference: int = 9
    is_hub: bool = False
    is_served: bool = False
    maker: str = ""


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
    reads = _with_tunings(_with_makers([_read(name) for name in published]))
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for position, read in enumerate(reads):
        if not read.refused:
            groups[read.identity.key].append(position)
    found = [Resolution(None, read.rule, read.identity.setting) for read in reads]
    taken: set[str] = set()
    for key in sorted(groups):
        _resolve_group(reads, groups[key], found, taken)
    return found


def _read(published: Published) -> _Read:
    name = published.name
    identity = parse(name, published.organisation or published.maker)
    refusal = _refusal(name, identity)
    if refusal:
        return _Read(published, identity, refusal, refused=True)
    named = _named_aliases().get(_plain(name))
    alias = _keyed_aliases().get(identity.key[1:-1]) if named is None else named
    if alias is None:
        return _Read(published, identity)
    if not alias:
        return _Read(published, identity, "ambiguous name", refused=True)
    meant = parse(alias, published.organisation or published.maker)
    kept = meant.snapshot or (identity.snapshot if named is None else None)
    meant = replace(meant, setting=identity.setting, snapshot=kept, slug=identity.slug)
    return _Read(published, replace(meant, quantisation=identity.quantisation), "alias")


def _refusal(name: str, identity: Identity) -> str:
    last = name.rpartition("/")[2]
    if _TEST.match(name):
        return "a test entry"
    if _NOT_A_MODEL.match(last) or _ROUTER.match(name):
        return "not a model"
    if _FINE_TUNED_BY_A_CUSTOMER.match(name):
        return "a customer's fine-tune"
    if _SEVERAL.search(last):
        return "several models in one"
    return "" if identity.words or identity.size else "no name left"


@cache
def _named_aliases() -> dict[str, str]:
    rows = makers.table("aliases.csv")
    return {
        _plain(row["alias"]): row["same_as"] for row in rows if row["applies_to"] == "this spelling"
    }


@cache
def _keyed_aliases() -> dict[tuple[str, ...], str]:
    rows = makers.table("aliases.csv")
    return {
        parse(row["alias"]).key[1:-1]: row["same_as"]
        for row in rows
        if row["applies_to"] == "any spelling"
    }


def _plain(name: str) -> str:
    return re.sub(r"[\s_]+", "-", name.strip().lower())


def _with_makers(reads: list[_Read]) -> list[_Read]:
    """Decide whose model each name is: the stated maker, the family's, or the only one known."""
    own: set[tuple[str, ...]] = set()
    lexicon = makers.family_words()
    stated: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for read in reads:
        identity = read.identity
        if identity.stated_maker and not read.refused:
            stated[identity.key[1:]].add(identity.maker)
            family = makers.family_of(identity.words)
            if family and identity.maker == family.maker:
                own.add(identity.key)
                lexicon[family.maker] |= _stems(identity)
    return [read if read.refused else _with_maker(read, own, stated, lexicon) for read in reads]


def _stems(identity: Identity) -> set[str]:
    """The words without their versions."""
    return {re.sub(r"[\d.]+", "", word) for word in identity.words}


def _with_maker(
    read: _Read,
    own: set[tuple[str, ...]],
    stated: dict[tuple[str, ...], set[str]],
    lexicon: dict[str, set[str]],
) -> _Read:
    identity = read.identity
    if identity.stated_maker:
        return _with_family_maker(read, own)
    candidates = stated[identity.key[1:]]
    if identity.maker:  # its family's; a host that states itself does not outweigh that
        candidates = candidates - (_HOSTING_MAKERS - {identity.maker})
    if len(candidates) == 1 and identity.maker not in candidates:
        return replace(read, identity=identity.made_by(*candidates), rule="only maker known")
    strange = _stems(identity) - lexicon[identity.maker] - _COMMON_WORDS
    if identity.family in _FINE_TUNED_FAMILIES and strange:
        # Words that the family's maker never uses: somebody's fine-tune.
        return replace(
            read, identity=identity.made_by(COMMUNITY), rule="a fine-tune, by whom unsaid"
        )
    if identity.maker:
        return read
    if identity.size and not candidates:
        return replace(read, identity=identity.made_by(COMMUNITY), rule="by whom unsaid")
    why = "several makers" if candidates else "maker unknown"
    return replace(read, rule=why, refused=True)


def _with_family_maker(read: _Read, own: set[tuple[str, ...]]) -> _Read:
    """A copy that another organisation hosts or quantised is the maker's model, or its child."""
    identity = read.identity
    family = makers.family_of(identity.words)
    is_specific = bool(identity.size) or any(
        character.isdigit() for word in identity.words for character in word
    )
    if family is None or identity.maker == family.maker or not is_specific:
        return read
    theirs = identity.made_by(family.maker)
    full_precision = replace(theirs, quantisation="")
    is_quantised = bool(identity.quantisation) and full_precision.key in own
    may_host = not read.published.is_hub or identity.maker in _MIRRORS
    only_hosts = not read.published.is_hub and identity.maker in _HOSTING_MAKERS
    if is_quantised or only_hosts or (may_host and theirs.key in own):
        return replace(read, identity=theirs, rule="hosted copy")
    return read


def _with_tunings(reads: list[_Read]) -> list[_Read]:
    """Refuse a served bare name where a base and a tuned model of that name both exist."""
    tuned: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for read in reads:
        if not read.refused:
            tuned[_but_tuning(read.identity)].add(read.identity.tuning)
    return [_with_tuning(read, tuned[_but_tuning(read.identity)]) for read in reads]


def _with_tuning(read: _Read, tunings: set[str]) -> _Read:
    identity = read.identity
    if read.refused or identity.tuning not in ("", "tag"):
        return read
    is_base = identity.size and all(_BARE_IS_BASE.match(word) for word in identity.words)
    is_served = read.published.is_served or identity.tuning == "tag"
    if is_base and is_served and tunings & {"instruct", "chat"}:
        return replace(read, rule="base or tuned, not said", refused=True)
    return replace(read, identity=replace(identity, tuning=""))


def _but_tuning(identity: Identity) -> tuple[str, ...]:
    *rest, _, _ = identity.key
    return tuple(rest)


def _resolve_group(
    reads: list[_Read], members: list[int], found: list[Resolution], taken: set[str]
) -> None:
    """Names with one key: split them by snapshot and give each part an id."""
    full = _distinct({reads[member].identity.snapshot for member in members})
    parts: dict[Snapshot | None, list[int]] = defaultdict(list)
    rules: dict[int, str] = {}
    for member in members:
        identity = reads[member].identity
        snapshot, rule = _settled(identity, full)
        rules[member] = reads[member].rule or rule
        if rule == "several snapshots fit":
            found[member] = Resolution(None, rule, identity.setting)
        else:
            parts[snapshot].append(member)
    for snapshot in sorted(parts, key=str):
        model_id = _model_id([reads[member] for member in parts[snapshot]], snapshot, taken)
        taken.add(model_id)
        for member in parts[snapshot]:
            found[member] = Resolution(model_id, rules[member], reads[member].identity.setting)


def _distinct(snapshots: set[Snapshot | None]) -> list[Snapshot]:
    """The snapshots that there are: `11-06` and `2023-11` are one if nothing else fits either."""
    full = sorted((each for each in snapshots if each is not None), key=str)
    full = [
        each
        for each in full
        if not any(other.known_parts > each.known_parts and other.fits(each) for other in full)
    ]
    merged: list[Snapshot] = []
    for each in full:
        fitting = [other for other in full if other != each and other.fits(each)]
        alone = len(fitting) == 1 and sum(other.fits(fitting[0]) for other in full) == 2
        whole = each.completed(fitting[0]) if alone else each
        if whole not in merged:
            merged.append(whole)
    return merged


def _settled(identity: Identity, full: list[Snapshot]) -> tuple[Snapshot | None, str]:
    snapshot = identity.snapshot
    if snapshot is None:
        if len(full) == 1 and _is_pointer(identity, full[0]):
            return full[0], "only snapshot"
        return None, "undated" if full else "same name"
    fitting = [other for other in full if other.fits(snapshot)]
    if len(fitting) != 1:
        return None, "several snapshots fit"
    return fitting[0], "same name" if fitting[0] == snapshot else "date completed"


def _is_pointer(identity: Identity, only: Snapshot) -> bool:
    """Whether an undated name means the only snapshot there is."""
    if identity.maker in _POINTER_SERVICES:
        return not identity.size and only.day is not None
    return identity.maker in _POINTER_MAKERS or bool(only.revision)


def _model_id(members: list[_Read], snapshot: Snapshot | None, taken: set[str]) -> str:
    """Of the best source's spelling; the commonest, then the shortest, when several are as good."""
    maker = members[0].identity.maker
    exact = [read for read in members if read.identity.snapshot == snapshot] or members
    plain = [read for read in exact if not read.identity.setting and read.rule != "alias"] or exact
    best = min(read.published.preference for read in plain)
    slugs = Counter(read.identity.slug for read in plain if read.published.preference == best)
    slug = min(slugs, key=lambda text: (-slugs[text], len(text), text))
    if snapshot and parse(slug).snapshot is None:
        slug = f"{slug}-{snapshot}"
    if f"{maker}/{slug}" not in taken:
        return f"{maker}/{slug}"
    identity = members[0].identity
    rest = [*identity.words, *identity.key[2:], str(snapshot or "")]
    return f"{maker}/{'-'.join(filter(None, rest)).replace(' ', '-')}"
