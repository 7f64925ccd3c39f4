"""Serves the endpoints that are carried as they come: keys, limits and facts as for chat."""

from __future__ import annotations

from contextlib import closing
from functools import partial

from core.contracts.route_table import ApiKey, Route
from gateway import models, usage
from gateway.answer import Answer
from gateway.body import Parsed, parse
from gateway.guardrails.guard import Guard
from gateway.http_request import Response
from gateway.limits.beyond import Beyond
from gateway.limits.gate import DEFAULT_OUTPUT_TOKENS
from gateway.relay import Exchange
from gateway.surface import realtime
from gateway.surface.batches import Batches
from gateway.surface.carrying import (
    FormBody,
    PassedAnswer,
    PassingProxy,
    RequestsOnly,
    without_tokens,
)
from gateway.surface.endpoints import ENDPOINTS, Endpoint
from gateway.surface.files import Files
from gateway.surface.forms import Form
from gateway.surface.realtime import Realtime
from gateway.surface.spool import FOLDER_NAME
from gateway.surface.worker import Handler, Worker, form_reader, not_allowed
from gateway.table import Target
from gateway.usage import Usage


class Surface:
    """Its routes, as one worker serves them."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._proxy = PassingProxy(worker.stats)
        self._files = Files(worker)
        self._batches = Batches(worker)
        self._realtime = Realtime(worker)

    def route(self, method: str, path: str) -> tuple[str, Handler] | None:
        """The name of an endpoint and what serves it; None when the path is none of these."""
        found = ENDPOINTS.get(path)
        if found is None:
            if path == realtime.PATH:
                if method != "GET":
                    return "unknown", partial(not_allowed, allowed="GET")
                return "realtime", self._realtime.serve
            return self._files.route(method, path) or self._batches.route(method, path)
        if method != "POST":
            return "unknown", partial(not_allowed, allowed="POST")
        return found.name, partial(self._infer, endpoint=found)

    async def close(self) -> None:
        """Close what was opened to replicas."""
        await self._realtime.close()

    async def _infer(self, exchange: Exchange, endpoint: Endpoint) -> Response | None:
        worker = self._worker
        key = await worker.access.admit(exchange.request, exchange.fact)
        if not endpoint.is_form:
            raw = await exchange.read_body(worker.config.max_body_bytes)
            capture = worker.tables.current.captures.get(key.project_id)
            if capture is not None and endpoint.is_captured:
                exchange.record(capture, raw)
            return await self._carry(exchange, endpoint, key, parse(raw, can_stream=False))
        folder = worker.config.data_dir / FOLDER_NAME
        with worker.uploads.one(key.project_id), closing(Form(folder)) as form:
            reader = await form_reader(exchange, worker)
            await form.take(reader)
            exchange.fact.request_bytes = reader.received_bytes
            # An upload takes its time: the key may have been revoked meanwhile.
            key = await worker.access.admit(exchange.request, exchange.fact)
            body = FormBody(b"", form.model, False, None, form=form)
            return await self._carry(exchange, endpoint, key, body)

    async def _carry(
        self, exchange: Exchange, endpoint: Endpoint, key: ApiKey, body: Parsed
    ) -> Response | None:
        worker, fact = self._worker, exchange.fact
        fact.model = body.model

        def find(model: str) -> Target:
            table = worker.tables.current
            return models.target(table, key, model, endpoint.capability, asked=fact.model)

        route = find(body.model).route
        fact.deployment_id = route.deployment_id
        if worker.limits.on:
            counted = body if endpoint.counts_tokens else without_tokens(body)
            exchange.held = await worker.limits.admit(key, route, counted)
            self._limit_beyond(exchange, endpoint, key, route)
        body = await self._guarded(exchange, endpoint, key, body)
        session = exchange.request.headers.get("X-Session-Id", "")
        answer = await self._proxy.begin(find, endpoint.path, body, fact, session, exchange.beyond)
        assert isinstance(answer, PassedAnswer)
        exchange.answer = answer
        has_ended = False
        try:
            seen: Answer = answer
            if exchange.guard is not None and endpoint.answers_texts:
                seen = await exchange.guard.watch_other(answer, exchange.collected)
            response = await self._send(exchange, answer, seen)
            has_ended = not fact.error_class
            return response
        finally:
            exchange.account(answer, worker.stats)
            if answer.is_events and not has_ended:
                self._settle_as_estimated(exchange, answer)
            answer.release()

    def _settle_as_estimated(self, exchange: Exchange, answer: PassedAnswer) -> None:
        """Of a stream whose end did not come, where its usage would have stood."""
        held = exchange.held
        if held is None or exchange.fact.input_tokens is not None:
            return
        exchange.held = None
        cost_usd = usage.cost_usd(answer.price, Usage(0, DEFAULT_OUTPUT_TOKENS))
        self._worker.limits.settle_as(held, DEFAULT_OUTPUT_TOKENS, cost_usd or 0.0)

    def _limit_beyond(
        self, exchange: Exchange, endpoint: Endpoint, key: ApiKey, route: Route
    ) -> None:
        limits = self._worker.limits
        if (route.targets or route.fallbacks) and limits.limits_models_of(key.project_id):
            kind = Beyond if endpoint.counts_tokens else RequestsOnly
            exchange.beyond = kind(limits)

    async def _guarded(
        self, exchange: Exchange, endpoint: Endpoint, key: ApiKey, body: Parsed
    ) -> Parsed:
        """What may go to a replica. Raises GatewayError: a guardrail refuses it."""
        rails = self._worker.tables.current.guardrails.get(key.project_id)
        if rails is None:
            return body
        guard = exchange.guard = Guard(rails, endpoint.path)
        if not isinstance(body, FormBody):
            return await guard.admit(body)
        form = body.form
        await guard.admit_form(form.names, form.values, form.unread)
        return body

    async def _send(
        self, exchange: Exchange, answer: PassedAnswer, seen: Answer
    ) -> Response | None:
        fact = exchange.fact
        headers = {"X-Request-Id": fact.request_id}
        if answer.route.model != fact.model:
            headers["X-Bud-Fallback"] = fact.answered_by = answer.route.model
        if not answer.is_json:
            fact.stream, fact.ttft_ms = True, exchange.elapsed_ms()
        return await exchange.send(seen, headers)
