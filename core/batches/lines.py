"""The lines of a batch: read and checked, and the answers to them, written as they come.

A line is answered at most once in what comes out, whatever is killed when: who goes on reads which
ids have an answer already, behind a last line that may be torn.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from core.contracts.batch import ENDPOINTS, ERRORS, MOST_LINES, RESULTS, BatchError

_MOST_ERRORS = 20
_MOST_MODELS = 20
_LONGEST_ID = 512
_TAIL_BYTES = 64 * 1024


class Line(msgspec.Struct, frozen=True):
    """One request; `body` is JSON as it stands in the input."""

    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _Body(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None
    background: bool | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """Tokens as any of the endpoints counts them."""

    prompt_tokens: int | None = None
    input_tokens: int | None = None
    completion_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None


class _AnswerBody(msgspec.Struct):
    usage: Usage | None = None


class _Response(msgspec.Struct):
    body: msgspec.Raw


class _Answer(msgspec.Struct):
    custom_id: str
    response: _Response | None = None


_decode_line = msgspec.json.Decoder(Line).decode
_decode_body = msgspec.json.Decoder(_Body).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_answer_body = msgspec.json.Decoder(_AnswerBody).decode


def model_of(line: Line) -> str:
    """The model that a line asks; it was checked to name one."""
    return _decode_body(line.body).model or ""


def read(path: Path) -> Iterator[Line]:
    """The lines of an input that was checked; empty ones are passed over."""
    with path.open("rb") as file:
        for raw in file:
            if raw.strip():
                yield _decode_line(raw)


def check(
    path: Path, endpoint: str, longest_bytes: int = 32_000_000
) -> tuple[int, set[str], list[BatchError]]:
    """Count the lines of an input; the models they ask, and the first things wrong with it.

    No more of it than `longest_bytes`, the longest line, is in memory.
    """
    errors: list[BatchError] = []
    known: set[str] = set()
    models: set[str] = set()
    with path.open("rb") as file:
        for number, raw in enumerate(iter(lambda: file.readline(longest_bytes + 1), b""), 1):
            if len(raw) > longest_bytes:
                says = f"The line has over {longest_bytes / 1_000_000:g} MB."
                errors.append(BatchError(code="line_too_long", message=says, line=number))
                break
            if not raw.strip():
                continue
            problem = _problem(raw, endpoint, known, models)
            if problem is not None:
                errors.append(msgspec.structs.replace(problem, line=number))
            if len(known) > MOST_LINES:
                errors.append(_error("too_many_lines", f"It has over {MOST_LINES:,} lines."))
                break
            if len(models) > _MOST_MODELS:
                errors.append(_error("too_many_models", f"It asks over {_MOST_MODELS} models."))
                break
            if len(errors) >= _MOST_ERRORS:
                break
    if not known and not errors:
        errors.append(_error("empty_file", "The input has no lines."))
    return len(known), models, errors


def _problem(raw: bytes, endpoint: str, known: set[str], models: set[str]) -> BatchError | None:
    """What is wrong with a line; None when it can be asked."""
    try:
        line = _decode_line(raw)
        body = _decode_body(line.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return _error("invalid_json_line", f"The line cannot be read: {error}.")
    if not line.custom_id or len(line.custom_id) > _LONGEST_ID:
        return _error(
            "invalid_custom_id", f"'custom_id' has 1 to {_LONGEST_ID} characters.", "custom_id"
        )
    if line.custom_id in known:
        return _error(
            "duplicate_custom_id", f"{line.custom_id[:80]!r} is there twice.", "custom_id"
        )
    known.add(line.custom_id)
    if line.method != "POST":
        return _error("invalid_method", "'method' must be POST.", "method")
    if line.url != endpoint or line.url not in ENDPOINTS:
        return _error("mismatched_url", f"'url' must be {endpoint}, as the batch says.", "url")
    if not body.model:
        return _error("missing_model", "'body' names no model.", "body.model")
    if body.stream or body.background:
        asked = "stream" if body.stream else "background"
        return _error("unsupported", f"A batch has no {asked!r}.", f"body.{asked}")
    models.add(body.model)
    return None


def _error(code: str, message: str, param: str | None = None) -> BatchError:
    return BatchError(code=code, message=message, param=param)


class Answers:
    """What came of a batch so far.

    Args:
        folder: Of the batch.

    Attributes:
        done: The ids of the lines that were answered.
    """

    def __init__(self, folder: Path) -> None:
        self.done: set[str] = set()
        self.completed = self.failed = 0
        self.input_tokens = self.output_tokens = self.cached_tokens = 0
        for name in (RESULTS, ERRORS):
            path = folder / name
            if path.exists():
                _cut_torn(path)
                self._take_in(path, is_error=name == ERRORS)
        self._results = (folder / RESULTS).open("ab")
        self._errors = (folder / ERRORS).open("ab")

    def add(
        self,
        custom_id: str,
        request_id: str,
        *,
        status: int = 0,
        body: bytes = b"",
        error: dict[str, str] | None = None,
    ) -> None:
        """Write one answer down; it is in the file when this returns.

        Args:
            custom_id: The line's.
            request_id: By which the request's fact is found.
            status: Of the answer; 0 when there is none.
            body: JSON of the answer.
            error: Why there is none.
        """
        response: dict[str, Any] | None = None
        if status:
            content = msgspec.Raw(body) if _is_json(body) else body.decode("utf-8", "replace")
            response = {"status_code": status, "request_id": request_id, "body": content}
        line = msgspec.json.encode(
            {"id": request_id, "custom_id": custom_id, "response": response, "error": error}
        )
        # One line is one write, whatever the body has: no JSON needs a line break.
        is_good = status == 200
        file = self._results if is_good else self._errors
        file.write(line.replace(b"\n", b" ") + b"\n")
        file.flush()
        self._count(_decode_answer(line), is_error=not is_good)

    def close(self) -> None:
        """Close the files."""
        self._results.close()
        self._errors.close()

    def _take_in(self, path: Path, *, is_error: bool) -> None:
        with path.open("rb") as file:
            for raw in file:
                self._count(_decode_answer(raw), is_error=is_error)

    def _count(self, answer: _Answer, *, is_error: bool) -> None:
        self.done.add(answer.custom_id)
        self.failed += is_error
        self.completed += not is_error
        usage = _usage(answer.response.body) if answer.response else None
        if usage is not None:
            self.input_tokens += usage.prompt_tokens or usage.input_tokens or 0
            self.output_tokens += usage.completion_tokens or usage.output_tokens or 0
            details = usage.prompt_tokens_details or usage.input_tokens_details
            self.cached_tokens += (details and details.cached_tokens) or 0


def _usage(body: msgspec.Raw) -> Usage | None:
    try:
        return _decode_answer_body(body).usage
    except msgspec.DecodeError:
        return None  # a text, or counts that are none


def _is_json(body: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(body), dict)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def _cut_torn(path: Path) -> None:
    """Take away a last line that a crash tore."""
    with path.open("r+b") as file:
        size_bytes = file.seek(0, 2)
        end = size_bytes
        while end:
            begin = max(end - _TAIL_BYTES, 0)
            file.seek(begin)
            found = file.read(end - begin).rfind(b"\n")
            if found >= 0:
                end = begin + found + 1
                break
            end = begin
        if end != size_bytes:
            file.truncate(end)
