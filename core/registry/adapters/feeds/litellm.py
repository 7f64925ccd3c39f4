"""LiteLLM: one JSON file of hosted models with their prices in USD per token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.kernel.settings import settings
from core.registry.adapters.feeds.reading import Feed, Watch, fetch, format_changed
from core.registry.catalogue_files import LITELLM, Entry, litellm_entry

_SETTING = "BUD_LITELLM_PRICES_URL"
# The file's own description of its fields.
_SAMPLE = "sample_spec"
# Columns of `prices_litellm.csv`, and what the file calls them.
_COLUMNS = {
    "provider": "litellm_provider",
    "mode": "mode",
    "max_input_tokens": "max_input_tokens",
    "max_output_tokens": "max_output_tokens",
    "input_cost_per_token": "input_cost_per_token",
    "output_cost_per_token": "output_cost_per_token",
    "cache_read_cost_per_token": "cache_read_input_token_cost",
    "supports_function_calling": "supports_function_calling",
    "supports_vision": "supports_vision",
    "supports_reasoning": "supports_reasoning",
    "output_vector_size": "output_vector_size",
}


def _entries(watch: Watch, _known: Sequence[str], day: str) -> Iterator[Entry]:
    watch.update(None, settings().litellm_prices_url)
    models = fetch(settings().litellm_prices_url, _SETTING, watch)
    if not isinstance(models, dict) or not any(_is_model(each) for each in models.values()):
        raise format_changed("LiteLLM", "models with their provider")
    for key, model in models.items():
        if key != _SAMPLE and _is_model(model):
            made = litellm_entry(_row(key, model), f"LiteLLM ({day})")
            if made is not None:
                yield made


def _is_model(record: object) -> bool:
    return isinstance(record, dict) and "litellm_provider" in record


def _row(key: str, model: Mapping[str, Any]) -> dict[str, str]:
    """A model in the columns of `prices_litellm.csv`, all of them text."""
    found = {column: model.get(field) for column, field in _COLUMNS.items()}
    return {"key": key} | {
        column: "" if value is None else str(value) for column, value in found.items()
    }


FEED = Feed(
    "LiteLLM",
    "hosted models and their prices",
    _SETTING,
    LITELLM,
    _entries,
)
