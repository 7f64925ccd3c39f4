"""Use cases of guardrails: set, list, turn on and off, delete, try. The gateway enforces them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import msgspec
from sqlalchemy.orm import Session

from core.contracts import guardrails as contract
from core.contracts.guardrails import Action, AppliesTo, Check, Classifier, Kind, OnFailure
from core.detection.examination import examiner
from core.guardrails import crud
from core.guardrails.adapters import classifier
from core.guardrails.models import GuardrailRow
from core.guardrails.schemas import KINDS, GuardrailView, KindOfGuardrail, ModeSet
from core.kernel import audit, clock, database, events, ids
from core.kernel.actor import Actor
from core.kernel.crypto import Secret
from core.kernel.errors import InvalidInput, NotFound
from core.kernel.keys import keyring
from core.projects import services as projects

__all__ = [
    "active_guardrails",
    "delete_guardrail",
    "forget_project",
    "get_guardrail",
    "list_guardrails",
    "set_guardrail",
    "set_mode",
]

MOST_BUDGET_MS = 60_000.0
LONGEST_NAME = 80
MOST_WORDS = 1000
MOST_PATTERNS = 50
LONGEST_PATTERN = 500
LONGEST_SCHEMA = 100_000
_LONGEST_CREDENTIAL = 20_000
_MOST_GUARDRAILS = 50


def set_guardrail(
    actor: Actor,
    project_id: str,
    name: str,
    kind: Kind,
    settings: Mapping[str, Any] | None = None,
    *,
    mode: ModeSet = "report",
    action: Action = "block",
    applies_to: AppliesTo | None = None,
    budget_ms: float | None = None,
    on_failure: OnFailure | None = None,
    credential: Secret | None = None,
) -> GuardrailView:
    """Set a guardrail; one of this name is replaced.

    Args:
        actor: An admin of the project.
        project_id: The project.
        name: What callers and facts are told, such as `no-cards`.
        kind: What it looks for.
        settings: The fields of its struct in `core.contracts.guardrails`.
        mode: enforce, report, or off.
        action: block, or mask: personal data, secrets and words only.
        applies_to: input, output or both; default: what is usual for the kind.
        budget_ms: How long it may work on one side of a request; default: by kind.
        on_failure: What happens when it cannot say; a classifier must be given one.
        credential: A classifier's bearer token; None keeps the one there is, an empty one ends it.

    Raises:
        InvalidInput: What cannot be used; names it.
        NotFound: No such project.
    """
    actor.require("guardrail:update", project_id)
    project_id = projects.get_project(actor, project_id).id
    name, known = _checked_name(name), _kind(kind)
    check = _checked_settings(kind, known, settings or {})
    applies_to = _one_of("side", applies_to or known.sides[0], known.sides)
    if action == "mask" and not known.masks:
        raise InvalidInput(f"{known.title} cannot mask.", remedy="Choose block.")
    budget_ms = known.budget_ms if budget_ms is None else budget_ms
    if not 1 <= budget_ms <= MOST_BUDGET_MS:
        raise InvalidInput(
            f"A budget is between 1 and {MOST_BUDGET_MS:,.0f} ms.", value=budget_ms,
            remedy="Choose another.",
        )  # fmt: skip
    on_failure = on_failure or known.on_failure
    if on_failure is None:
        raise InvalidInput(
            "What holds when the classifier does not answer is not said.",
            remedy="Say closed (refuse) or open (let through).",
        )
    with database.transaction() as tx:
        row = _row(tx, actor, project_id, name)
        _keep_or_seal(row, kind, check, credential)
        row.kind = kind
        row.mode = _one_of("mode", mode, get_args(ModeSet))
        row.action = _one_of("action", action, get_args(Action))
        row.applies_to, row.budget_ms = applies_to, float(budget_ms)
        row.on_failure = _one_of("failure", on_failure, get_args(OnFailure))
        row.settings = _plain(check)
        row.set_at, row.set_by_name = clock.now(), actor.name
        _record(tx, actor, "guardrail.set", row)
        view = _view(row)
    events.publish("guardrails.changed")
    return view


def set_mode(actor: Actor, guardrail_id: str, mode: ModeSet) -> GuardrailView:
    """Enforce a guardrail, only report, or turn it off. NotFound when the actor sees none."""
    _one_of("mode", mode, get_args(ModeSet))
    with database.transaction() as tx:
        row = _readable(tx, actor, guardrail_id)
        actor.require("guardrail:update", row.project_id)
        row.mode, row.set_at, row.set_by_name = mode, clock.now(), actor.name
        _record(tx, actor, "guardrail.mode_set", row)
        view = _view(row)
    events.publish("guardrails.changed")
    return view


def list_guardrails(actor: Actor, project_id: str) -> list[GuardrailView]:
    """The guardrails of a project, by name."""
    actor.require("guardrail:read", project_id)
    with database.reading() as session:
        return [_view(row) for row in crud.guardrails(session, actor.tenant_id, project_id)]


def get_guardrail(actor: Actor, project_id: str, name_or_id: str) -> GuardrailView:
    """One guardrail. NotFound with the names there are."""
    found = list_guardrails(actor, project_id)
    for each in found:
        if name_or_id in (each.name, each.id):
            return each
    names = ", ".join(each.name for each in found)
    raise NotFound(
        f"There is no guardrail {name_or_id!r}.", remedy=f"There are: {names or 'none yet'}."
    )


def delete_guardrail(actor: Actor, guardrail_id: str) -> None:
    """Take a guardrail away. NotFound when there is none the actor may see."""
    with database.transaction() as tx:
        row = _readable(tx, actor, guardrail_id)
        actor.require("guardrail:update", row.project_id)
        _record(tx, actor, "guardrail.deleted", row)
        tx.delete(row)
    events.publish("guardrails.changed")


def active_guardrails() -> list[contract.Guardrail]:
    """Every guardrail that is not off, for the route table; credentials stay sealed."""
    with database.reading() as session:
        return [as_contract(row) for row in crud.active(session)]


def forget_project(actor: Actor, project_id: str) -> int:
    """Delete the guardrails of a project that goes away; how many there were."""
    actor.require("guardrail:update", project_id)
    with database.transaction() as tx:
        rows = crud.guardrails(tx, actor.tenant_id, project_id)
        for row in rows:
            _record(tx, actor, "guardrail.deleted", row)
            tx.delete(row)
    events.publish("guardrails.changed")
    return len(rows)


def as_contract(row: GuardrailRow) -> contract.Guardrail:
    """A row as the gateway gets it."""
    sealed = {"credential": row.sealed_credential} if row.sealed_credential else {}
    return msgspec.convert(
        {
            "id": row.id,
            "project_id": row.project_id,
            "name": row.name,
            "mode": "report" if row.mode == "off" else row.mode,
            "action": row.action,
            "applies_to": row.applies_to,
            "budget_ms": row.budget_ms,
            "on_failure": row.on_failure,
            "check": {"kind": row.kind, **row.settings, **sealed},
        },
        contract.Guardrail,
    )


def readable_rows(actor: Actor, project_id: str) -> list[GuardrailRow]:
    """The guardrails of a project with what is sealed, to be tried."""
    actor.require("guardrail:read", project_id)
    with database.reading() as session:
        return crud.guardrails(session, actor.tenant_id, project_id)


def _checked_name(name: str) -> str:
    name = name.strip()
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        raise InvalidInput(
            f"A guardrail's name has 1 to {LONGEST_NAME} characters.", value=name[:100],
            remedy="Choose another, such as no-cards.",
        )  # fmt: skip
    return name


def _kind(kind: str) -> KindOfGuardrail:
    known = dict[str, KindOfGuardrail](**KINDS).get(kind)
    if known is None:
        raise InvalidInput(
            "There is no such kind of guardrail.",
            value=kind,
            remedy=f"There are: {', '.join(KINDS)}.",
        )
    return known


def _one_of(what: str, given: Any, known: tuple[Any, ...]) -> Any:
    if given not in known:
        raise InvalidInput(
            f"This {what} cannot be chosen here.",
            value=given,
            remedy=f"Choose: {', '.join(known)}.",
        )
    return given


def _checked_settings(kind: Kind, known: KindOfGuardrail, settings: Mapping[str, Any]) -> Check:
    unknown = sorted(set(settings) - {each.name for each in msgspec.structs.fields(known.check)})
    if unknown or "credential" in settings:
        raise InvalidInput(
            f"{known.title} has no such setting.", value=(unknown or ["credential"])[0],
            remedy=f"It has: {', '.join(_names(known.check)) or 'none'}.",
        )  # fmt: skip
    try:
        check: Check = msgspec.convert({"kind": kind, **settings}, known.check)
        _check_sizes(check)
        if isinstance(check, Classifier):
            check = msgspec.structs.replace(check, url=classifier.check_url(check.url))
        else:
            examiner(check)
    except (msgspec.ValidationError, ValueError) as error:
        raise InvalidInput(
            f"{known.title} cannot be set so: {error}.", remedy="See docs/guardrails.md."
        ) from None
    return check


def _names(check: type) -> list[str]:
    return [each.name for each in msgspec.structs.fields(check) if each.name != "credential"]


def _check_sizes(check: Check) -> None:
    """Raises ValueError: it is too much, or too little to be a rule."""
    match check:
        case contract.Injection(threshold=threshold) if not 0 < threshold <= 1:
            raise ValueError("the threshold is over 0 and up to 1")
        case contract.MaxLength(most=most) if most < 1:
            raise ValueError("the longest text has at least 1")
        case contract.JsonSchema(schema=schema) if len(schema) > LONGEST_SCHEMA:
            raise ValueError(f"the schema has over {LONGEST_SCHEMA:,} characters")
        case contract.DenyList(words=words, patterns=patterns):
            if not words and not patterns:
                raise ValueError("it has neither words nor patterns")
            if len(words) > MOST_WORDS or len(patterns) > MOST_PATTERNS:
                raise ValueError(f"up to {MOST_WORDS:,} words and {MOST_PATTERNS} patterns")
            if any(not word.strip() for word in words) or "" in patterns:
                raise ValueError("one of them is empty")
            if any(len(each) > LONGEST_PATTERN for each in (*words, *patterns)):
                raise ValueError(f"one of them has over {LONGEST_PATTERN} characters")


def _row(tx: Session, actor: Actor, project_id: str, name: str) -> GuardrailRow:
    row = crud.named(tx, actor.tenant_id, project_id, name)
    if row is None:
        if len(crud.guardrails(tx, actor.tenant_id, project_id)) >= _MOST_GUARDRAILS:
            raise InvalidInput(
                f"A project has at most {_MOST_GUARDRAILS} guardrails.", remedy="Delete some first."
            )
        row = GuardrailRow(
            id=ids.new_id("grl"), tenant_id=actor.tenant_id, project_id=project_id, name=name,
            kind="", settings={}, sealed_credential="",
        )  # fmt: skip
        tx.add(row)
    return row


def _keep_or_seal(row: GuardrailRow, kind: Kind, check: Check, credential: Secret | None) -> None:
    if not isinstance(check, Classifier):
        if credential is not None:
            raise InvalidInput("Only a classifier has a credential.", value=kind)
        row.sealed_credential = ""
        return
    if credential is None:
        before = row.settings.get("url", check.url)
        if row.sealed_credential and classifier.origin(before) != classifier.origin(check.url):
            raise InvalidInput(
                "The classifier is at another host now, which must not get the credential.",
                remedy="Enter the credential of the new one.",
            )
        return
    text = credential.reveal().strip()
    if len(text) > _LONGEST_CREDENTIAL or not text.isprintable() or not text.isascii():
        raise InvalidInput(
            "The credential holds signs that no key has.", remedy="Copy it again, as one line."
        )
    sealed = keyring().seal(Secret(text), context=f"guardrail:{row.id}") if text else ""
    row.sealed_credential = sealed


def _plain(check: Check) -> dict[str, Any]:
    found = msgspec.json.decode(msgspec.json.encode(check), type=dict[str, Any])
    return {name: value for name, value in found.items() if name not in ("kind", "credential")}


def _view(row: GuardrailRow) -> GuardrailView:
    fields = {
        name: getattr(row, name) for name in GuardrailView.model_fields if name != "has_credential"
    }
    return GuardrailView.model_validate(fields | {"has_credential": bool(row.sealed_credential)})


def _readable(tx: Session, actor: Actor, guardrail_id: str) -> GuardrailRow:
    row = tx.get(GuardrailRow, guardrail_id)
    seen = row is not None and row.tenant_id == actor.tenant_id
    if row is None or not seen or not actor.may("guardrail:read", row.project_id):
        raise NotFound(f"There is no guardrail {guardrail_id}.", remedy="See: bud guardrails list")
    return row


def _record(tx: Session, actor: Actor, action: str, row: GuardrailRow) -> None:
    audit.record(
        tx,
        actor,
        action,
        f"guardrail:{row.id}",
        project_id=row.project_id,
        name=row.name,
        kind=row.kind,
        mode=row.mode,
        action_taken=row.action,
        applies_to=row.applies_to,
        budget_ms=row.budget_ms,
        on_failure=row.on_failure,
        settings=row.settings,
    )
