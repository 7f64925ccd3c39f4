"""What callers give and see of models, versions, providers and annotations."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.kernel.crypto import Secret
from core.registry.scanners.report import Finding, ScanState, Severity

ModelKind = Literal["local", "hosted"]
ModelState = Literal["adding", "ready", "failed", "listed"]
RefreshState = Literal["fetching", "found", "applied", "discarded", "taken back", "failed"]
Stage = Literal["draft", "approved", "production", "retired"]
STAGES: tuple[Stage, ...] = ("draft", "approved", "production", "retired")


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True, protected_namespaces=())


class FactsView(_View):
    """What a model's files say; sizes in bytes, lengths in tokens or elements, None if silent.

    `extracted` is all that was found in them, also what has no field of its own.
    """

    path: str | None
    managed: bool
    size_bytes: int | None
    sha256: str | None
    architecture: str | None
    parameters: int | None
    quantization: str | None
    context_tokens: int | None
    layers: int | None
    heads: int | None
    kv_heads: int | None
    key_length: int | None
    value_length: int | None
    embedding_length: int | None
    vocabulary: int | None
    chat_template: bool | None
    licence: str | None
    capabilities: list[str]
    extracted: dict[str, Any] = {}


class ModelView(FactsView):
    """A model with the facts of its current version.

    `state` is "listed" for a model that is known by its facts only: one that is hosted, or an
    entry of the catalogue whose files nobody has added. `version_id` is the current version: the
    one in production, else the newest that is ready and not retired.
    """

    id: str
    project_id: str | None
    name: str
    kind: ModelKind = "local"
    state: ModelState
    source: str
    error: str | None
    version_id: str | None = None
    catalogue_id: str | None = None
    provider_id: str | None = None
    provider_model: str | None = None
    created_at: datetime

    @property
    def is_shared(self) -> bool:
        """Whether every project can use it."""
        return self.project_id is None


class FileView(_View):
    """One file of a version; `name` may hold folders."""

    name: str
    size_bytes: int
    sha256: str


class VersionView(FactsView):
    """One version of a model.

    `scan_state` "not scanned" means that a scanner has not run or failed (`scan_reasons` says
    why), never that it is clean: without a finding `severity` is None then. `artifact_uri` is
    where the artifact store keeps the files; None when only this machine has them.
    """

    id: str
    project_id: str | None
    model_id: str
    number: int
    state: ModelState
    error: str | None
    source: str
    revision: str | None
    artifact_uri: str | None
    files: list[FileView]
    stage: Stage
    scan_state: ScanState
    severity: Severity | None
    findings: list[Finding]
    scan_reasons: list[str]
    scanned_at: datetime | None
    override_reason: str | None
    override_by_name: str | None
    override_at: datetime | None
    created_by_name: str
    created_at: datetime


class StageChangeView(_View):
    """A version went from one stage to another."""

    version_id: str
    version_number: int
    from_stage: Stage
    to_stage: Stage
    comment: str
    by_name: str
    at: datetime


class ProductionPeriod(_View):
    """A version was in production from `start` to `end`; None while it is."""

    version_id: str
    version_number: int
    start: datetime
    end: datetime | None


class PolicyView(_View):
    """Which versions a project may deploy.

    `approved_only`: none but approved ones and those in production. `block_unscanned`: none whose
    scan has not run, or failed. Critical findings are refused in any case.
    """

    approved_only: bool = False
    block_unscanned: bool = False


class ProviderKind(_View):
    """A kind of provider and what an account at it needs.

    `credentials` and `options` name the fields: the first are secrets, the second are not; each
    with its label. `base_url` may hold `{option}`; empty means that the person gives it.
    `lists_all` is false where the provider's list does not hold every name that can be called.
    """

    id: str
    name: str
    base_url: str
    credentials: dict[str, str]
    options: dict[str, str] = {}
    lists_all: bool = True


class ProviderRequest(BaseModel):
    """An account to add; `name` is what people call it, None takes the provider's name.

    `base_url` None takes the provider's own. `credentials` and `options` as its kind names them.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    kind: str
    credentials: dict[str, Secret] = Field(repr=False)
    options: dict[str, str] = {}
    base_url: str | None = None
    name: str | None = None


class HostedModel(_View):
    """A model as its provider lists it; None where the provider is silent."""

    id: str
    name: str = ""
    context_tokens: int | None = None
    created_at: datetime | None = None


class ProviderView(_View):
    """An account at a provider; its credentials are never shown.

    `check_error` is None when the last request to it, at `checked_at`, was answered.
    """

    id: str
    project_id: str
    name: str
    kind: str
    base_url: str
    options: dict[str, str]
    models: list[HostedModel]
    checked_at: datetime
    check_error: str | None
    rotated_at: datetime
    created_by_name: str
    created_at: datetime


class SealedAccount(_View):
    """An account at a provider with what opens only with the keyring, as `provider:<id>`."""

    id: str
    kind: str
    base_url: str
    options: dict[str, str]
    sealed_credentials: str


class CommentView(_View):
    """What somebody wrote about a subject."""

    id: str
    subject: str
    text: str
    user_id: str
    by_name: str
    created_at: datetime
    edited_at: datetime | None


class SavedViewView(_View):
    """A page's filters under a name; a shared one is seen by the whole project."""

    id: str
    page: str
    name: str
    query: dict[str, str]
    shared: bool
    user_id: str
    by_name: str
    created_at: datetime


class SourceView(_View):
    """A public source of the catalogue, and how old what the catalogue has of it is.

    Attributes:
        name: As people call it.
        what: What is read from it.
        url: Where it is read from.
        setting: The setting that names that address.
        rows: Prices of it, or models that it was asked about.
        dated: Its date, `2026-05-22` or `2026-05`; empty where it was never asked.
        basis: What that date is.
        age_days: Days since then.
        is_old: Whether that is over the age that a setting names, or not known.
        is_refreshed: Whether it was fetched here, and did not come with Bud.
    """

    name: str
    what: str
    url: str
    setting: str
    rows: int
    dated: str
    basis: str
    age_days: int | None
    is_old: bool
    is_refreshed: bool


class RefreshView(_View):
    """One fetch of a source of the catalogue.

    Attributes:
        entries: How many the source lists.
        unresolved: Of these, how many names no model is known by.
        added, removed, changed: Models, facts and prices that would differ from the catalogue.
    """

    id: str
    feed: str
    state: RefreshState
    error: str | None
    entries: int
    unresolved: int
    added: int
    removed: int
    changed: int
    created_at: datetime
    decided_at: datetime | None
    decided_by: str | None
