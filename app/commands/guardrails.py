"""`bud guardrails`: what prompts and answers of a project may hold."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app import formats
from app.commands import context, output
from app.commands.context import DEFAULT_PROJECT, Project
from app.commands.output import Json, Yes
from core.kernel.errors import InvalidInput

if TYPE_CHECKING:
    from core.guardrails.schemas import GuardrailView
    from core.kernel.crypto import Secret

group = typer.Typer(
    help="What prompts and answers may hold: list, add, show, mode, test, remove.",
    no_args_is_help=True,
)
_Several = list[str] | None
_Name = Annotated[str, typer.Argument(help="Guardrail, by name or id.", metavar="GUARDRAIL")]
_DAY = "24h"


@group.command("list")
def list_guardrails(project: Project = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """List the guardrails of a project, with what they did in the last 24 hours."""
    from app import guardrail_words as words
    from core.guardrails import services as guardrails
    from core.metrics import services as metrics
    from core.metrics.schemas import Window

    actor, project_id = context.operator(), context.project_id(project)
    found = guardrails.list_guardrails(actor, project_id)
    counts = metrics.guardrail_counts(actor, project_id, Window.preset(_DAY)) if found else []
    did = words.by_rule(counts)
    none = words.Counted(())
    rows = [
        (
            *(rule.name, words.looks_for(rule), words.SIDES[rule.applies_to], words.does(rule)),
            *(f"{rule.budget_ms:g} ms", rule.on_failure),
            *(did.get(rule.name, none).checked, did.get(rule.name, none).acted),
            did.get(rule.name, none).could_not,
        )
        for rule in found
    ]
    document = [
        {
            **rule.model_dump(mode="json"),
            "last_24h": [
                count.model_dump(mode="json", exclude={"rule"})
                for count in counts
                if count.rule == rule.name
            ],
        }
        for rule in found
    ]
    columns = (
        *("name", "looks for", "in", "does", "budget", "cannot say", "checked 24h", "acted 24h"),
        "could not say 24h",
    )
    empty = "No guardrails yet. Add one: bud guardrails add no-cards pii --entity card"
    output.show(document, output.table(columns, rows, empty=empty), as_json=as_json)


@group.command()
def add(
    name: Annotated[str, typer.Argument(help="What callers and facts are told.")],
    kind: Annotated[
        str,
        typer.Argument(
            help="pii, secrets, injection, deny_list, max_length, json_schema or classifier."
        ),
    ],
    mode: Annotated[str, typer.Option(help="enforce, report or off.")] = "report",
    mask: Annotated[
        bool, typer.Option("--mask", help="Take out what is found, in the place of refusing.")
    ] = False,
    on: Annotated[str | None, typer.Option(help="input, output or both; default: by kind.")] = None,
    budget_ms: Annotated[
        float | None, typer.Option(help="Time for one side of a request; default: by kind.")
    ] = None,
    on_failure: Annotated[
        str | None,
        typer.Option(help="closed (refuse) or open (let through), when it cannot say."),
    ] = None,
    entity: Annotated[_Several, typer.Option(help="pii, secrets: what to look for.")] = None,
    threshold: Annotated[float | None, typer.Option(help="injection: score, 0 to 1.")] = None,
    word: Annotated[_Several, typer.Option(help="deny_list: a word or phrase.")] = None,
    pattern: Annotated[_Several, typer.Option(help="deny_list: a pattern (RE2).")] = None,
    most: Annotated[int | None, typer.Option(help="max_length: how much is allowed.")] = None,
    unit: Annotated[str | None, typer.Option(help="max_length: characters or tokens.")] = None,
    schema: Annotated[
        Path | None, typer.Option(help="json_schema: a file.", exists=True, dir_okay=False)
    ] = None,
    url: Annotated[str | None, typer.Option(help="classifier: its address.")] = None,
    form: Annotated[str | None, typer.Option(help="classifier: text or moderations.")] = None,
    model: Annotated[str | None, typer.Option(help="classifier: model to name.")] = None,
    with_key: Annotated[
        bool, typer.Option("--with-key", help="classifier: ask for its key, or read it from stdin.")
    ] = False,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Add a guardrail, or replace the one of this name; each option can be given again."""
    from app import guardrail_words as words
    from core.guardrails import services as guardrails

    given: dict[str, Any] = {
        "entities": entity, "threshold": threshold, "words": word, "patterns": pattern,
        "most": most, "unit": unit, "schema": schema.read_text() if schema else None, "url": url,
        "form": form, "model": model,
    }  # fmt: skip
    asked: Any = {"mode": mode, "applies_to": on, "on_failure": on_failure}
    chosen: Any = kind
    made = guardrails.set_guardrail(
        context.operator(),
        context.project_id(project),
        name,
        chosen,
        {key: value for key, value in given.items() if value is not None},
        action="mask" if mask else "block",
        budget_ms=budget_ms,
        credential=_key() if with_key else None,
        **asked,
    )
    said = f"{made.name} looks in {words.SIDES[made.applies_to]} for {words.looks_for(made)}, and "
    output.show(made, f"{said}{words.does(made)}.", as_json=as_json)


@group.command()
def show(rule: _Name, project: Project = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """Show all of a guardrail."""
    from app import guardrail_words as words

    found = _find(rule, project)
    pairs: list[tuple[str, object]] = [
        ("name", found.name), ("id", found.id), ("kind", words.title(found)),
        ("looks for", words.looks_for(found)), ("in", words.SIDES[found.applies_to]),
        ("does", words.does(found)), ("budget", f"{found.budget_ms:g} ms"),
        ("cannot say", found.on_failure), ("key", "sealed" if found.has_credential else "none"),
        ("set", f"{formats.when(found.set_at)} by {found.set_by_name}"),
        *((f"settings.{name}", value) for name, value in found.settings.items()),
    ]  # fmt: skip
    output.show(found, output.details(pairs), as_json=as_json)


@group.command()
def mode(
    rule: _Name,
    to: Annotated[str, typer.Argument(help="enforce, report or off.", metavar="MODE")],
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Enforce a guardrail, let it only report, or turn it off."""
    from app import guardrail_words as words
    from core.guardrails import services as guardrails

    wanted: Any = to
    made = guardrails.set_mode(context.operator(), _find(rule, project).id, wanted)
    output.show(made, f"{made.name}: what it finds, it now {words.does(made)}.", as_json=as_json)


@group.command("test")
def try_text(
    text: Annotated[str, typer.Argument(help="The text; - reads it from standard input.")],
    side: Annotated[str, typer.Option(help="input (a prompt) or output (an answer).")] = "input",
    only: Annotated[str | None, typer.Option(help="One guardrail, by name or id.")] = None,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Try what each guardrail would do with a text; also those that are off. Nothing is kept."""
    from app import guardrail_words as words
    from core.guardrails import trying

    if side not in ("input", "output"):
        raise InvalidInput("A side is input or output.", value=side)
    wanted: Any = side
    given = sys.stdin.read() if text == "-" else text
    name = _find(only, project).name if only else None
    found = trying.try_text(context.operator(), context.project_id(project), given, wanted, name)
    rows = [
        (
            *(each.name, each.mode, words.would(each), each.why),
            f"{each.ms:.2f} ms of {each.budget_ms:g}",
        )
        for each in found
    ]
    empty = "No guardrail looks at this. Add one: bud guardrails add --help"
    told = output.table(("name", "mode", "enforced, it", "because", "time"), rows, empty=empty)
    shown = [f"\n{each.name} makes of it:\n{each.masked}" for each in found if each.masked]
    output.show(found, "\n".join([told, *shown]), as_json=as_json)


@group.command()
def remove(
    rule: _Name, project: Project = DEFAULT_PROJECT, yes: Yes = False, as_json: Json = False
) -> None:
    """Take a guardrail away."""
    from core.guardrails import services as guardrails

    found = _find(rule, project)
    output.confirm(f"Remove guardrail {found.name}?", yes=yes)
    guardrails.delete_guardrail(context.operator(), found.id)
    output.show({"removed": found.name}, f"{found.name} is removed.", as_json=as_json)


def _find(name: str, project: str) -> GuardrailView:
    from core.guardrails import services as guardrails

    return guardrails.get_guardrail(context.operator(), context.project_id(project), name)


def _key() -> Secret:
    from core.kernel.crypto import Secret

    if sys.stdin.isatty():
        return Secret(typer.prompt("Key", hide_input=True))
    return Secret(sys.stdin.read().strip())
