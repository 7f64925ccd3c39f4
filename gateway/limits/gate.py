"""Between a request and its limits: estimates, refusals in the caller's words, settling."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from pathlib import Path

from core.contracts.request_fact import RequestFact
from core.contracts.route_table import ApiKey, Limit, Route
from core.kernel import clock
from core.kernel.crypto import Secret
from gateway.body import Parsed
from gateway.errors import GatewayError
from gateway.limits.exchange import check_url
from gateway.limits.hosts import Hosts
from gateway.limits.leases import Lacking
from gateway.limits.ledger import NoPlace
from gateway.limits.limiter import Busy, Limiter, Refusal, Reservation
from gateway.limits.plan import Plan
from gateway.limits.record_index import TableFull
from gateway.limits.shared_table import FOLDER_NAME, HOSTS, IN_TOUCH, Stuck

log = logging.getLogger(__name__)

# What an answer is taken to have when the caller names no maximum, in tokens.
DEFAULT_OUTPUT_TOKENS = 512
_BYTES_PER_TOKEN = 4
_MOST_TOKENS = 1_000_000_000
# What takes next to nothing, but is refused where nothing is left.
_LEAST = Parsed(b"    ", "", stream=True, stream_options=None, max_tokens=1)
# Waiting for what other hosts give: in all, before asking once more, and between two looks.
_ASKED_S, _ASK_AGAIN_S = 3.0, 0.1
_FIRST_PAUSE_S, _MOST_PAUSE_S = 0.001, 0.02
_UNITS = {"requests": "requests", "tokens": "tokens", "concurrent": "requests at once"}


class LimitGate:
    """The limits of one worker; costs an attribute while the route table has none.

    Args:
        data_dir: Workers on the same folder share their limits.
        valkey_url: Hosts with the same server share theirs; None when there is one host.

    Raises:
        InvalidInput: That is no such URL.
    """

    def __init__(self, data_dir: Path, valkey_url: Secret | None = None) -> None:
        if valkey_url is not None:
            check_url(valkey_url)
        self._folder, self._valkey_url = data_dir / FOLDER_NAME, valkey_url
        self._hosts: Hosts | None = None
        self._limiter: Limiter | None = None
        self._limits: Sequence[Limit] | None = None
        self._problem = ""
        self._flushes = False

    def use(self, limits: Sequence[Limit]) -> None:
        """Take a route table's limits; does nothing when these are in use."""
        if limits is self._limits:
            return
        if self._limiter is None and limits and not self._opened():
            return  # tried again with the next call
        self._limits, self._problem = limits, ""
        if self._limiter is not None:
            self._limiter.use(limits)
        if self._hosts is not None:
            self._hosts.use(limits)

    def _opened(self) -> bool:
        try:
            shared = self._valkey_url is not None
            self._limiter = Limiter(self._folder, shared=shared, when_kept=self._flush_soon)
        except (OSError, NoPlace, Stuck) as error:
            if not self._problem:
                log.error("limits cannot be kept, so requests are refused: %s", error)
            self._problem = str(error)
            return False
        if self._valkey_url is not None:
            assert self._limiter.leases is not None
            self._hosts = Hosts(self._limiter.table, self._limiter.leases, self._valkey_url)
        return True

    @property
    def on(self) -> bool:
        """Whether requests must be admitted."""
        return self._limiter is not None or bool(self._problem)

    @property
    def hosts(self) -> int:
        """How many hosts keep the limits together; 0 while they do not agree."""
        if self._hosts is None or self._limiter is None:
            return 1
        words = self._limiter.table.words
        return words[HOSTS] if words[IN_TOUCH] else 0

    async def admit(self, key: ApiKey, route: Route, body: Parsed) -> Reservation | None:
        """Hold what a request may use; None when nothing limits it.

        Args:
            key: Whose request it is.
            route: The model it calls.
            body: The request.

        Raises:
            GatewayError: A limit is reached, or limits cannot be kept now.
        """
        if self._limiter is None:
            if self._problem:
                raise _unavailable(self._problem)
            return None
        plan = self._limiter.plan_for(key, route.model)
        return None if plan is None else await self._held(self._limiter, plan, body, route)

    def admit_now(self, key: ApiKey, route: Route, body: Parsed) -> Reservation | None:
        """As `admit`, where nothing must be waited for.

        Raises BlockingIOError: It is for `admit` to say.
        """
        limiter = self._limiter
        if limiter is None:
            raise BlockingIOError
        plan = limiter.plan_for(key, route.model)
        if plan is None:
            return None
        tokens, cost_usd = estimate(body, route) if plan.shape.estimates else (0, 0.0)
        try:
            result = limiter.reserve(plan, tokens, cost_usd)
        except (Stuck, TableFull, Busy):
            raise BlockingIOError from None
        if not isinstance(result, Reservation):
            raise BlockingIOError
        return result

    def limits_models_of(self, project_id: str) -> bool:
        """Whether models of a project have limits of their own."""
        return self._limiter is not None and project_id in self._limiter.limits_models

    async def admit_model(self, model: str, route: Route, body: Parsed) -> Reservation | None:
        """As `admit`, for the limits of a model alone, which answers for another."""
        assert self._limiter is not None
        plan = self._limiter.plan_of_model(route.project_id, model)
        return None if plan is None else await self._held(self._limiter, plan, body, route)

    async def admit_more(
        self, key: ApiKey, models: Sequence[str], route: Route
    ) -> Reservation | None:
        """Hold that more may be spent by what was admitted before; None when nothing limits it.

        Args:
            key: Whose it is.
            models: Whose limits hold: what is called, then what answers for it.
            route: How it answers.

        Raises:
            GatewayError: As `admit` does.
        """
        if self._limiter is None:
            if self._problem:
                raise _unavailable(self._problem)
            return None
        plan = self._limiter.plan_of_spending(key, models)
        return None if plan is None else await self._held(self._limiter, plan, _LEAST, route)

    async def _held(self, limiter: Limiter, plan: Plan, body: Parsed, route: Route) -> Reservation:
        tokens, cost_usd = estimate(body, route) if plan.shape.estimates else (0, 0.0)
        result = self._reserved(limiter, plan, tokens, cost_usd)
        if isinstance(result, Lacking):
            result = await self._when_held(limiter, plan, tokens, cost_usd)
        if isinstance(result, Refusal):
            raise _refused(result, tokens, cost_usd)
        return result

    async def _when_held(
        self, limiter: Limiter, plan: Plan, tokens: int, cost_usd: float
    ) -> Reservation | Refusal:
        """Ask for what this host lacks and wait for the answer; mostly one round trip."""
        assert limiter.leases is not None
        give_up_s = clock.monotonic_s() + _ASKED_S
        ask_s, pause_s = 0.0, _FIRST_PAUSE_S
        while (now_s := clock.monotonic_s()) < give_up_s:
            result = self._reserved(limiter, plan, tokens, cost_usd)
            if not isinstance(result, Lacking):
                return result
            if now_s >= ask_s:
                limiter.leases.ask(result)
                ask_s = now_s + _ASK_AGAIN_S
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _MOST_PAUSE_S)
        raise _unavailable("the other hosts do not answer")

    @staticmethod
    def _reserved(
        limiter: Limiter, plan: Plan, tokens: int, cost_usd: float
    ) -> Reservation | Refusal | Lacking:
        try:
            return limiter.reserve(plan, tokens, cost_usd)
        except (Stuck, TableFull, Busy) as error:
            log.error("a request with limits is refused: %s", error)
            raise _unavailable(str(error)) from None

    def settle(self, held: Reservation, fact: RequestFact) -> None:
        """Put what a request took in the place of what it held.

        An answer that broke off, or whose caller left, without usage counts as estimated; a
        request that no replica answered takes nothing but itself.
        """
        if fact.input_tokens is not None:
            tokens = fact.input_tokens + (fact.output_tokens or 0)
            cost_usd = fact.cost_usd or 0.0
        elif not fact.response_bytes and fact.error_class != "client_closed":
            tokens, cost_usd = 0, 0.0
        else:
            tokens, cost_usd = held.tokens, held.cost_usd
        self.settle_as(held, tokens, cost_usd)

    def settle_unused(self, held: Reservation) -> None:
        """Give back what a request holds of a model that gave no answer, but the request itself."""
        self.settle_as(held, 0, 0.0)

    def settle_as(self, held: Reservation, tokens: int, cost_usd: float) -> None:
        """Put so many tokens and USD in the place of what is held."""
        assert self._limiter is not None
        self._limiter.defer(held, tokens, cost_usd)
        if not self._flushes:
            self._flush_soon()

    def _flush_soon(self) -> None:
        """Several that begin or end in one turn of the event loop take their locks once."""
        if not self._flushes:
            self._flushes = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushes = False
        if self._limiter is None:
            return
        try:
            self._limiter.flush()
        except (Stuck, TableFull) as error:
            log.error("a reservation is left until it expires: %s", error)

    def sweep(self) -> None:
        """Give back what dead workers held; for about every second."""
        if self._limiter is None:
            return
        try:
            given = self._limiter.sweep()
        except Stuck as error:
            log.error("reservations of dead workers are not looked at: %s", error)
            return
        if given:
            log.warning("%d reservations that nobody will settle are given back", given)

    async def close(self) -> None:
        """Leave the limits to the other workers."""
        if self._hosts is not None:
            await self._hosts.close()
            self._hosts = None
        if self._limiter is not None:
            self._flush()
            self._limiter.close()
            self._limiter = None


def estimate(body: Parsed, route: Route) -> tuple[int, float]:
    """Tokens and USD that a request may take: four bytes a token, and the longest answer.

    Without a maximum in the request, an answer is taken to have 512 tokens; with a context
    length, a request never counts for more than that.
    """
    most_tokens, choices, price = route.context_tokens or _MOST_TOKENS, body.choices, route.price
    given, output = len(body.raw) // _BYTES_PER_TOKEN, 0
    if given > most_tokens:
        given = most_tokens
    if "chat" in route.capabilities or "completion" in route.capabilities:
        output = body.max_tokens or DEFAULT_OUTPUT_TOKENS
        if choices > 1:
            output *= choices
            most_tokens *= choices
        output = max(min(output, most_tokens - given, _MOST_TOKENS), 0)
    if price is None:
        return given + output, 0.0
    input_usd = (price.input_usd_per_million_tokens or 0.0) * given
    output_usd = (price.output_usd_per_million_tokens or 0.0) * output
    return given + output, (input_usd + output_usd) / 1e6


def _refused(refusal: Refusal, tokens: int, cost_usd: float) -> GatewayError:
    """The refusal in words. `Retry-After` only where waiting helps."""
    limit = refusal.limit
    kind = "budget_exceeded" if limit.metric == "usd" else "rate_limited"
    most = f"{limit.amount:,.15g} {_UNITS.get(limit.metric, 'USD')}"
    if not limit.amount:
        message = f"The limit {limit.name} of {most} lets nothing through. Ask for a higher limit."
        return GatewayError(kind, message, param=limit.name)
    if refusal.away:
        message = (
            f"The limit {limit.name} cannot be kept now: it is not known what other hosts of "
            "the gateway used of it. Try again."
        )
        return GatewayError("limits_unavailable", message, param=limit.name, retry_after_s=1)
    # What hosts share is refused without a look at the whole limit.
    asked = {"tokens": tokens, "usd": cost_usd}.get(limit.metric, 1)
    if refusal.too_large or asked > limit.amount:
        about = f"{cost_usd:.6g} USD" if limit.metric == "usd" else f"{tokens:,} tokens"
        message = (
            f"This request may take {about}, more than the whole limit {limit.name} of {most}, so "
            "waiting does not help. Shorten it, or ask for fewer tokens (max_tokens) or a higher "
            "limit."
        )
        return GatewayError(kind, message, param=limit.name)
    after_s = max(math.ceil(refusal.retry_after_s), 1)
    message = f"The limit {limit.name} of {most} is reached. Try again in {after_s} s."
    return GatewayError(kind, message, param=limit.name, retry_after_s=after_s)


def _unavailable(why: str) -> GatewayError:
    return GatewayError(
        "limits_unavailable", f"Limits cannot be kept now: {why}. Try again.", retry_after_s=1
    )
