"""Asks the lines of one batch, as many at once as live requests leave room for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import msgspec

from core.batches import lines, pacing
from core.batches.adapters.gateway import Gateway
from core.batches.lines import Answers, Line
from core.batches.pacing import Lane
from core.contracts.batch import SECRET_PREFIX, TICKET_CONTEXT, BatchRequest, Folder, Ticket
from core.kernel import clock
from core.kernel.crypto import Secret
from core.kernel.errors import Unavailable
from core.kernel.keys import keyring
from core.kernel.settings import settings

# How often it looks whether it shall stop, and for room.
_TICK_S = 0.1
_REPORT_S = 1.0
# A line that was begun in time may be answered a little later.
_GRACE_S = 900.0


class Asking:
    """One run through the lines that have no answer yet.

    Args:
        folder: Of the project.
        request: The batch.
        answers: What came so far.
        check: Raises when the work shall stop; called often.
        report: Told about every second, with how many lines are being asked.
    """

    def __init__(
        self,
        folder: Folder,
        request: BatchRequest,
        answers: Answers,
        check: Callable[[], None],
        report: Callable[[int], None],
    ) -> None:
        self._request, self._answers = request, answers
        self._input = folder.content(request.input_file_id)
        self._check, self._report = check, report
        self._reported_s = clock.monotonic_s()
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> bool:
        """Ask; whether every line has an answer. False: the batch expired before."""
        gateway = Gateway(settings().local_gateway_url, _ticket(self._request))
        in_time = True
        try:
            for number, line in enumerate(lines.read(self._input), 1):
                if line.custom_id in self._answers.done:
                    continue
                lane = pacing.lane(self._request.project_id, lines.model_of(line))
                in_time = await self._room(lane)
                if not in_time:
                    break
                task = asyncio.create_task(self._ask(gateway, line, number))
                # Also when it is cancelled before it began.
                task.add_done_callback(partial(self._left, lane))
                self._running.add(task)
            while self._running:
                await self._tick()
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)
            await gateway.close()
        if not in_time:
            self._expire_rest()
        return in_time

    def _left(self, lane: Lane, _task: asyncio.Task[None]) -> None:
        lane.give_back(self._request.id)

    async def _room(self, lane: Lane) -> bool:
        """Wait for room; False when the batch expires first."""
        while clock.unix_s() < self._request.expires_unix_s:
            if lane.take(self._request.id):
                return True
            await self._tick()
        return False

    async def _tick(self) -> None:
        if self._running:
            done, self._running = await asyncio.wait(
                self._running, timeout=_TICK_S, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                task.result()
        else:
            await asyncio.sleep(_TICK_S)
        self._check()
        if clock.monotonic_s() - self._reported_s >= _REPORT_S:
            self._reported_s = clock.monotonic_s()
            self._report(len(self._running))

    async def _ask(self, gateway: Gateway, line: Line, number: int) -> None:
        request, request_id = self._request, f"{self._request.id}-{number}"
        try:
            answered = await gateway.ask(
                request.endpoint, bytes(line.body), request_id, request.expires_unix_s
            )
        except Unavailable as problem:
            error = {"code": "gateway_unreachable", "message": str(problem)}
            self._answers.add(line.custom_id, request_id, error=error)
        else:
            self._answers.add(
                line.custom_id, answered.request_id, status=answered.status, body=answered.body
            )

    def _expire_rest(self) -> None:
        """Lines that have no answer get the error that says why."""
        error = {"code": "batch_expired", "message": "The batch expired before this was asked."}
        for number, line in enumerate(lines.read(self._input), 1):
            if line.custom_id not in self._answers.done:
                self._answers.add(line.custom_id, f"{self._request.id}-{number}", error=error)


def _ticket(request: BatchRequest) -> Secret:
    ticket = Ticket(
        batch_id=request.id,
        project_id=request.project_id,
        key_id=request.key_id,
        ends_unix_s=request.expires_unix_s + _GRACE_S,
    )
    content = Secret(msgspec.json.encode(ticket).decode())
    return Secret(SECRET_PREFIX + keyring().seal(content, context=TICKET_CONTEXT))
