"""A load of streams against the gateway, which notes how each of them ended."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field

import aiohttp
import msgspec


@dataclass
class Outcome:
    """How one stream ended: ok, error_event, refused (an HTTP error), cut or unreachable."""

    kind: str
    model: str
    started_s: float
    ended_s: float
    request_id: str = ""
    server: str = ""
    detail: str = ""


@dataclass
class Load:
    """Runs `streams` callers in a loop, in a thread, until stopped."""

    url: str
    key: str
    models: dict[str, int]
    words: int = 15
    outcomes: list[Outcome] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Load:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join(timeout=60)
        assert not self._thread.is_alive()

    def completed(self, since_s: float = 0.0) -> list[Outcome]:
        """The streams that ended well, of those that began after `since_s`."""
        return [one for one in self.outcomes if one.kind == "ok" and one.started_s >= since_s]

    def failed(self) -> list[Outcome]:
        """The others."""
        return [one for one in self.outcomes if one.kind != "ok"]

    async def _run(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as session:
            callers = [
                self._caller(session, model)
                for model, streams in self.models.items()
                for _ in range(streams)
            ]
            await asyncio.gather(*callers)

    async def _caller(self, session: aiohttp.ClientSession, model: str) -> None:
        while not self._stop.is_set():
            outcome = await self._one(session, model)
            self.outcomes.append(outcome)
            if outcome.kind != "ok":
                await asyncio.sleep(0.1)

    async def _one(self, session: aiohttp.ClientSession, model: str) -> Outcome:
        outcome = Outcome("cut", model, time.monotonic(), 0.0)
        body = {
            "model": model,
            "stream": True,
            "max_tokens": self.words if not model.startswith("real") else 4,
            "messages": [{"role": "user", "content": "Say something."}],
        }
        try:
            async with session.post(
                f"{self.url}/v1/chat/completions",
                json=body,
                headers={"Authorization": f"Bearer {self.key}"},
            ) as answer:
                outcome.request_id = answer.headers.get("X-Request-Id", "")
                if answer.status != 200:
                    outcome.kind, outcome.detail = "refused", await answer.text()
                    return outcome
                async for line in answer.content:
                    _note(outcome, line)
        except aiohttp.ClientConnectorError as error:
            outcome.kind, outcome.detail = "unreachable", str(error)
        except (aiohttp.ClientError, TimeoutError) as error:
            outcome.detail = str(error)
        finally:
            outcome.ended_s = time.monotonic()
        return outcome


def _note(outcome: Outcome, line: bytes) -> None:
    if line.startswith(b"data: [DONE]"):
        outcome.kind = "ok"
    elif line.startswith(b"data: "):
        event = msgspec.json.decode(line[6:])
        if "error" in event:
            outcome.kind, outcome.detail = "error_event", event["error"]["message"]
        outcome.server = event.get("system_fingerprint") or outcome.server
