"""Texts are recognised whatever their layout, and changed ones are not taken for the licence."""

from __future__ import annotations

import textwrap

import pytest

from core.kernel.errors import InvalidInput
from core.registry import catalogue, licences
from core.registry.licences import cards

_ACCEPTED = "exact", "same words"


def _identified(text: str) -> tuple[str, str]:
    found = licences.identify(text)
    assert found is not None
    return found.key, found.certainty


@pytest.mark.parametrize("key", licences.curated_keys())
def test_a_text_is_itself_in_any_layout(key: str) -> None:
    text = licences.text(key)
    assert _identified(text) == (key, "exact")
    laid_out = textwrap.fill(
        " ".join(text.split()), 57, break_on_hyphens=False, break_long_words=False
    )
    changed = f"# LICENSE\n\nCopyright (c) 2024 Example Org\n\n{laid_out.upper()}\n"
    found, certainty = _identified(changed)
    assert found == key
    assert certainty in _ACCEPTED


@pytest.mark.parametrize(
    ("key", "old", "new", "expected"),
    [
        # what fills a template is no difference
        ("bsd-new", "ORGANIZATION", "copyright holder", ("bsd-new", "same words")),
        ("mit", "Permission is", "MIT License\n\nPermission is", ("mit", "exact")),
        (
            "mit",
            "Permission is",
            "Microsoft.\nCopyright (c) Microsoft Corporation.\n\nMIT License\n\nPermission is",
            ("mit", "same words"),
        ),
        # a few words, and another licence
        (
            "mit",
            "without restriction,",
            "without restriction, for research only,",
            ("mit", "differs"),
        ),
        (
            "apache-2.0",
            "END OF TERMS",
            "10. No use by more than 100 users. END OF TERMS",
            ("apache-2.0", "differs"),
        ),
        (
            "moonshot-ai-modified-mit-2025",
            "Kimi K2",
            "MiniMax M2",
            ("moonshot-ai-modified-mit-2025", "differs"),
        ),
        ("qwen-2024", "100 million", "10 million", ("qwen-2024", "differs")),
        ("llama-3.1-license-2024", "3.1", "3.9", ("llama-3.1-license-2024", "differs")),
        ("cc-by-nc-4.0", "irrevocable", "revocable", ("cc-by-nc-4.0", "differs")),
    ],
)
def test_what_was_changed_decides(key: str, old: str, new: str, expected: tuple[str, str]) -> None:
    text = licences.text(key)
    assert old in text
    assert _identified(text.replace(old, new)) == expected


def test_it_says_what_differs() -> None:
    found = licences.identify(licences.text("mit").replace("any person", "any natural person only"))
    assert found is not None
    assert not found.is_sure
    assert found.added == ("natural", "only")
    assert found.removed == ()
    assert found.coverage > 0.95
    assert found.neighbours[0][0] == "mit-0"


def test_the_appendix_and_the_use_policy_are_no_difference() -> None:
    apache = licences.text("apache-2.0").split("APPENDIX")[0]
    assert _identified(apache) == ("apache-2.0", "exact")
    both = licences.text("llama-3.2-license-2024") + licences.text("llama-3.2-aup-2024")
    assert _identified(both) == ("llama-3.2-license-2024", "exact")


def test_what_is_no_licence_is_none() -> None:
    assert licences.identify("") is None
    assert licences.identify("MIT") is None
    assert licences.identify("The quick brown fox jumps over the lazy dog. " * 40) is None


def test_a_book_is_refused() -> None:
    with pytest.raises(InvalidInput, match="too long for a licence"):
        licences.identify(licences.text("mit") * 200)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        # Hugging Face, SPDX, ScanCode, boards, addresses
        ("llama3.1", "llama-3.1-license-2024"),
        ("BSD-3-Clause", "bsd-new"),
        ("LicenseRef-scancode-qwen-2024", "qwen-2024"),
        ("GPL-3.0-only", "gpl-3.0"),
        ("apache-2.0", "apache-2.0"),
        ("Apache 2.0", "apache-2.0"),
        ("Meta Llama 4 Community", "llama-4-cla-2025"),
        ("MRL", "mistral-research-0.1"),
        ("https://ai.google.dev/gemma/terms", "gemma-tou-2025-03-24"),
        ("Proprietary", "proprietary-license"),
        # known by name only
        ("modified-mit", "modified-mit"),
        ("katanemo-research", "katanemo-research"),
        # never guessed
        ("Llama", None),
        ("Nvidia", None),
        ("other", None),
        ("", None),
        ("https://example.org/LICENSE", None),
    ],
)
def test_names(name: str, key: str | None) -> None:
    assert licences.by_id(name) == key


def test_cards_name_licences_that_bud_knows_and_sources_agree() -> None:
    stated = catalogue.models().set_index("hub_id")["licence"].dropna().to_dict()
    for hub_id in cards.hub_ids():
        key = licences.of_repository(hub_id)
        assert key is not None, hub_id
        assert stated.get(hub_id, key) == key, hub_id
    assert licences.of_repository("qwen/QWEN2.5-72b") == "qwen-2024"
    assert licences.of_repository("nobody/nothing") is None
