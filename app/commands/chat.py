"""`bud chat`: ask a model through the gateway."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from app import formats
from app.commands import context, output
from app.commands.context import DEFAULT_PROJECT, Project
from app.commands.output import Json
from core.kernel.errors import BudError, Unavailable

if TYPE_CHECKING:
    from core.playground.schemas import ChatRequest


def chat(
    model: Annotated[str, typer.Argument(help="The name of a deployment.")],
    prompt: Annotated[
        str | None, typer.Argument(help="The question; without it, a conversation begins.")
    ] = None,
    system: Annotated[str, typer.Option(help="System prompt.")] = "",
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer.")] = 512,
    temperature: Annotated[float | None, typer.Option(help="0 to 2.")] = None,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Ask a deployed model."""
    from core.playground.schemas import ChatRequest

    project_id = context.project_id(project)
    if not context.is_running():
        raise Unavailable("Bud does not run.", remedy="Start it with: bud up")
    messages = [{"role": "system", "content": system}] if system else []
    conversation = prompt is None
    while True:
        question = prompt if prompt is not None else _next_question()
        if question is None:
            return
        messages.append({"role": "user", "content": question})
        request = ChatRequest(
            model=model, messages=messages, max_tokens=max_tokens, temperature=temperature
        )
        try:
            answer = asyncio.run(_answer(project_id, request, as_json=as_json))
        except BudError as error:
            if not conversation:
                raise
            output.show_error(error, as_json=as_json)
            messages.pop()
            continue
        messages.append({"role": "assistant", "content": answer})
        if not conversation:
            return


def _next_question() -> str | None:
    """The next line of the person, or None when they are done."""
    if sys.stdin.isatty():
        output.note("Type a question; an empty line ends.")
    try:
        line = input("> " if sys.stdin.isatty() else "")
    except EOFError:
        return None
    return line.strip() or None


async def _answer(project_id: str, request: ChatRequest, *, as_json: bool) -> str:
    from core.playground import services as playground

    stream = playground.chat_stream(context.operator(), project_id, request)
    content = ""
    async for delta in stream.pieces():
        content += delta.content
        if not as_json:
            sys.stdout.write(delta.content)
            sys.stdout.flush()
    finished = stream.finished()
    output.show({"content": content, **output.plain(finished)}, "", as_json=as_json)
    if not as_json:
        output.note(
            f"[{formats.tokens(finished.output_tokens)}, TTFT {formats.ms(finished.ttft_ms)}, "
            f"{formats.tokens_per_s(finished.tokens_per_s)}]"
        )
    return content
