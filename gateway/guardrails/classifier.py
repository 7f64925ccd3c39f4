"""Asks a classifier; no redirect is followed, so that its key goes where it was meant to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from urllib.parse import urlsplit

from core.contracts.guardrails import Classifier
from core.detection import verdicts
from core.detection.examination import Examination, told
from gateway.upstream import Broken, ConnectFailed, Connection, Pool, TimedOut

_SLOTS = 16


class CannotSay(Exception):
    """A rule does not know whether a text is allowed; says why, without any of the text."""


class ClassifierClient:
    """One classifier.

    Args:
        check: Where it is and how it is asked.
        credential: Sent as a bearer token; "" means none.
    """

    def __init__(self, check: Classifier, credential: str) -> None:
        parts = urlsplit(check.url)
        self._check = check
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._pool = Pool(check.url, "", _SLOTS)
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if credential:
            self._headers["Authorization"] = f"Bearer {credential}"

    async def examine(self, texts: Sequence[str], within_s: float) -> Examination:
        """What it says of texts. Raises CannotSay."""
        texts = [text for text in texts if text.strip()]
        if not texts:
            return Examination()
        if sum(map(len, texts)) > verdicts.LONGEST_TEXT:
            raise CannotSay(f"the text has over {verdicts.LONGEST_TEXT:,} characters")
        try:
            async with asyncio.timeout(within_s):
                answer = await self._asked(verdicts.question(self._check, texts), within_s)
            flagged, found = verdicts.verdict(self._check, answer, len(texts))
        except (TimeoutError, TimedOut):
            raise CannotSay(f"its classifier did not answer within {within_s:g} s") from None
        except ConnectFailed:
            raise CannotSay("its classifier cannot be reached") from None
        except Broken:
            raise CannotSay("its classifier broke off") from None
        except ValueError as error:
            raise CannotSay(f"of its classifier, {error}") from None
        if not flagged:
            return Examination()
        return Examination(found, why=f"its classifier says no: {told(found)}")

    def close(self) -> None:
        """Close what is idle: it is asked no more."""
        self._pool.close_idle()

    async def _asked(self, body: bytes, within_s: float) -> bytes:
        head = self._pool.own_head(self._path, self._headers, len(body))
        connection = self._pool.idle()
        if connection is not None:
            try:
                return await self._answer(connection, head, body, within_s)
            except Broken:
                if connection.answer_begun:
                    raise
        connection = await self._pool.connect(within_s)
        return await self._answer(connection, head, body, within_s)

    async def _answer(
        self, connection: Connection, head: bytes, body: bytes, within_s: float
    ) -> bytes:
        try:
            connection.send(head, body)
            await connection.head(within_s)
            if 300 <= connection.status < 400:
                raise CannotSay("its classifier redirects, which is not followed")
            if connection.status != 200:
                raise CannotSay(f"its classifier answers with status {connection.status}")
            answer = bytearray()
            while read := await connection.read(within_s):
                answer += read
                if len(answer) > verdicts.LONGEST_ANSWER_BYTES:
                    raise CannotSay("its classifier's answer is too long")
            return bytes(answer)
        finally:
            # One whose answer did not come to its end is closed.
            self._pool.release(connection)
