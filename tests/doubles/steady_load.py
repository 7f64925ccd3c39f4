"""Callers that keep their connections and ask without a pause; any answer but 200 is a failure."""

from __future__ import annotations

import asyncio
from types import TracebackType

import msgspec

from tests.doubles.gateway_harness import CHAT, KEY

_BODY = msgspec.json.encode({"model": CHAT, "messages": [{"role": "user", "content": "Hello"}]})
_REQUEST = (
    "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\n"
    f"Authorization: Bearer {KEY}\r\nContent-Length: {len(_BODY)}\r\n\r\n"
).encode() + _BODY


class SteadyLoad:
    """`async with SteadyLoad(port) as load: …`; afterwards `load.answered` and `load.failures`.

    Args:
        port: Of the gateway.
        connections: How many callers there are.
        pause_s: Between an answer and the next request.
    """

    def __init__(self, port: int, connections: int = 8, pause_s: float = 0.004) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._port = port
        self._pause_s = pause_s
        self._ending = False
        self._connections = connections

    async def __aenter__(self) -> SteadyLoad:
        self._callers = [asyncio.create_task(self._call()) for _ in range(self._connections)]
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._ending = True
        await asyncio.gather(*self._callers)

    async def _call(self) -> None:
        while not self._ending:
            try:
                await self._on_one_connection()
            except (OSError, asyncio.IncompleteReadError) as error:
                self.failures.append(repr(error))

    async def _on_one_connection(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            keeps = True
            while keeps and not self._ending:
                writer.write(_REQUEST)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                body = await reader.readexactly(length)
                if b" 200 " in head.partition(b"\r\n")[0]:
                    self.answered += 1
                else:
                    self.failures.append(body.decode())
                keeps = b"connection: close" not in head
                await asyncio.sleep(self._pause_s)
        finally:
            writer.close()
