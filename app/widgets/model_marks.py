"""Marks that models bear on every page: stage, severity of the scan, verdict on the licence."""

from __future__ import annotations

from app import formats
from app.widgets.layout import escape
from app.widgets.models_query import outcome
from core.registry import catalogue, licences, relatives
from core.registry.schemas import ModelView, VersionView

_STAGES = {
    "draft": ("gray", "edit_note"),
    "approved": ("blue", "verified"),
    "production": ("green", "rocket_launch"),
    "retired": ("gray", "archive"),
}
_SEVERITIES = {
    "safe": ("green", "shield"),
    "low": ("gray", "shield"),
    "medium": ("orange", "gpp_maybe"),
    "high": ("orange", "gpp_maybe"),
    "critical": ("red", "gpp_bad"),
}
_OUTCOMES = {
    "yes": ("green", "check_circle", "allowed"),
    "conditional": ("orange", "rule", "allowed with conditions"),
    "no": ("red", "block", "not allowed"),
    "needs review": ("gray", "help", "licence needs review"),
}


def stage_badge(stage: str) -> str:
    """The stage of a version as a badge in Markdown."""
    color, icon = _STAGES[stage]
    return f":{color}-badge[:material/{icon}: {stage}]"


def severity_badge(severity: str) -> str:
    """The severity of one finding as a badge in Markdown."""
    color, icon = _SEVERITIES[severity]
    return f":{color}-badge[:material/{icon}: {severity}]"


def scan_badge(version: VersionView) -> str:
    """What the scan of a version says, as a badge in Markdown; unknown is never clean."""
    if version.severity is None:
        return ":gray-badge[:material/help: not scanned]"
    overridden = ", overridden" if version.override_at is not None else ""
    color, icon = _SEVERITIES[version.severity]
    partly = " or worse, not all scanned" if version.scan_state != "scanned" else ""
    return f":{color}-badge[:material/{icon}: scan: {version.severity}{partly}{overridden}]"


def scan_words(version: VersionView | None) -> str:
    """What the scan of a version says, in a table's cell."""
    if version is None:
        return formats.NONE
    if version.severity is None:
        return "not scanned"
    partly = " (not all scanned)" if version.scan_state != "scanned" else ""
    return f"{version.severity}{partly}{', overridden' if version.override_at else ''}"


def verdict_badge(key: str | None, use: str) -> str:
    """Whether a licence allows a use, as a badge in Markdown."""
    found = outcome(key, use)
    color, icon, words = _OUTCOMES[found]
    asked = "" if found == "needs review" else f"{escape(use)}: "
    return f":{color}-badge[:material/{icon}: {asked}{words}]"


def licence_key(model: ModelView) -> str | None:
    """The licence that a model's files state, else its entry of the catalogue; None: not known."""
    if model.licence:
        return licences.by_id(model.licence)
    known = relatives.catalogue_id(model)
    return catalogue.entry(known)["licence"] if known is not None else None
