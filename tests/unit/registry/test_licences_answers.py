"""The curated answers: every one can be checked in the text it quotes."""

from __future__ import annotations

import re

import pytest

from core.kernel.errors import NotFound
from core.registry import licences
from core.registry.licences.answers import _file
from core.registry.licences.schemas import Answer

LONGEST_QUOTATION_WORDS = 25
_QUOTES = str.maketrans({"“": '"', "”": '"', "’": "'", "‘": "'"})

# The 22, in its order.
QUESTIONS = """modify distribute_modified core_restrictions derivative_limits naming_rules copyleft
    commercial_use user_threshold revenue_threshold royalties attribution notices publish_changes
    hosted_api_use rate_limits patent_grant patent_retaliation training_on_outputs privacy_terms
    revocation liability use_restrictions"""

# The licence tags that most models of Hugging Face bear.
TAGS = """apache-2.0 mit bsd-3-clause cc-by-4.0 cc-by-sa-4.0 cc-by-nc-4.0 cc-by-nc-sa-4.0
    cc-by-nc-nd-4.0 cc0-1.0 openrail++ bigscience-openrail-m bigscience-bloom-rail-1.0
    bigcode-openrail-m creativeml-openrail-m llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 gemma
    gpl-3.0 agpl-3.0 lgpl-3.0 mpl-2.0 unlicense wtfpl isc mrl mnpl qwen-research
    tongyi-qianwen openmdw-1.1"""


def _plain(text: str) -> str:
    """Whitespace and the form of quotation marks make no difference."""
    return " ".join(text.translate(_QUOTES).split())


def test_the_22_questions() -> None:
    assert list(licences.QUESTIONS) == QUESTIONS.split()


def test_most_models_bear_a_licence_with_answers() -> None:
    assert len(licences.curated_keys()) >= 50
    assert [tag for tag in TAGS.split() if not _is_answered(tag)] == []


def _is_answered(tag: str) -> bool:
    return licences.is_curated(licences.by_id(tag) or "")


@pytest.mark.parametrize("key", licences.curated_keys())
def test_every_quotation_stands_in_the_text(key: str) -> None:
    stated = _file(key)
    found = licences.answers(key)
    assert list(found) == list(licences.QUESTIONS)
    for question, answer in found.items():
        where = f"{key}, {question}"
        assert answer.explanation.endswith("."), where
        if answer.silent:
            # Silence is stated by the reviewer, never the result of a forgotten answer.
            assert question in stated["silent"], where
            assert "The text" in answer.explanation, where
            assert (answer.quotation, answer.section) == ("", ""), where
            continue
        assert question not in stated["silent"], where
        assert answer.section, where
        assert 0 < len(answer.quotation.split()) <= LONGEST_QUOTATION_WORDS, where
        assert _plain(answer.quotation) in _plain(licences.text(answer.document)), where


@pytest.mark.parametrize("key", licences.curated_keys())
def test_numbered_sections_exist(key: str) -> None:
    """A section such as 4(a) or 3.1: its first number heads a clause of the text."""
    for question, answer in licences.answers(key).items():
        number = re.match(r"(\d+)(?:[.(]|, |$)", answer.section)
        if number is None:
            continue
        text = licences.text(answer.document)
        heads = re.search(rf"(?m)^\W*(?:section )?{number[1]}\W", text, re.IGNORECASE)
        is_unnumbered = re.search(r"(?m)^\W*(?:section )?2\W", text, re.IGNORECASE) is None
        assert heads or is_unnumbered, f"{key}, {question}: {answer.section}"


def test_a_licence_of_a_family_says_only_what_its_own_text_says() -> None:
    """What differs between near neighbours differs in the answers."""

    def reply(key: str, question: str) -> Answer:
        return licences.answers(key)[question]

    assert reply("llama-2-license-2023", "training_on_outputs").reply == "no"
    assert reply("llama-3-license-2024", "training_on_outputs").reply == "no"
    assert reply("llama-3.1-license-2024", "training_on_outputs").reply == "conditional"
    assert "“Llama”" in reply("llama-3.1-license-2024", "naming_rules").quotation
    assert "“Llama 3”" in reply("llama-3-license-2024", "naming_rules").quotation
    assert reply("llama-3.1-license-2024", "user_threshold").limit == 700_000_000
    assert reply("llama-3.1-license-2024", "core_restrictions").in_eu == ""
    assert reply("llama-3.2-license-2024", "core_restrictions").in_eu == "requires"
    assert reply("llama-4-cla-2025", "core_restrictions").in_eu == "blocks"
    assert reply("qwen-2024", "user_threshold").limit == 100_000_000
    assert reply("tongyi-qianwen-2023", "training_on_outputs").reply == "no"
    assert reply("stability-ai-community-2024", "revenue_threshold").limit == 1_000_000
    assert reply("cc-by-4.0", "commercial_use").reply == "yes"
    assert reply("cc-by-nc-4.0", "commercial_use").reply == "no"
    assert reply("cc-by-nd-4.0", "distribute_modified").reply == "no"
    assert reply("mit", "patent_grant").silent
    assert reply("apache-2.0", "patent_grant").reply == "yes"
    assert reply("agpl-3.0", "hosted_api_use").reply == "conditional"
    assert reply("gpl-3.0", "hosted_api_use").reply == "yes"


def test_an_unknown_licence_is_refused_with_its_nearest() -> None:
    assert licences.answers("llama-9") == {}
    with pytest.raises(NotFound, match="There is no licence 'llama-3.1-licence-2024'") as caught:
        licences.licence("llama-3.1-licence-2024")
    assert "llama-3.1-license-2024" in caught.value.remedy
    with pytest.raises(NotFound, match="does not have the text of falcon-llm"):
        licences.text("falcon-llm")
