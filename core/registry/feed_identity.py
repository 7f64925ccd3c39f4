"""Which models of the catalogue the entries of a fetched source are, and which are new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from core.registry import catalogue
from core.registry.catalogue_files import Entry
from core.registry.catalogue_overlay import Identified
from core.registry.catalogue_tables import meaning
from core.registry.resolver import resolve

# Entries of a maker's own service, whose new names are new models.
_OFFICIAL = (2, 3)
_AS_BEFORE, _COPY = "as before", "a copy of a repository"


def identified(entries: Sequence[Entry], mark: str) -> list[Identified]:
    """Each entry with its model.

    A name is what it was resolved to before, else what it says, else, if its maker gives it, a new
    model; names of hosts that say nothing known stay without one. Ids that there are never change.

    Args:
        entries: Of one source.
        mark: Of the shipped rows that its prices take the place of.
    """
    resolved = catalogue.model_of()
    found = [_known(entry, resolved, mark) for entry in entries]
    added = _new([each.entry for each in found if _is_open(each) and _is_makers(each.entry)])
    return [_or_new(each, added) for each in found]


def _known(entry: Entry, resolved: dict[tuple[str, str, str], str | None], mark: str) -> Identified:
    published = entry.published
    key = (published.name, published.organisation, published.source)
    if key in resolved:
        return Identified(entry, resolved[key], _AS_BEFORE, mark=mark)
    if published.is_hub:
        return _on_hub(entry)
    model_id = catalogue.recognised(published.name, published.maker)
    return Identified(entry, model_id, "same name", mark=mark)


def _on_hub(entry: Entry) -> Identified:
    name = entry.published.name
    model_id = catalogue.id_on_hub(entry.moved_from or name)
    if model_id is not None:
        return Identified(entry, model_id, "same repository")
    model_id = catalogue.recognised(name)
    if model_id is not None and catalogue.entry(model_id)["hub_id"] is not None:
        # Another repository of a model that has one, such as a copy in another format.
        return Identified(entry, None, _COPY)
    return Identified(entry, model_id, "same name")


def _is_makers(entry: Entry) -> bool:
    return entry.published.is_hub or entry.published.preference in _OFFICIAL


def _new(entries: Sequence[Entry]) -> dict[tuple[str, ...], Identified]:
    """New models by what their names say."""
    published = [entry.published for entry in entries]
    found = {}
    for entry, resolution in zip(entries, resolve(published), strict=True):
        model_id = resolution.model_id
        if model_id is not None and not catalogue.has(model_id):
            new = Identified(entry, model_id, "new", resolution.setting, is_new=True)
            found[_meaning(entry)] = new
    return found


def _or_new(each: Identified, added: dict[tuple[str, ...], Identified]) -> Identified:
    new = added.get(_meaning(each.entry)) if _is_open(each) else None
    if new is None:
        return each
    return replace(each, model_id=new.model_id, rule="new", setting=new.setting, is_new=True)


def _is_open(each: Identified) -> bool:
    """Whether nobody has decided yet what this name is."""
    return each.model_id is None and each.rule not in (_AS_BEFORE, _COPY)


def _meaning(entry: Entry) -> tuple[str, ...]:
    return meaning(entry.published.name, entry.published.organisation or entry.published.maker)
