"""models.dev: one JSON file of providers, their models and prices in USD per million tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.kernel.settings import settings
from core.registry.adapters.feeds.reading import Feed, Watch, fetch, format_changed
from core.registry.catalogue_files import MODELS_DEV, Entry, models_dev_entry

_SETTING = "BUD_MODELS_DEV_URL"


def _entries(watch: Watch, _known: Sequence[str], day: str) -> Iterator[Entry]:
    watch.update(None, settings().models_dev_url)
    providers = fetch(settings().models_dev_url, _SETTING, watch)
    if not isinstance(providers, dict) or not all("models" in each for each in providers.values()):
        raise format_changed("models.dev", "providers with models")
    for provider in providers.values():
        for model in provider["models"].values():
            yield models_dev_entry(_row(provider, model), f"models.dev ({day})")


def _row(provider: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, str]:
    """A model in the columns of `models_dev.csv`, all of them text."""
    cost, limit = model.get("cost") or {}, model.get("limit") or {}
    modalities = model.get("modalities") or {}
    return {
        "provider": provider["id"],
        "provider_name": provider.get("name") or provider["id"],
        "model_id": model["id"],
        "name": model.get("name") or "",
        "release_date": model.get("release_date") or "",
        "open_weights": _text(model.get("open_weights")),
        "tool_call": _text(model.get("tool_call")),
        "reasoning": _text(model.get("reasoning")),
        "input_modalities": "|".join(modalities.get("input") or ()),
        "output_modalities": "|".join(modalities.get("output") or ()),
        "context": _text(limit.get("context")),
        "max_output": _text(limit.get("output")),
        "usd_per_1m_input": _text(cost.get("input")),
        "usd_per_1m_output": _text(cost.get("output")),
        "usd_per_1m_cache_read": _text(cost.get("cache_read")),
    }


def _text(value: object) -> str:
    return "" if value is None else str(value)


FEED = Feed(
    "models.dev",
    "hosted models, what they can do, and their prices",
    _SETTING,
    MODELS_DEV,
    _entries,
)
