"""Takes one request through its project's guardrails, and its answer too."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from core.contracts.guardrails import Side
from core.contracts.request_fact import RequestFact
from core.detection.examination import Passage
from gateway.answer import Answer
from gateway.body import Parsed, not_json
from gateway.errors import GatewayError
from gateway.guardrails import checking, documents, other_answers, texts
from gateway.guardrails.answers import Recorded, read_back
from gateway.guardrails.checking import Results
from gateway.guardrails.rules import Rail, Rails
from gateway.guardrails.streams import GuardedStream, StreamGuard
from gateway.guardrails.texts import Placed
from gateway.stats import Stats

_EMBEDDINGS = "/v1/embeddings"
_REPORT_S = 30.0
_MOST_READ_BYTES = 32 * 1024 * 1024
_TOLD = frozenset({"blocked", "refused"})


class Guard:
    """One request's way through the rules of its project, `rails`.

    Args:
        rails: The rules.
        path: The endpoint at the replica.
    """

    def __init__(self, rails: Rails, path: str) -> None:
        self.rails = self._rails = rails
        self._path = path
        self._results = Results()
        self._reports: list[asyncio.Task[None]] = []
        self._recorded: Recorded | None = None
        self._read_back: Callable[[Sequence[bytes]], list[Passage]] = read_back
        self._stream: StreamGuard | None = None

    async def admit(self, body: Parsed) -> Parsed:
        """The body that may go to a replica. Raises GatewayError: a rule refuses it."""
        rails = self._rails
        if not rails.asked and not rails.asked_report:
            return body
        try:
            document, passages = await documents.read(body.raw)
        except documents.TooManyParts as problem:
            for rail in rails.asked_report:
                self._results.add(rail, "input", "let_through", 0.0)
            self._cannot_read(str(problem))
            return body
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise not_json(error) from None
        if rails.asked_report:
            self._report(rails.asked_report, "input", _copies(passages))
        if texts.has_token_ids(document):
            self._cannot_read("its prompt is given as token ids, not as text")
            return body
        if not rails.asked:
            return body
        await checking.enforce(rails.asked, "input", passages, self._results)
        # Also where nothing was masked: of a name that stands twice, which is no error in JSON, the
        # replica must read the one that was looked at.
        raw = await documents.written(document, len(body.raw))
        return msgspec.structs.replace(body, raw=raw)

    async def admit_form(self, names: Sequence[str], values: list[str], unread: str) -> None:
        """Look at the texts of a form, and mask them where they are.

        Args:
            names: Of its fields.
            values: What they say.
            unread: Why there is more than that; "" when there is not.

        Raises GatewayError: a rule refuses it.
        """
        rails, passages = self._rails, texts.of_form(names, values)
        if rails.asked_report:
            self._report(rails.asked_report, "input", _copies(passages))
        if unread:
            self._cannot_read(unread)
            return
        await checking.enforce(rails.asked, "input", passages, self._results)

    def cannot_check(self, why: str) -> None:
        """Nothing of a request can be looked at. Raises GatewayError: a rule refuses it then."""
        rails = self._rails
        sides: tuple[tuple[Side, tuple[Rail, ...], tuple[Rail, ...]], ...] = (
            ("input", rails.asked, rails.asked_report),
            ("output", rails.answered, rails.answered_report),
        )
        for side, enforced, reported in sides:
            for rail in reported:
                self._results.add(rail, side, "let_through", 0.0)
            for rail in enforced:
                checking.pass_unchecked(rail, side, why, self._results)

    async def watch(
        self, answer: Answer, collected: Callable[[Answer], Awaitable[bytes]]
    ) -> Answer:
        """The answer as its caller may have it; `collected` reads all of one that is no stream.

        Raises GatewayError: a rule refuses it, or it broke off.
        """
        rails = self._rails
        if self._path == _EMBEDDINGS or not (rails.answered or rails.answered_report):
            return answer
        if answer.events is not None:
            if rails.answered_report:
                answer = self._recorded = Recorded(answer)
            if rails.answered:
                self._stream = StreamGuard(rails.answered, self._results)
                answer = guarded = GuardedStream(answer, self._stream)
                await guarded.look_at_first()
            return answer
        whole = await collected(answer)
        document = _document_of_answer(whole)
        choices = _choices(document)
        passages = [each for choice in choices for each in texts.of_choice(choice)]
        if rails.answered_report:
            self._report(rails.answered_report, "output", _copies(passages))
        if await checking.enforce(rails.answered, "output", passages, self._results):
            for choice in choices:
                texts.forget_tokens(choice)
            whole = msgspec.json.encode(document)
        seen = copy.copy(answer)
        seen.first, seen.is_whole = whole, True
        return seen

    async def watch_other(
        self, answer: Answer, collected: Callable[[Answer], Awaitable[bytes]]
    ) -> Answer:
        """As `watch`, for an answer that is no chat: it is read whole before any of it goes on."""
        rails = self._rails
        if not (rails.answered or rails.answered_report):
            return answer
        if not rails.answered and not answer.is_whole:
            self._recorded = Recorded(answer)
            self._read_back = partial(other_answers.read_back, answer.content_type)
            return self._recorded
        if (answer.content_bytes or 0) > _MOST_READ_BYTES:
            self._cannot_read_answer("it is too long")
            return answer
        whole = answer.first if answer.is_whole else await collected(answer)
        seen = copy.copy(answer)
        seen.first, seen.is_whole = whole, True
        try:
            if other_answers.is_long(whole):
                read = await asyncio.to_thread(other_answers.read, whole, answer.content_type)
            else:
                read = other_answers.read(whole, answer.content_type)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._cannot_read_answer("it is not of the form that it says")
            return seen
        if rails.answered_report:
            self._report(rails.answered_report, "output", _copies(read.passages))
        if await checking.enforce(rails.answered, "output", read.passages, self._results):
            seen.first = read.masked()
        return seen

    def end(self) -> bool:
        """The request has ended; whether something is still looked at, only to tell."""
        if self._stream is not None:
            self._stream.tell()
        if self._recorded is not None:
            work = self._report_stream(self._recorded.recorded)
            self._reports.append(asyncio.create_task(work))
        return not all(task.done() for task in self._reports)

    @property
    def has_seen_answer(self) -> bool:
        """Whether each rule could look at the answer: what one let through unseen is given once."""
        return all(
            each.side != "output" or each.outcome != "let_through" for each in self._results.all
        )

    async def told(self) -> None:
        """Wait for what is only told."""
        with suppress(TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(_REPORT_S):
                await asyncio.gather(*self._reports)

    def stop(self) -> None:
        """Wait for nothing more."""
        for task in self._reports:
            task.cancel()

    def write_down(self, fact: RequestFact, stats: Stats) -> None:
        """Put what the rules did into the fact and the metrics."""
        results = self._results.all
        for each in results:
            stats.guardrail_checks.add(each.rule, each.side, each.outcome)
            stats.guardrail_seconds.observe(each.ms / 1000, each.rule)
            if each.outcome in _TOLD:
                fact.blocked_by = each.rule
        if results:
            fact.guardrails = msgspec.json.encode(results).decode()

    def _report(self, rails: Sequence[Rail], side: Side, passages: Sequence[Passage]) -> None:
        work = checking.report(rails, side, passages, self._results)
        self._reports.append(asyncio.create_task(work))

    async def _report_stream(self, pieces: Sequence[bytes]) -> None:
        rails = self._rails.answered_report
        try:
            if sum(map(len, pieces)) > documents.LONG_BYTES:
                passages = await asyncio.to_thread(self._read_back, pieces)
            else:
                passages = self._read_back(pieces)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            for rail in rails:
                self._results.add(rail, "output", "let_through", 0.0)
        else:
            await checking.report(rails, "output", passages, self._results)

    def _cannot_read_answer(self, why: str) -> None:
        """Raises GatewayError: a rule refuses what it cannot check."""
        for rail in self._rails.answered_report:
            self._results.add(rail, "output", "let_through", 0.0)
        for rail in self._rails.answered:
            checking.give_up(rail, "output", why, 0.0, self._results)

    def _cannot_read(self, why: str) -> None:
        """Raises GatewayError: a rule refuses what it cannot check."""
        for rail in self._rails.asked:
            checking.give_up(rail, "input", why, 0.0, self._results)


def _copies(passages: Sequence[Placed]) -> list[Passage]:
    """The texts as they are now: masks come later."""
    return [Passage(each.text, each.role, each.is_answer) for each in passages]


def _document_of_answer(content: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise GatewayError(
            "upstream_error", "What the model's server answers is no JSON that can be checked."
        ) from None


def _choices(document: dict[str, Any]) -> list[dict[str, Any]]:
    choices = document.get("choices")
    return [each for each in choices if isinstance(each, dict)] if isinstance(choices, list) else []
