"""OpenAI's `/v1/responses`: response objects and their events, made of OpenAI chat's answers.

Source of the format: https://platform.openai.com/docs/api-reference/responses and
…/responses-streaming, and the types of the official Python client, `openai` 3.54.0 (29 November
2026).
"""

from __future__ import annotations

from typing import Any

from core.kernel import clock
from gateway.dialects import chat
from gateway.dialects.chat import Chat, ChatUsage, Choice, Mark, ToolCall
from gateway.errors import GatewayError

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_ERROR_CODES = {400: "invalid_prompt", 413: "invalid_prompt", 429: "rate_limit_exceeded"}


class ResponseAnswer:
    """One response, whole or as a stream.

    Args:
        shown: The fields of the request that the response repeats.
        request_id: Of the request; the response's id is made of it.
        created_s: When it was asked for, in Unix seconds.
    """

    def __init__(self, shown: dict[str, Any], request_id: str, created_s: int) -> None:
        self._name = request_id.removeprefix("req_")
        self._model = str(shown["model"])
        self._response: dict[str, Any] = {
            "id": f"resp_{self._name}",
            "object": "response",
            "created_at": created_s,
            "completed_at": None,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            **shown,
            "output": [],
            "usage": None,
        }
        self._output: list[dict[str, Any]] = self._response["output"]
        self._finish_reason: str | None = None
        self._sequence_number = 0
        self._started = False
        self._is_open = False
        self._tool_index = -1

    @property
    def id(self) -> str:
        """Of the response."""
        return str(self._response["id"])

    @property
    def status(self) -> str:
        """in_progress, completed, incomplete or failed."""
        return str(self._response["status"])

    def document(self) -> bytes:
        """The response as it stands, as JSON."""
        return chat.encode(self._response)

    # -- whole

    def answer(self, content: bytes) -> bytes:
        """A whole chat answer as a response. Raises GatewayError: it is no chat answer."""
        found = chat.answer(content, self._model)
        choice = found.first
        assert choice is not None  # `chat.answer` sees to it
        said = choice.said
        if said.thought:
            self._output.append(self._reasoning(said.thought))
        if said.text:
            self._output.append(self._message([_text(said.text, _logprobs(choice))]))
        for call in said.tool_calls or ():
            self._output.append(self._called(call) | {"arguments": call.function.arguments or ""})
        self._finish_reason = choice.finish_reason
        self._finish(found.usage)
        return self.document()

    def fail(self, error: GatewayError) -> None:
        """It did not work; the response says why."""
        code = _ERROR_CODES.get(error.status, "server_error")
        self._response |= {"status": "failed", "error": {"code": code, "message": error.message}}
        for item in self._output:
            if item.get("status") == "in_progress":
                item["status"] = "incomplete"

    def _finish(self, usage: ChatUsage | None) -> None:
        reason = _INCOMPLETE.get(self._finish_reason or "")
        if usage is not None:
            self._response["usage"] = _usage(usage)
        if reason is None:
            ended = {"status": "completed", "completed_at": int(clock.unix_s())}
        else:
            ended = {"status": "incomplete", "incomplete_details": {"reason": reason}}
        self._response |= ended
        for item in self._output:
            if item.get("status") == "in_progress":
                item["status"] = self._response["status"]

    # -- a stream

    def feed(self, events: bytes) -> bytes:
        """Chat events as a response's. Raises GatewayError: one is an error or no chat event."""
        out: list[bytes] = []
        for found in chat.events(events, self._model):
            self._start(out)
            if isinstance(found, Chat):
                self._add(found, out)
            elif found is Mark.PING:
                out.append(b": ping\n\n")
        return b"".join(out)

    def end(self) -> bytes:
        """The last events, with the whole response."""
        out: list[bytes] = []
        self._start(out)
        self._close(out)
        self._finish(None)
        self._say(f"response.{self.status}", out, response=self._response)
        return b"".join(out)

    def broken(self, error: GatewayError) -> bytes:
        """The error, and the response that failed of it, as the last events."""
        out: list[bytes] = []
        self.fail(error)
        told = {"code": error.code or error.error_class, "message": error.message}
        self._say("error", out, **told, param=error.param)
        self._say("response.failed", out, response=self._response)
        return b"".join(out)

    def _say(self, kind: str, out: list[bytes], **fields: Any) -> None:
        event = {"type": kind, "sequence_number": self._sequence_number, **fields}
        self._sequence_number += 1
        out.append(chat.event(kind, event))

    def _start(self, out: list[bytes]) -> None:
        if not self._started:
            self._started = True
            self._say("response.created", out, response=self._response)
            self._say("response.in_progress", out, response=self._response)

    def _add(self, found: Chat, out: list[bytes]) -> None:
        if found.usage is not None:
            self._response["usage"] = _usage(found.usage)
        choice = found.first
        if choice is None:
            return
        said = choice.said
        if said.thought:
            part = {"type": "reasoning_text", "text": ""}
            self._open_part(self._reasoning(""), part, out)
            self._delta("reasoning_text", said.thought, out)
        if said.text:
            self._open_part(self._message([]), _text("", []), out)
            logprobs = _logprobs(choice)
            self._delta("output_text", said.text, out, logprobs=logprobs)
            self._output[-1]["content"][0]["logprobs"] += logprobs
        for call in said.tool_calls or ():
            self._call(call, out)
        self._finish_reason = choice.finish_reason or self._finish_reason

    def _call(self, call: ToolCall, out: list[bytes]) -> None:
        number = call.index if call.index is not None else self._tool_index + bool(call.id)
        in_call = self._is_open and self._output[-1]["type"] == "function_call"
        if number < self._tool_index or (number == self._tool_index and not in_call):
            raise GatewayError(
                "upstream_broke",
                f"The server of {self._model!r} went back to a tool call that it had left.",
            )
        if number > self._tool_index:
            self._tool_index = number
            self._close(out)
            self._open(self._called(call), out)
        if call.function.arguments:
            item = self._output[-1]
            item["arguments"] += call.function.arguments
            self._say(
                "response.function_call_arguments.delta", out, item_id=item["id"],
                output_index=len(self._output) - 1, delta=call.function.arguments,
            )  # fmt: skip

    def _open(self, item: dict[str, Any], out: list[bytes]) -> None:
        self._is_open = True
        self._output.append(item)
        index = len(self._output) - 1
        self._say("response.output_item.added", out, output_index=index, item=item)

    def _open_part(self, item: dict[str, Any], part: dict[str, Any], out: list[bytes]) -> None:
        """Begin an item of this kind with its one part, unless it has begun."""
        if self._is_open and self._output[-1]["type"] == item["type"]:
            return
        self._close(out)
        self._open(item | {"content": []}, out)
        self._output[-1]["content"].append(part)
        self._say("response.content_part.added", out, **self._place(), part=part)

    def _place(self) -> dict[str, Any]:
        item = self._output[-1]
        index = len(self._output) - 1
        return {"item_id": item["id"], "output_index": index, "content_index": 0}

    def _delta(self, kind: str, text: str, out: list[bytes], **fields: Any) -> None:
        self._output[-1]["content"][0]["text"] += text
        self._say(f"response.{kind}.delta", out, **self._place(), delta=text, **fields)

    def _close(self, out: list[bytes]) -> None:
        if not self._is_open:
            return
        self._is_open = False
        item, index = self._output[-1], len(self._output) - 1
        item["status"] = "incomplete" if self._finish_reason in _INCOMPLETE else "completed"
        if item["type"] == "function_call":
            self._say(
                "response.function_call_arguments.done", out, item_id=item["id"],
                output_index=index, name=item["name"], arguments=item["arguments"],
            )  # fmt: skip
        else:
            part = item["content"][0]
            told = {"logprobs": part["logprobs"]} if "logprobs" in part else {}
            self._say(
                f"response.{part['type']}.done", out, **self._place(), text=part["text"], **told
            )
            self._say("response.content_part.done", out, **self._place(), part=part)
        self._say("response.output_item.done", out, output_index=index, item=item)

    # -- items

    def _item(self, prefix: str, kind: str) -> dict[str, Any]:
        id_ = f"{prefix}_{self._name}_{len(self._output)}"
        return {"id": id_, "type": kind, "status": "in_progress"}

    def _reasoning(self, text: str) -> dict[str, Any]:
        content = [{"type": "reasoning_text", "text": text}]
        return self._item("rs", "reasoning") | {"summary": [], "content": content}

    def _message(self, content: list[dict[str, Any]]) -> dict[str, Any]:
        return self._item("msg", "message") | {"role": "assistant", "content": content}

    def _called(self, call: ToolCall) -> dict[str, Any]:
        item = self._item("fc", "function_call")
        call_id = call.id or f"call_{self._name}_{len(self._output)}"
        return item | {"call_id": call_id, "name": call.function.name or "", "arguments": ""}


def _text(text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def _logprobs(choice: Choice) -> list[dict[str, Any]]:
    return (choice.logprobs.content if choice.logprobs else None) or []


def _usage(usage: ChatUsage) -> dict[str, Any]:
    input_tokens, output_tokens = usage.prompt_tokens or 0, usage.completion_tokens or 0
    details = usage.completion_tokens_details
    reasoning_tokens = (details.reasoning_tokens if details else None) or 0
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens or 0,
            "cache_write_tokens": 0,
        },
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning_tokens},
        "total_tokens": input_tokens + output_tokens,
    }
