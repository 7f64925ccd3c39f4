"""Which licence a text is, and which one a name means."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

from core.kernel.errors import InvalidInput
from core.registry.licences import index
from core.registry.licences.answers import answers
from core.registry.licences.fingerprints import Fingerprint, differences, words
from core.registry.licences.schemas import Certainty, Identified
from core.registry.licences.texts import archive

_LEAST_WORDS, _MOST_WORDS = 12, 20_000
# What a text lacks of a licence speaks twice as much against it as what it has speaks for it;
# what it has beyond the licence does not: additions are shown instead.
_WEIGHT_OF_MISSING = 2
_LEAST_COVERAGE = 0.5
_LEAST_SIMILARITY = 0.4
_COMPANION_COVERAGE = 0.95
_NEIGHBOURS = 3
# The number or letter of a clause, such as "a" or "12"; versions, such as "3.1", are longer.
_MARKER_LETTERS = 2
_COPYRIGHT_WORDS = 16
_NAME_WORDS = 8
# What a template leaves to be filled in.
_PLACEHOLDER = re.compile(
    r"organization|(?:the )?(?:name of )?(?:the )?copyright (?:holder|owner)s?"
)
# Whoever the licensor is called, and how the document calls itself, changes no term.
_SYNONYMS = {
    *("a", "an", "the", "author", "authors", "holder", "holders", "owner", "owners", "copyright"),
    *("contributor", "contributors", "license", "licence", "agreement"),
}


def by_id(name: str) -> str | None:
    """The key of the licence that a name means.

    Args:
        name: A tag of Hugging Face (`llama3.1`), its `license_name`, an SPDX identifier, a key of
            ScanCode, or a name that boards use (`Meta Llama 4 Community`).

    Returns:
        The key, also of a licence whose text Bud lacks; None for a name that it does not know or
        that several licences could bear.
    """
    return index.key_of(name)


def identify(text: str) -> Identified | None:
    """Which licence a text is, or is built on; None when it is near to none.

    Copyright lines, layout, Markdown and case make no difference. See `Identified.certainty` for
    how sure it is: the answers for a licence hold only where `is_sure`.

    Raises:
        InvalidInput: The text is far longer than any licence.
    """
    asked = Fingerprint.of(text)
    if len(asked.words) > _MOST_WORDS:
        raise InvalidInput(
            "This text is too long for a licence.",
            value=f"{len(asked.words):,} words",
            remedy=f"Give the licence alone; up to {_MOST_WORDS:,} words are compared.",
        )
    if len(asked.words) < _LEAST_WORDS:
        return None
    shared = _shared(asked)
    key = max(shared, key=lambda key: _score(key, shared[key]), default=None)
    if key is None:
        return None
    similarity = {
        other: 2 * count / (asked.size + _known()[other].size) for other, count in shared.items()
    }
    coverage = shared[key] / _known()[key].size
    if coverage < _LEAST_COVERAGE or (coverage < 1 and similarity[key] < _LEAST_SIMILARITY):
        return None
    found = differences(_with_companions(key, asked), asked.words)
    others = sorted((item for item in similarity.items() if item[0] != key), key=_by_similarity)
    return Identified(
        key=key,
        certainty=_certainty(key, found),
        similarity=similarity[key],
        coverage=coverage,
        added=tuple(has for _, has in found if has),
        removed=tuple(lacks for lacks, _ in found if lacks),
        neighbours=tuple(others[:_NEIGHBOURS]),
    )


def _shared(asked: Fingerprint) -> dict[str, int]:
    """How many sequences each licence shares with the text; those that share none are left out."""
    by_shingle = _counts_by_shingle()
    shared: Counter[str] = Counter()
    for shingle, count in asked.shingles.items():
        for key, known in by_shingle.get(shingle, ()):
            shared[key] += min(count, known)
    return dict(sorted(shared.items()))


def _score(key: str, shared: int) -> int:
    return shared - _WEIGHT_OF_MISSING * (_known()[key].size - shared)


def _with_companions(key: str, asked: Fingerprint) -> tuple[str, ...]:
    """The words of a licence, then those of its use policy where the text holds that as well."""
    companions = {answer.document for answer in answers(key).values() if answer.document} - {key}
    held = [
        fingerprint.words
        for fingerprint in map(_known().__getitem__, sorted(companions))
        if asked.shared(fingerprint) >= _COMPANION_COVERAGE * fingerprint.size
    ]
    return _known()[key].words + tuple(word for words in held for word in words)


def _certainty(key: str, found: list[tuple[str, str]]) -> Certainty:
    if not found:
        return "exact"
    quoted = " ".join(" ".join(words(answer.quotation)) for answer in answers(key).values())
    is_quoted = any(len(lacks) > _MARKER_LETTERS and lacks in quoted for lacks, _ in found)
    is_harmless = not is_quoted and all(_is_harmless(lacks, has) for lacks, has in found)
    return "same words" if is_harmless else "differs"


def _is_harmless(lacks: str, has: str) -> bool:
    """Whether a difference can change no term; what is not known to be harmless is not."""
    if _PLACEHOLDER.fullmatch(lacks) and len(has.split()) <= _NAME_WORDS:
        return True
    if lacks.replace(" ", "") == has.replace(" ", ""):
        return True
    return all(_is_filler(passage) for passage in (lacks, has))


def _is_filler(passage: str) -> bool:
    found = passage.split()
    if len(found) == 1 and len(passage) <= _MARKER_LETTERS:
        return True
    is_copyright_line = "copyright" in found[:3] and len(found) <= _COPYRIGHT_WORDS
    return is_copyright_line or _SYNONYMS.issuperset(found)


def _by_similarity(item: tuple[str, float]) -> tuple[float, str]:
    return -item[1], item[0]


@cache
def _known() -> dict[str, Fingerprint]:
    return {key: Fingerprint.of(text) for key, text in archive()["texts"].items()}


@cache
def _counts_by_shingle() -> dict[tuple[str, ...], list[tuple[str, int]]]:
    """For each sequence the licences that have it, and how often: one pass finds all shared."""
    found: dict[tuple[str, ...], list[tuple[str, int]]] = {}
    for key, fingerprint in _known().items():
        for shingle, count in fingerprint.shingles.items():
            found.setdefault(shingle, []).append((key, count))
    return found
