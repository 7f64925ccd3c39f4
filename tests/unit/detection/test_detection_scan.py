"""A text that comes in pieces: what is found does not depend on where it was cut."""

from __future__ import annotations

import re

import pytest
import re2
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.detection import personal, secrets, words
from core.detection.beginnings import Unreadable, beginning_of
from core.detection.finding import LONGEST_MATCH, Finder, Found, Scan, united

FINDERS: dict[str, Finder] = {
    "pii": personal.finder(),
    "secrets": secrets.finder(),
    "words": words.finder(
        ("Falcon", "blue moon", "straße", "C++"), (r"proj-\d{2,4}x?", r"a.{2,5}z")
    ),
}
PIECES = [
    *("ada@example.org", "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00", "078-05-1120"),
    *("+49 170 1234567", "203.0.113.9", "2001:db8::1:2:3", "2341 2341 2346", "Tel. 030 12 34 56"),
    *("AKIAQ3ZK7VJ2WXNB5TRL", "ghp_a8Dk3nF9sLq0ZxV7bT2mR5yU1wE4iO6pJ3hG", "password: 'swordfish'"),
    *("-----BEGIN PRIVATE KEY-----\nMIIab\n", "-----END PRIVATE KEY-----", "postgres://u:s3cret@db"),
    *("FALCON", "blue", "moon", "Straße", "proj-1234x", "a--z", "C++", "@", "4111", "1 2 3 4", "."),
    *(" ", "\n", ": ", "é", "日本", "x", "7", "-", '"', "\\", "://"),
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


def in_pieces(finder: Finder, text: str, cuts: list[int]) -> list[Found]:
    scan, found, before = Scan(finder), [], 0
    for cut in [*sorted(cuts), len(text)]:
        cut = max(min(cut, len(text)), before)
        found += scan.feed(text[before:cut], last=cut == len(text))
        before = cut
    if before == len(text) and scan.final < before:
        found += scan.feed("", last=True)
    return found


@pytest.mark.parametrize("kind", FINDERS)
@settings(max_examples=150, deadline=None)
@given(text=texts, cuts=st.lists(st.integers(0, 200), max_size=30))
@example(text="5 4111 1111 1111 1111 7", cuts=[2, 3, 21])
@example(text="xada@example.org.uk", cuts=list(range(19)))
@example(text="Tel. 030 12 34 564111 1111 1111 1111", cuts=[26])
def test_cuts_change_nothing(kind: str, text: str, cuts: list[int]) -> None:
    whole = FINDERS[kind].find(text)
    assert in_pieces(FINDERS[kind], text, cuts) == whole


@pytest.mark.parametrize("kind", FINDERS)
def test_split_at_every_byte(kind: str) -> None:
    text = " ".join(PIECES)
    whole = FINDERS[kind].find(text)
    assert len(whole) >= 3
    assert in_pieces(FINDERS[kind], text, list(range(len(text)))) == whole


def test_plain_words_are_held_back_for_no_longer_than_a_word() -> None:
    scan = Scan(FINDERS["pii"])
    scan.feed("Nothing of this is private, as far as one can")
    assert scan.final == len("Nothing of this is private, as far as one ")
    scan.feed(" see")
    assert scan.final == len("Nothing of this is private, as far as one can ")


def test_what_is_held_back_is_bounded() -> None:
    scan = Scan(FINDERS["secrets"])
    for _ in range(20):
        scan.feed("-----BEGIN PRIVATE KEY-----\n" + "MIIa" * 1000)
    assert scan.final > 20 * 4000 - LONGEST_MATCH - 4100


@given(
    pattern=st.recursive(
        st.sampled_from(["a", "b", "[ab]", r"\d", r"\b", "c"]),
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from(["*", "+", "?", "{1,2}", "{2}", "{0,}"])).map(
                lambda made: f"(?:{made[0]}){made[1]}"
            ),
            st.tuples(inner, inner).map("".join),
            st.tuples(inner, inner).map(lambda made: f"(?:{made[0]}|{made[1]})"),
        ),
        max_leaves=6,
    ),
    text=st.text("abc1", max_size=6),
)
@settings(max_examples=300, deadline=None)
def test_every_beginning_of_a_match_is_one(pattern: str, text: str) -> None:
    found = re.compile(pattern).fullmatch(text)
    if found is None:
        return
    beginning = re2.compile(beginning_of(pattern))
    for end in range(len(text) + 1):
        assert beginning.fullmatch(text[:end]) is not None, (pattern, text[:end])


@pytest.mark.parametrize("pattern", ["a)", "(a", "[a", "(?i)a", r"\Qa\E", "*a", "\\"])
def test_what_cannot_be_read_is_said(pattern: str) -> None:
    with pytest.raises(Unreadable):
        beginning_of(pattern)


def test_what_overlaps_is_one() -> None:
    found = [Found(4, 9, "b"), Found(0, 5, "a"), Found(9, 10, "c")]
    assert united(found) == [Found(0, 9, "a"), Found(9, 10, "c")]
