"""A stream that its caller gets only as far as the rules allow.

Events wait in order until nothing in them can still become something that is found; then they go on
as they came, byte for byte, or with marks in them. What no rule looks for is held back for no
longer than a word.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from core.contracts.guardrails import MaxLength
from core.detection.examination import SLICE, length_of, length_seen
from core.kernel import clock
from gateway.answer import Answer
from gateway.errors import GatewayError
from gateway.guardrails import checking, texts
from gateway.guardrails.answers import DATA, END, Wrapped, choices, document_of, is_answer
from gateway.guardrails.checking import Results
from gateway.guardrails.rules import Rail
from gateway.guardrails.texts import Placed
from gateway.guardrails.windows import Part, Window

_SIGN_OF_LIFE = b": \n\n"
_SIGN_OF_LIFE_S = 5.0
_MOST_HELD_BYTES = 32 * 1024 * 1024
_TURN_S = 0.001


@dataclass(slots=True)
class _Event:
    raw: bytes
    document: dict[str, Any] | None
    parts: list[Part] = field(default_factory=list)
    is_settled: bool = False
    is_changed: bool = False

    def settle(self) -> None:
        if not self.is_settled:
            self.is_settled = True
            for part in self.parts:
                if part.settle():
                    self.is_changed = True
                    texts.forget_tokens(part.choice)

    @property
    def out(self) -> bytes:
        self.settle()
        if self.is_changed:
            return b"data: " + msgspec.json.encode(self.document) + END
        return self.raw + END


class StreamGuard:
    """Looks at one stream.

    Args:
        rails: The rules that act on it.
        results: Where to keep what they did.
    """

    def __init__(self, rails: Sequence[Rail], results: Results) -> None:
        self._rails = rails
        self._results = results
        self._finding = [rail for rail in rails if _finds(rail)]
        self._lengths = [rail for rail in rails if isinstance(rail.rule.check, MaxLength)]
        self._whole = [rail for rail in rails if rail.needs_all]
        self._windows: dict[tuple[Any, ...], Window] = {}
        self._sizes: Counter[Rail] = Counter()
        self._events: deque[_Event] = deque()
        self._held_bytes = 0
        self._worked_s = dict.fromkeys(self._finding, 0.0)
        self._turn_s = 0.0
        self._found: dict[Rail, Counter[str]] = {rail: Counter() for rail in self._finding}
        self._told: set[Rail] = set()

    async def pass_on(self, events: bytes, *, is_end: bool) -> bytes:
        """What may go on, now that these whole events have come.

        Raises GatewayError: a rule refuses.
        """
        at_once = []
        for raw in events.split(END):
            if raw and DATA not in raw:
                at_once.append(raw + END)  # a sign of life
            elif raw:
                await self._take(raw)
                if self._held_bytes > _MOST_HELD_BYTES:
                    self._give_all_up()
        if is_end:
            await self._conclude()
        return b"".join([*at_once, *self._released()])

    def tell(self) -> None:
        """Keep what the rules did that refused nothing; once, at the end."""
        for rail, found in self._found.items():
            if rail not in self._told:
                outcome: Any = "masked" if found else "passed"
                self._results.add(rail, "output", outcome, self._worked_s[rail] * 1000, found)
        for rail in self._lengths:
            if rail not in self._told:
                self._results.add(rail, "output", "passed", 0.0)

    # -- what comes

    async def _take(self, raw: bytes) -> None:
        try:
            document = document_of(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise GatewayError(
                "upstream_error", "What the model's server streams is no JSON that can be checked."
            ) from None
        event = _Event(raw, document)
        for number, choice in choices(document):
            for place, holder, key in texts.in_pieces(choice):
                event.parts.append(await self._add(number, place, choice, (holder, key)))
            if choice.get("finish_reason"):
                for window in self._of_choice(number):
                    await self._close(window)
        self._held_bytes += len(raw)
        self._events.append(event)

    async def _add(
        self, number: Any, place: tuple[Any, ...], choice: dict[str, Any], at: tuple[Any, Any]
    ) -> Part:
        holder, key = at
        text, window = holder[key], self._window(number, place)
        part = Part(window, window.length, window.length + len(text), choice, holder, key)
        window.add(text)
        self._measure(text)
        if window.is_call and not self._finding:
            window.settle_call()
        elif not window.is_call:
            for other in self._of_choice(number):
                # A thought has ended when the answer begins.
                if other is not window and not other.is_call:
                    await self._close(other)
            await self._look(window, text, last=False)
            window.advance()
        return part

    def _window(self, number: Any, place: tuple[Any, ...]) -> Window:
        window = self._windows.get((number, *place))
        if window is None:
            window = self._windows[number, *place] = Window(
                self._finding, is_answer=is_answer(place), is_call=place[-1] == "arguments"
            )
        return window

    def _of_choice(self, number: Any) -> Iterator[Window]:
        return (window for key, window in self._windows.items() if key[0] == number)

    def _measure(self, text: str) -> None:
        for rail in self._lengths:
            assert isinstance(rail.rule.check, MaxLength)
            self._sizes[rail] += length_of(rail.rule.check, text)
            why = length_seen(rail.rule.check, self._sizes[rail]).why
            if why:
                self._told.add(rail)
                self._results.add(rail, "output", "blocked", 0.0)
                raise checking.refusal(rail, "output", why)

    async def _close(self, window: Window) -> None:
        """Nothing more comes there for now."""
        if window.final == window.length:
            return
        if window.is_call:
            await self._look(window, window.whole_call(), last=True)
            window.settle_call()
        else:
            await self._look(window, "", last=True)
            window.advance()

    async def _look(self, window: Window, text: str, *, last: bool) -> None:
        for rail in list(self._finding):
            for start in range(0, max(len(text), 1), SLICE):
                began_s = clock.monotonic_s()
                stop = start + SLICE
                found = window.look(rail, text[start:stop], last=last and stop >= len(text))
                took_s = clock.monotonic_s() - began_s
                self._worked_s[rail] += took_s
                self._turn_s += took_s
                self._count(rail, Counter(each.entity for each in found))
                if self._worked_s[rail] * 1000 > rail.rule.budget_ms:
                    self._give_up(rail, str(checking.over_budget(rail)))
                    break
                if self._turn_s > _TURN_S:
                    self._turn_s = 0.0
                    await asyncio.sleep(0)

    def _count(self, rail: Rail, found: Counter[str]) -> None:
        self._found[rail].update(found)
        if found and not rail.masks:
            self._told.add(rail)
            self._results.add(rail, "output", "blocked", self._worked_s[rail] * 1000, found)
            raise checking.refusal(rail, "output", checking.holds(found))

    def _give_up(self, rail: Rail, why: str) -> None:
        """It cannot say: it looks at nothing more, or the stream ends here."""
        self._told.add(rail)
        self._finding.remove(rail)
        for window in self._windows.values():
            window.forget(rail)
        checking.give_up(rail, "output", why, self._worked_s[rail] * 1000, self._results)

    # -- what goes on

    def _give_all_up(self) -> None:
        """More is held back than there is room for."""
        for rail in self._whole:
            checking.give_up(rail, "output", "it is too long", 0.0, self._results)
        self._whole = []
        for rail in list(self._finding):
            self._give_up(rail, "a tool call in it is too long")
        for window in self._windows.values():
            if window.is_call:
                window.settle_call()
            else:
                window.advance()

    def _released(self) -> Iterator[bytes]:
        if self._whole:
            return
        while self._events and all(part.is_final for part in self._events[0].parts):
            event = self._events.popleft()
            self._held_bytes -= len(event.raw)
            yield event.out

    async def _conclude(self) -> None:
        for window in list(self._windows.values()):
            await self._close(window)
        rails, self._whole = self._whole, []
        if not rails:
            return
        said: dict[int, list[str]] = {id(window): [] for window in self._windows.values()}
        for event in self._events:
            event.settle()
            for part in event.parts:
                said[id(part.window)].append(part.holder[part.key])
        passages = [
            Placed("".join(said[id(window)]), "assistant", window.is_answer)
            for window in self._windows.values()
        ]
        await checking.enforce(rails, "output", passages, self._results)


class GuardedStream(Wrapped):
    """A stream behind a guard. It is read piece by piece, so that the guard can take its time."""

    __slots__ = ("_guard", "_has_ended", "_wrote_s")

    is_pushed = False

    def __init__(self, answer: Answer, guard: StreamGuard) -> None:
        super().__init__(answer)
        self._guard = guard
        self._has_ended = False
        self._wrote_s = clock.monotonic_s()

    async def look_at_first(self) -> None:
        """Look at what has come already. Raises GatewayError: a rule refuses."""
        # Never empty: that would be the end.
        self.first = await self._passed(self.first) or _SIGN_OF_LIFE

    async def next(self) -> bytes:
        """See `Answer`. Raises GatewayError: a rule refuses."""
        while not self._has_ended:
            piece = await self._inner.next()
            self._has_ended = not piece
            out = await self._passed(piece)
            if not out and clock.monotonic_s() - self._wrote_s > _SIGN_OF_LIFE_S:
                out = _SIGN_OF_LIFE
            if out:
                self._wrote_s = clock.monotonic_s()
                return out
        return b""

    async def hand_on(
        self, write: Callable[[bytes], None], _write_chunk: Callable[[bytes], None] | None
    ) -> None:
        """See `Answer`."""
        while piece := await self.next():
            write(piece)

    async def _passed(self, piece: bytes) -> bytes:
        assert self.events is not None
        return await self._guard.pass_on(piece, is_end=not piece or self.events.is_whole)


def _finds(rail: Rail) -> bool:
    return rail.examiner is not None and rail.examiner.finder is not None
