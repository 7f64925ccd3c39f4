"""Answers that are being written: one thread each, whoever watches.

The thread reads the stream and keeps what came in memory for pages and, every second, in the
database: a closed tab, a reload or a stop loses nothing, and a page that comes back finds the
running answer here.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass

from core.kernel import clock, database
from core.kernel.errors import BudError
from core.metrics.schemas import RequestCost
from core.playground import crud
from core.playground.adapters.gateway import ChatStream, Finished
from core.playground.schemas import ChatRequest, Endpoint, MessageState

log = logging.getLogger(__name__)

_SAVE_INTERVAL_S = 1.0


@dataclass(frozen=True)
class Snapshot:
    """What there is of an answer at a moment."""

    content: str
    reasoning: str
    state: MessageState
    ttft_ms: float | None

    @property
    def is_streaming(self) -> bool:
        """Whether more is to come."""
        return self.state == "streaming"


class Answer:
    """One answer being written."""

    def __init__(
        self,
        session_id: str,
        message_id: str,
        lane: int,
        endpoint: Endpoint,
        request: ChatRequest,
        cost: Callable[[Finished], RequestCost],
    ) -> None:
        self.session_id = session_id
        self.message_id = message_id
        self.lane = lane
        self.model = request.model
        self._stream = ChatStream(endpoint, request)
        self._cost = cost
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._state: MessageState = "streaming"
        self._error: BudError | None = None
        self._saved_s = clock.monotonic_s()
        self._stop_asked = threading.Event()
        self._ended = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name=f"answer-{lane}", daemon=True)

    def start(self) -> None:
        """Begin to read the stream."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the answer; what came so far is kept. Does nothing once it has ended."""
        self._stop_asked.set()
        if self._loop is not None and self._task is not None:
            # The loop may end between the check and the call.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._task.cancel)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; whether it has come."""
        return self._ended.wait(timeout_s)

    def snapshot(self) -> Snapshot:
        """What there is now."""
        return Snapshot(
            content="".join(self._content),
            reasoning="".join(self._reasoning),
            state=self._state,
            ttft_ms=self._stream.finished().ttft_ms,
        )

    def _run(self) -> None:
        state: MessageState = "failed"
        try:
            state = asyncio.run(self._read())
        except BudError as error:
            self._error = error
        except Exception as error:
            log.exception("answer %s failed", self.message_id)
            self._error = BudError(
                f"{type(error).__name__}: {error}",
                remedy="This is a fault in Bud; logs/app.log has the details.",
            )
        finally:
            self._finish(state)

    async def _read(self) -> MessageState:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._take_pieces())
        if self._stop_asked.is_set():
            self._task.cancel()
        try:
            await self._task
        except asyncio.CancelledError:
            return "stopped"
        return "done"

    async def _take_pieces(self) -> None:
        async with aclosing(self._stream.pieces()) as pieces:
            async for delta in pieces:
                if delta.content:
                    self._content.append(delta.content)
                if delta.reasoning:
                    self._reasoning.append(delta.reasoning)
                if clock.monotonic_s() - self._saved_s > _SAVE_INTERVAL_S:
                    await asyncio.to_thread(self._save_progress)

    def _save_progress(self) -> None:
        self._saved_s = clock.monotonic_s()
        with database.transaction() as tx:
            crud.set_message(
                tx,
                self.message_id,
                content="".join(self._content),
                reasoning="".join(self._reasoning),
            )

    def _finish(self, state: MessageState) -> None:
        finished = self._stream.finished()
        try:
            cost = self._cost(finished)
            with database.transaction() as tx:
                crud.set_message(
                    tx,
                    self.message_id,
                    content="".join(self._content),
                    reasoning="".join(self._reasoning),
                    state=state,
                    finish_reason=finished.finish_reason,
                    request_id=finished.request_id,
                    ttft_ms=finished.ttft_ms,
                    tokens_per_s=finished.tokens_per_s,
                    input_tokens=finished.input_tokens,
                    output_tokens=finished.output_tokens,
                    cost_usd=cost.cost_usd,
                    cost_basis=cost.basis,
                    error=self._error.what if self._error else "",
                    remedy=self._error.remedy if self._error else "",
                )
        finally:
            self._state = state
            with _lock:
                _live.pop(self.message_id, None)
            self._ended.set()


_live: dict[str, Answer] = {}
_lock = threading.Lock()


def begin(answer: Answer) -> None:
    """Register an answer, so that every page finds it, and start it."""
    with _lock:
        _live[answer.message_id] = answer
    answer.start()


def live(session_id: str) -> list[Answer]:
    """The answers of a chat that are being written now, by lane."""
    with _lock:
        found = [answer for answer in _live.values() if answer.session_id == session_id]
    return sorted(found, key=lambda answer: answer.lane)


def is_live(message_id: str) -> bool:
    """Whether this process writes the message now."""
    with _lock:
        return message_id in _live
