"""Which models the family tree is made of: the catalogue's, and those of a project."""

from __future__ import annotations

from functools import lru_cache

import pandas as pd

from core.kernel.actor import Actor
from core.registry import catalogue, services
from core.registry.description import Relation
from core.registry.family import Family, Relative, tree
from core.registry.identity import parse
from core.registry.schemas import ModelView


def family_of(actor: Actor, project_id: str, node_id: str) -> Family:
    """The family tree of a model among those of the catalogue and of the project.

    Args:
        actor: Who asks.
        project_id: Whose models stand in the tree too.
        node_id: As `node_id` gives it for a project's model; else a canonical id.
    """
    own = [_relative(model) for model in services.list_models(actor, project_id)]
    return tree([*own, *_of_catalogue(catalogue.version())], node_id)


def node_id(model: ModelView) -> str:
    """The id under which a project's model stands in a tree.

    That of the catalogue or the hub where its files are the repository's own, so that fine-tunes
    which name it as their base are found; a file that was quantised from it is a node of its own.
    """
    known = model.catalogue_id or catalogue_id(model)
    return known if known is not None else f"model:{model.id}"


# Providers whose own names of models are published; elsewhere people choose the names.
_NAMED_BY_PROVIDER = frozenset(
    {"openai", "anthropic", "bedrock", "vertex", "mistral", "groq", "together", "deepseek"}
)


def catalogue_id(model: ModelView) -> str | None:
    """The catalogue's entry that a project's model is; None where nothing says so."""
    if model.catalogue_id is not None:
        return model.catalogue_id
    kind, _, at = model.source.partition(" ")
    if model.kind == "hosted":
        name = model.provider_model or ""
        return catalogue.id_of_name(name) if kind in _NAMED_BY_PROVIDER else None
    return catalogue.id_on_hub(at.partition(" ")[0]) if kind == "huggingface" else None


def _relative(model: ModelView) -> Relative:
    bases = tuple(model.extracted.get("base_models") or ())
    named = tuple(catalogue.id_on_hub(base) or base for base in bases)
    relation: Relation | None = model.extracted.get("base_model_relation")
    return Relative(node_id(model), named, relation)


@lru_cache(maxsize=1)
def _of_catalogue(_version: int) -> tuple[Relative, ...]:
    rows = catalogue.models()[["id", "base_model_id"]]
    return tuple(
        Relative(model_id)
        if base_id is pd.NA
        else Relative(model_id, (base_id,), _kind(model_id, base_id))
        for model_id, base_id in rows.itertuples(index=False)
    )


def _kind(model_id: str, base_id: str) -> Relation | None:
    """What a model of the catalogue is to its base, where their names say it."""
    own = parse(model_id)
    if own.quantisation:
        return "quantized"
    return "finetune" if own.words == parse(base_id).words else None
