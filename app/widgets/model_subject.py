"""What a model's page is about: a model of the project, an entry of the catalogue, or both."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from core.deployments import services as deployments
from core.deployments.schemas import DeploymentView
from core.kernel.actor import Actor
from core.registry import annotations as notes
from core.registry import catalogue, licences, relatives, versions
from core.registry import services as registry
from core.registry.schemas import ModelView, VersionView

# The address's name of the use that verdicts are for, by which one page gives it to the next. Pages
# with a filter by use bind that to `use`: what an input of a page is bound to cannot be given on.
USE = "for"


@dataclass(frozen=True)
class LicenceFact:
    """A licence as somebody states it: the words, the licence they mean, and who says so."""

    stated: str
    key: str | None
    source: str


@dataclass(frozen=True)
class Subject:
    """A model with all that its page needs.

    Attributes:
        id: What it is called in links.
        name: What people read.
        annotated: What tags, comments and favourites are kept under.
        model: The project's model; None for an entry of the catalogue that nobody has added.
        entry: The catalogue's entry by column; None where it has none.
        versions: Those of the project's model, the newest first.
        users: The deployments of the project's model.
    """

    id: str
    name: str
    annotated: str
    model: ModelView | None
    entry: dict[str, Any] | None
    versions: tuple[VersionView, ...] = ()
    users: tuple[DeploymentView, ...] = ()

    @property
    def catalogue_id(self) -> str | None:
        """The canonical id, which boards and prices know it by."""
        return self.entry["id"] if self.entry is not None else None

    @property
    def version(self) -> VersionView | None:
        """The current version; None for a hosted model and for an entry of the catalogue."""
        wanted = self.model.version_id if self.model is not None else None
        return next((version for version in self.versions if version.id == wanted), None)

    @property
    def fact_sources(self) -> dict[str, str]:
        """Who says each fact of the catalogue's entry, by column."""
        text = self.entry["fact_sources"] if self.entry is not None else None
        return json.loads(text) if text else {}

    @property
    def disagreements(self) -> dict[str, list[Any]]:
        """What other sources say instead, by column of the catalogue's entry."""
        text = self.entry["disagreements"] if self.entry is not None else None
        return json.loads(text) if text else {}

    @property
    def licence(self) -> LicenceFact | None:
        """The licence that its files state, else the one that the catalogue knows of."""
        if self.model is not None and self.model.licence:
            stated = self.model.licence
            return LicenceFact(stated, licences.by_id(stated), licence_source(self.model))
        if self.entry is not None and self.entry["licence_note"]:
            source = self.fact_sources.get("licence_note", "")
            return LicenceFact(self.entry["licence_note"], self.entry["licence"], source)
        return None


def licence_source(model: ModelView) -> str:
    """Who states a model's licence: its files, or where they are silent its source."""
    if model.extracted.get("licence"):
        return f"its files ({model.source})"
    return f"its source ({model.source})"


def find(actor: Actor, project_id: str, name: str) -> Subject:
    """The subject of a page by a model's id, or by the id of the catalogue (`owner/name`).

    Raises:
        NotFound: There is no such model.
    """
    return _of_catalogue(name) if "/" in name else _of_project(actor, project_id, name)


def _of_catalogue(name: str) -> Subject:
    entry = catalogue.entry(name)
    return Subject(entry["id"], entry["name"], f"catalogue:{entry['id']}", None, entry)


def _of_project(actor: Actor, project_id: str, model_id: str) -> Subject:
    model = registry.get_model(actor, model_id)
    known = relatives.catalogue_id(model)
    used = deployments.list_deployments(actor, project_id)
    return Subject(
        id=model.id,
        name=model.name,
        annotated=f"model:{model.id}",
        model=model,
        entry=catalogue.entry(known) if known is not None else None,
        versions=tuple(versions.list_versions(actor, model.id)),
        users=tuple(view for view in used if view.model_id == model.id),
    )


def own_models(actor: Actor, project_id: str, subject: Subject) -> list[ModelView]:
    """The models of the project that are this entry of the catalogue."""
    return [
        model
        for model in registry.list_models(actor, project_id)
        if relatives.catalogue_id(model) == subject.catalogue_id
    ]


def is_favourite(actor: Actor, project_id: str, subject: Subject) -> bool:
    """Whether the actor has marked it."""
    return subject.annotated in notes.favourites(actor, project_id)
