"""What callers see of licences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Reply = Literal["yes", "no", "conditional"]
Impact = Literal["none", "low", "medium", "high"]
Certainty = Literal["exact", "same words", "differs"]
Outcome = Literal["yes", "conditional", "no", "needs review"]
Effect = Literal["blocks", "requires", "unclear", "allows"]


@dataclass(frozen=True, slots=True)
class Question:
    """One of the 22 questions.

    Attributes:
        key: Its name, such as `user_threshold`.
        title: A few words for a table.
        asks: The question in full.
        is_permission: Whether "yes" gives you something; otherwise "yes" asks something of you.
        silent: What is said of a text that says nothing about it.
        silent_reply: What such a text answers.
    """

    key: str
    title: str
    asks: str
    is_permission: bool
    silent: str
    silent_reply: Reply = "no"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a licence answers to a question, and the words it rests on.

    Attributes:
        reply: yes, no or conditional.
        impact: How much it matters to somebody who builds a product on the model.
        section: Where it stands, in the licence's own numbering; "" where the text is silent.
        quotation: At most 25 words of the text, verbatim; "" where the text is silent.
        explanation: What it means, in our words.
        silent: Whether the text says nothing about it.
        document: The key of the text that is quoted: the licence's own, or its use policy.
        when: Which uses meet it, such as `distributes` or `modifies+distributes`; any of them.
            None leaves it to the question, and () means that no use meets it.
        limit: Above how many (users, US dollars a year) it takes effect.
        above: What happens above the limit: not allowed, or something is required.
        in_eu: What it means for somebody established in the European Union.
    """

    reply: Reply
    impact: Impact
    section: str
    quotation: str
    explanation: str
    silent: bool = False
    document: str = ""
    when: tuple[str, ...] | None = None
    limit: int | None = None
    above: Literal["blocks", "requires"] = "blocks"
    in_eu: Literal["", "blocks", "requires"] = ""


@dataclass(frozen=True, slots=True)
class Licence:
    """A licence by its key.

    Attributes:
        key: The key of ScanCode LicenseDB, or Bud's own where that has none.
        spdx: Its SPDX identifier, or a `LicenseRef-…`.
        name: Its name in full.
        short_name: Its name where there is little room, such as `CC-BY-NC-4.0`.
        category: ScanCode's category, such as `Permissive` or `Proprietary Free`.
        owner: Who wrote it.
        url: Where it is published; "" when not known.
        has_text: Whether Bud has its text.
        text_source: Where Bud's copy of the text is from.
        released: When this version came out, as far as known: `2024-07-23`, `2024-05` or `2007`.
        note: What a reader should know, such as that a name covers several texts.
        builds_on: The licence whose terms hold as well, by the name of this one, where Bud lacks
            the text that is added to them; "" otherwise.
    """

    key: str
    spdx: str
    name: str
    short_name: str
    category: str
    owner: str
    url: str
    has_text: bool
    text_source: str
    released: str = ""
    note: str = ""
    builds_on: str = ""


@dataclass(frozen=True, slots=True)
class Identified:
    """What licence a text is, and how sure that is.

    Attributes:
        key: The licence it is, or is nearest to.
        certainty: `exact`: word for word, but for copyright lines and layout. `same words`: it
            differs in a few words without weight, such as the name of an organisation.
            `differs`: it is built on the licence, but words that matter were added or removed.
        similarity: The share of three-word sequences that both have, 0 to 1 (Dice).
        coverage: The share of the licence's three-word sequences that the text has, 0 to 1.
        added: Passages of the text that the licence does not have.
        removed: Passages of the licence that the text does not have.
        neighbours: The next nearest licences with their similarity.
    """

    key: str
    certainty: Certainty
    similarity: float
    coverage: float
    added: tuple[str, ...]
    removed: tuple[str, ...]
    neighbours: tuple[tuple[str, float], ...]

    @property
    def is_sure(self) -> bool:
        """Whether the answers for the licence hold for this text."""
        return self.certainty != "differs"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a verdict is what it is: an answer, and what it does to the use."""

    question: str
    effect: Effect
    impact: Impact
    text: str
    section: str
    quotation: str
    document: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a licence allows a use.

    Attributes:
        key: The licence; "" when none is known.
        outcome: `yes`, `conditional` (something must be done or checked), `no`, or
            `needs review` when there are no answers to go by.
        summary: The outcome in a sentence.
        reasons: What it rests on, the weightiest first.
    """

    key: str
    outcome: Outcome
    summary: str
    reasons: tuple[Reason, ...]

    @property
    def duties(self) -> tuple[Reason, ...]:
        """What must be done."""
        return tuple(reason for reason in self.reasons if reason.effect == "requires")
