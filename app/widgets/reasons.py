"""Why requests got no answer, in the words that every page has for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from core.contracts.request_fact import CALLER_LEFT, REFUSED

Side = Literal["refused", "failed", "caller"]
MEANINGS: dict[Side, str] = {
    "refused": "By the gateway: no right, a rule, a limit, or a request that makes no sense.",
    "failed": "Admitted, but no model's server answered, or not to the end.",
    "caller": "The caller hung up before the answer's end.",
}
SIDES: dict[Side, str] = {
    "refused": "Refused",
    "failed": "Failed",
    "caller": "Caller left",
}


@dataclass(frozen=True)
class Reason:
    """Why a request got no answer, and what to do."""

    title: str
    what_to_do: str


REASONS = {
    "authentication": Reason("No valid key (401)", "Give the caller a key that works."),
    "permission": Reason("Not allowed (403)", "Widen the key's models, endpoints, IPs."),
    "blocked": Reason("Blocking rule (403)", "Change the rule, under Blocking."),
    "guardrail": Reason("Guardrail (400)", "Correct the caller, or change the guardrail."),
    "not_found": Reason(
        "No such model or URL (404)", "Correct the caller, or make a route of that name."
    ),
    "too_large": Reason("Body too large (413)", "Send less at once."),
    "invalid_request": Reason("Bad request (400)", "Correct the caller."),
    "context_length": Reason("Context too long (400)", "Shorten it, or more context."),
    "capability": Reason("Model cannot do it (400)", "Call another route."),
    "rate_limited": Reason("Rate limit (429)", "Raise the limit, or call less often."),
    "budget_exceeded": Reason("Budget used up (429)", "Raise the budget, or wait."),
    "limits_unavailable": Reason("Limits unknown (503)", "See the gateway's log."),
    "no_replica": Reason("No replica ready (503)", "Start or scale the deployment."),
    "connect": Reason("Replica out of reach (503)", "See the deployment's log."),
    "upstream_error": Reason("Replica's error (5xx)", "See the message and its log."),
    "upstream_broke": Reason("Stream broke off", "See the deployment's log."),
    "timeout": Reason("Timeout (504)", "Raise the route's timeouts, or add replicas."),
    "gateway_stopped": Reason("Gateway was stopped", "Call again."),
    "internal": Reason("Fault in the gateway (500)", "See the gateway's log."),
    "client_closed": Reason("Caller hung up", "Nothing, when it was meant."),
}


def reason(error_class: str) -> Reason:
    """The reason that an error class of the request facts is."""
    return REASONS.get(error_class, Reason(error_class, "See the message."))


def side(error_class: str) -> Side:
    """Whose doing it was."""
    if error_class in REFUSED:
        return "refused"
    return "caller" if error_class == CALLER_LEFT else "failed"
