"""The models that a key can call: found, and listed as OpenAI's API does."""

from __future__ import annotations

from core.contracts.route_table import ApiKey, Route
from gateway.errors import GatewayError
from gateway.table import Table, Target


def listed(table: Table, key: ApiKey) -> dict[str, object]:
    """All of them."""
    return {"object": "list", "data": [_model(route) for route in table.models(key)]}


def shown(table: Table, key: ApiKey, model: str) -> dict[str, object]:
    """One of them. Raises GatewayError: the key's project has none of this name."""
    for route in table.models(key):
        if route.model == model:
            return _model(route)
    raise GatewayError("not_found", f"There is no model {model!r} in this project.", param="model")


def target(table: Table, key: ApiKey, model: str, capability: str, *, asked: str) -> Target:
    """The route for a model, when it can do what is wanted.

    Args:
        table: The route table in use.
        key: Whose request it is; it must be one for the model that was asked for, whose fallbacks
            come with it.
        model: Which answers.
        capability: What it must be able to do.
        asked: Which was asked for.

    Raises:
        GatewayError: There is none, or it may not be used so.
    """
    found = table.routes.get((key.project_id, model))
    if found is None:
        known = ", ".join(sorted(route.model for route in table.models(key))[:10])
        raise GatewayError(
            "not_found",
            f"There is no model {model!r} in this project. It has: {known or 'none yet'}.",
            param="model",
        )
    if key.models and asked not in key.models:
        raise GatewayError("permission", f"This API key may not use {asked!r}.", param="model")
    if capability not in found.route.capabilities:
        has = ", ".join(found.route.capabilities)
        raise GatewayError(
            "capability",
            f"{model!r} lacks the capability {capability!r}; it has: {has}.",
            param="model",
        )
    return found


def _model(route: Route) -> dict[str, object]:
    """As OpenAI has it, with two fields more."""
    return {
        "id": route.model,
        "object": "model",
        "created": route.created_unix_s,
        "owned_by": "bud",
        "context_length": route.context_tokens,
        "state": route.state,
    }
