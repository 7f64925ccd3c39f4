"""Keeps prompts and answers of the projects that turned it on: see `core.contracts.capture`.

A request only collects what passes by, up to a bound; one thread reads it, redacts it and writes
it down.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from core.contracts.capture import FOLDER_NAME, SUFFIX, Captured
from core.contracts.request_fact import RequestFact
from core.contracts.route_table import Capture
from core.kernel import clock
from gateway.http_request import Caller
from gateway.redaction import redacted

log = logging.getLogger(__name__)

_MAX_TEXT_BYTES = 256 * 1024
_MAX_QUEUED_BYTES = 32 * 1024 * 1024
_BATCH_S = 0.2
_FILES = 10  # at least, of what a project keeps when it keeps as much as it may
_LOG_EVERY_S = 60.0
# Where the events of the dialects' streams have the pieces of an answer.
_PIECES = frozenset(
    {
        *("content", "reasoning_content", "refusal", "text", "delta", "thinking", "partial_json"),
        *("arguments", "code"),
    }
)
_MAX_DEPTH = 8
# What JSON may write for a printable character or a slash.
_ESCAPE = re.compile(r"\\(?:u00([2-7][0-9a-fA-F])|/)")


class Recorder:
    """What one request asked and was answered, as it passes by; each up to 256 KB."""

    __slots__ = ("_answer", "_room_bytes", "capture", "request", "request_cut", "response_cut")

    def __init__(self, capture: Capture, request: bytes) -> None:
        self.capture = capture
        self.request = request[:_MAX_TEXT_BYTES]
        self.request_cut = len(request) > _MAX_TEXT_BYTES
        self.response_cut = False
        self._room_bytes = _MAX_TEXT_BYTES
        self._answer: list[bytes] = []

    def write(self, piece: bytes) -> None:
        """A piece of the answer."""
        if len(piece) > self._room_bytes:
            self.response_cut, piece = True, piece[: self._room_bytes]
        if piece:
            self._room_bytes -= len(piece)
            self._answer.append(piece)

    @property
    def response(self) -> bytes:
        """What was answered."""
        return b"".join(self._answer)

    @property
    def size_bytes(self) -> int:
        """Of both."""
        return len(self.request) + _MAX_TEXT_BYTES - self._room_bytes


class RecordedCaller:
    """A caller, what is written to which is recorded too."""

    chunk_writer = None  # everything is to be recorded

    def __init__(self, caller: Caller, recorder: Recorder) -> None:
        self.__dict__.update(_caller=caller, _recorder=recorder)

    def write(self, piece: bytes) -> None:
        """To both."""
        self._recorder.write(piece)
        self._caller.write(piece)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._caller, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._caller, name, value)


class CaptureWriter:
    """The one writer of a worker; its thread begins with the first capture.

    Args:
        data_dir: The data folder.
        worker_id: As in facts.
    """

    def __init__(self, data_dir: Path, worker_id: str) -> None:
        self.dropped = 0
        self._folder = data_dir / FOLDER_NAME
        self._files: dict[Path, Path] = {}  # the one written to, of each project
        self._worker_id = worker_id
        self._queue: deque[tuple[RequestFact, Recorder]] = deque()
        self._queued_bytes = 0
        self._lock = threading.Lock()
        self._something = threading.Event()
        self._stopping = threading.Event()
        self._logged_s = float("-inf")
        self._encoder = msgspec.json.Encoder()
        self._thread: threading.Thread | None = None

    def add(self, fact: RequestFact, recorder: Recorder) -> None:
        """Keep a request that has ended."""
        with self._lock:
            if self._queued_bytes > _MAX_QUEUED_BYTES:
                self._drop("they come faster than they can be written")
                return
            self._queued_bytes += recorder.size_bytes
        self._queue.append((fact, recorder))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="captures", daemon=True)
            self._thread.start()
        self._something.set()

    def stop(self) -> None:
        """Write what is left."""
        self._stopping.set()
        self._something.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._something.wait()
            self._stopping.wait(_BATCH_S)
            self._something.clear()
            self._flush()
        self._flush()

    def _flush(self) -> None:
        while self._queue:
            fact, recorder = self._queue.popleft()
            with self._lock:
                self._queued_bytes -= recorder.size_bytes
            try:
                self._write(fact, recorder)
            except OSError as error:
                self._drop(str(error))
            except Exception:  # one that cannot be understood must not end the others
                log.exception("request %s is not captured", fact.request_id)

    def _write(self, fact: RequestFact, recorder: Recorder) -> None:
        line = self._encoder.encode(_captured(fact, recorder)) + b"\n"
        folder = self._folder / fact.project_id
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        may = recorder.capture
        last_day = datetime.fromtimestamp(fact.started_unix_s, UTC) - timedelta(days=may.keep_days)
        if not _has_room(folder, len(line), may.max_bytes, f"{last_day:%Y-%m-%d}"):
            self._drop("one is larger than all that its project may keep")
            return
        path = self._file(folder, fact, may.max_bytes // _FILES)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            before_bytes = os.fstat(descriptor).st_size
            if os.write(descriptor, line) != len(line):
                os.ftruncate(descriptor, before_bytes)
                raise OSError("the disk is full")
        finally:
            os.close(descriptor)

    def _file(self, folder: Path, fact: RequestFact, most_bytes: int) -> Path:
        """Where a capture goes: whole files make room, so one never holds most of what is kept."""
        began = datetime.fromtimestamp(fact.started_unix_s, UTC)
        path = self._files.get(folder)
        if path is not None and path.name.startswith(f"{began:%Y-%m-%d}."):
            with suppress(FileNotFoundError):
                if path.stat().st_size < most_bytes:
                    return path
        path = folder / f"{began:%Y-%m-%d.%H%M%S%f}.{self._worker_id}{SUFFIX}"
        self._files[folder] = path
        return path

    def _drop(self, why: str) -> None:
        self.dropped += 1
        now_s = clock.monotonic_s()
        if now_s - self._logged_s >= _LOG_EVERY_S:
            self._logged_s = now_s
            log.error("%d captures were dropped so far: %s", self.dropped, why)


def _has_room(folder: Path, line_bytes: int, max_bytes: int, last_day: str) -> bool:
    """Make room by deleting the oldest files; False when a line is too large for all of it.

    Those of before `last_day` go in any case: `core.captures` deletes them too, where it runs.
    """
    if line_bytes > max_bytes:
        return False
    files = sorted((path.name, path) for path in folder.glob(f"*{SUFFIX}"))
    sizes = {}
    for _, path in files:
        with suppress(FileNotFoundError):
            sizes[path] = path.stat().st_size
    used_bytes = sum(sizes.values()) + line_bytes
    for path, size_bytes in sizes.items():
        if used_bytes <= max_bytes and path.name >= last_day:
            break
        path.unlink(missing_ok=True)
        used_bytes -= size_bytes
    return True


def _captured(fact: RequestFact, recorder: Recorder) -> Captured:
    request, of_request = redacted(_plain(recorder.request))
    response, of_response = redacted(_answered(recorder.response, stream=fact.stream))
    return Captured(
        request_id=fact.request_id,
        at_unix_s=fact.started_unix_s,
        endpoint=fact.endpoint,
        model=fact.model,
        key_id=fact.key_id,
        user_id=fact.user_id,
        status=fact.status,
        error_class=fact.error_class,
        request=request,
        response=response,
        request_cut=recorder.request_cut,
        response_cut=recorder.response_cut,
        redacted=dict(of_request + of_response),
    )


def _plain(content: bytes) -> str:
    """Without escapes behind which something could hide, also where JSON was cut."""
    try:
        return msgspec.json.encode(msgspec.json.decode(content)).decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = content.decode("utf-8", "replace")
        return _ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else "/", text)


def _answered(content: bytes, *, stream: bool) -> str:
    """An answer as text. A secret in a stream lies in pieces, so they are put together first."""
    if not stream or not content.lstrip().startswith((b"data:", b"event:", b":")):
        return _plain(content)
    pieces: list[str] = []
    for line in content.splitlines():
        if line.startswith(b"data:"):
            # The end of what was cut is no event.
            with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pieces += _pieces(msgspec.json.decode(line[5:]))
    return "".join(pieces)


def _pieces(event: Any) -> Iterator[str]:
    kind = event.get("type") if isinstance(event, dict) else None
    if isinstance(kind, str) and kind.startswith("response.") and not kind.endswith(".delta"):
        return  # repeats what the deltas said
    yield from _texts(event, 0)


def _texts(found: Any, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(found, list):
        for each in found:
            yield from _texts(each, depth + 1)
    elif isinstance(found, dict):
        for name, value in found.items():
            if isinstance(value, str):
                if name in _PIECES:
                    yield value
            else:
                yield from _texts(value, depth + 1)
