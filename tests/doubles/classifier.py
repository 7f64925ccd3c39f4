"""A double of an external classifier: it flags what holds a word, or misbehaves as it is told.

Written after https://platform.openai.com/docs/api-reference/moderations (29 November 2026) for the
form `moderations`; the form `text` is Bud's own.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

WORD = "bomb"


class ClassifierDouble:
    """`async with ClassifierDouble() as double: double.url`; `mode` says how it answers.

    Modes: "" answers well; slow, redirect, fails, garbage, fewer; echo repeats the text as a
    category.
    """

    def __init__(self) -> None:
        self.mode = ""
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.elsewhere = 0

    async def __aenter__(self) -> ClassifierDouble:
        app = web.Application()
        app.router.add_post("/v1/moderations", self._moderations)
        app.router.add_post("/text", self._text)
        app.router.add_post("/elsewhere", self._elsewhere)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _asked(self, request: web.Request) -> tuple[dict[str, Any], web.Response | None]:
        body = await request.json()
        self.asked.append(body)
        self.keys.append(request.headers.get("Authorization", ""))
        if self.mode == "slow":
            await asyncio.sleep(30)
        if self.mode == "redirect":
            return body, web.Response(status=307, headers={"Location": "/elsewhere"})
        if self.mode == "fails":
            return body, web.json_response({"error": "no"}, status=500)
        if self.mode == "garbage":
            return body, web.Response(text="<html>")
        return body, None

    async def _text(self, request: web.Request) -> web.Response:
        body, wrong = await self._asked(request)
        names = [body["text"]] if self.mode == "echo" else ["violence"]
        flagged = WORD in body["text"]
        return wrong or web.json_response(
            {"flagged": flagged, "categories": names if flagged else []}
        )

    async def _moderations(self, request: web.Request) -> web.Response:
        body, wrong = await self._asked(request)
        results = [
            {"flagged": WORD in text, "categories": {"violence": WORD in text, "hate": False}}
            for text in body["input"]
        ]
        if self.mode == "fewer":
            results.pop()
        answer = {"id": "modr-1", "model": body.get("model", "m"), "results": results}
        return wrong or web.json_response(answer)

    async def _elsewhere(self, _: web.Request) -> web.Response:
        self.elsewhere += 1
        return web.json_response({"flagged": False})
