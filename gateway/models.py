"""The models that a key can call, as OpenAI's API lists them."""

from __future__ import annotations

from core.contracts.route_table import ApiKey, Route
from gateway.errors import GatewayError
from gateway.table import Table


def listed(table: Table, key: ApiKey) -> dict[str, object]:
    """All of them."""
    return {"object": "list", "data": [_model(route) for route in table.models(key)]}


def shown(table: Table, key: ApiKey, model: str) -> dict[str, object]:
    """One of them. Raises GatewayError: the key's project has none of this name."""
    for route in table.models(key):
        if route.model == model:
            return _model(route)
    raise GatewayError("not_found", f"There is no model {model!r} in this project.", param="model")


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
