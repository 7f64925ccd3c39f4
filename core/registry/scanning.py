"""The security scan of a model's files, in one read of each.

What a file is decides its first bytes, not its name: those choose the readers, and then every
chunk goes to the hash, the readers and ClamAV together. Archives are looked into by random access
first, because their directory lies at their end. Nothing is run, unpacked to disk or unpickled.
"""

from __future__ import annotations

import contextlib
import io
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from core.kernel.errors import BudError, InvalidInput
from core.kernel.settings import settings
from core.registry import gguf, safetensors
from core.registry.adapters import clamav
from core.registry.listing import Entry, describe_problem, entries
from core.registry.reading import Sha256, Sink, read_once
from core.registry.scanners import archives, files
from core.registry.scanners.contents import HEAD_BYTES, Patterns, Reader, readers_for, template
from core.registry.scanners.report import (
    SEVERITIES,
    Finding,
    ScannedFile,
    ScannerRun,
    ScanReport,
    ScanState,
    Severity,
)

__all__ = ["Finding", "ScanReport", "ScanState", "ScannedFile", "ScannerRun", "Severity", "scan"]

_SCANNERS = ("files", "formats", "archives", "pickles", "contents", "secrets")
_WEIGHTS = {
    ".safetensors": safetensors.read_header,
    ".gguf": gguf.read_header,
}
_MAX_NESTED_BYTES = 32 << 20
_MAX_DEPTH = 3
# Of one archive with all that is nested in it; about three minutes.
_MAX_UNPACKED_BYTES = 32 << 30
# Findings of one severity and kind; an archive may hold a hundred thousand scripts.
_MAX_ALIKE = 50


def scan(
    paths: Sequence[Path],
    *,
    sinks: Sequence[Sink] = (),
    on_bytes: Callable[[int], None] = lambda _count: None,
    clamd: str | None = None,
) -> ScanReport:
    """Scan files and folders for danger; nothing is run or unpickled, no link is followed out.

    Args:
        paths: Files, or folders with everything below them.
        sinks: More takers of the same read: each gets every byte of every file, in the order
            of `paths` and, within a folder, of the names. A SHA-256 over a model's parts, say.
        on_bytes: Called with the number of bytes of each chunk that is done; may raise to stop.
        clamd: Where ClamAV's daemon listens, `host:port` or the path of a socket; None takes the
            setting, and "" does without.

    Returns:
        The report. A scanner that fails reads as `not scanned` in it, never as clean. A file
        that may not be read, or is an archive made to fill the disk, is missing in `files`.

    Raises:
        InvalidInput: There is nothing at one of `paths`.
        OSError: A file cannot be read.
    """
    address = settings().clamd if clamd is None else clamd
    running = _Scan(address, sinks, on_bytes)
    for path in paths:
        for entry in entries(path):
            running.look_at(entry)
    return running.report()


class _Scan:
    """A scan on its way; `failures` holds the first reason of each scanner that failed."""

    def __init__(self, clamd: str, sinks: Sequence[Sink], on_bytes: Callable[[int], None]) -> None:
        self._clamd = clamd
        self._sinks = sinks
        self._on_bytes = on_bytes
        self._findings: list[Finding] = []
        self._counts: Counter[tuple[Severity, str]] = Counter()
        self._files: list[ScannedFile] = []
        self._failures: dict[str, str] = {}
        self._unpacked_bytes = 0

    def report(self) -> ScanReport:
        names = (*_SCANNERS, *(("clamav",) if self._clamd else ()))
        runs = tuple(
            ScannerRun(
                scanner=name,
                state="not scanned" if name in self._failures else "scanned",
                reason=self._failures.get(name, ""),
            )
            for name in names
        )
        found = sorted(
            [*self._findings, *self._left_out()],
            key=lambda finding: (-SEVERITIES.index(finding.severity), finding.file),
        )
        state: ScanState = "not scanned" if self._failures else "scanned"
        severity: Severity | None = "safe" if state == "scanned" else None
        return ScanReport(
            state=state,
            severity=found[0].severity if found else severity,
            findings=tuple(found),
            scanners=runs,
            files=tuple(self._files),
        )

    def _left_out(self) -> list[Finding]:
        return [
            files.more(severity, kind, count - _MAX_ALIKE)
            for (severity, kind), count in self._counts.items()
            if count > _MAX_ALIKE
        ]

    def _add(self, found: Iterable[Finding]) -> None:
        for finding in found:
            alike = (finding.severity, finding.kind)
            self._counts[alike] += 1
            if self._counts[alike] <= _MAX_ALIKE:
                self._findings.append(finding)

    def look_at(self, entry: Entry) -> None:
        """Scan one file."""
        if entry.problem:
            self._add([files.unreadable(entry, describe_problem(entry))])
            return
        with entry.path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        self._add(files.suspicious(entry.name, head, entry.is_executable))
        is_weights = self._check_weights(entry, head)
        if self._look_inside(entry, head):
            self._read(entry, readers_for(entry.name, head, is_weights=is_weights))

    def _check_weights(self, entry: Entry, head: bytes) -> bool:
        suffix = PurePosixPath(entry.name).suffix.lower()
        suffix = ".gguf" if head.startswith(b"GGUF") else suffix
        if suffix not in _WEIGHTS:
            return False
        try:
            header = _WEIGHTS[suffix](entry.path)
        except InvalidInput as error:
            self._add([files.malformed(entry.name, error.what)])
            return False
        if isinstance(header, gguf.GgufHeader):
            self._add(_template_findings(header, entry.name))
        return True

    # --- one read ------------------------------------------------------------------------------

    def _read(self, entry: Entry, readers: list[Reader]) -> None:
        digest = Sha256()
        guarded = [self._guarded(reader, reader.scanner, entry.name) for reader in readers]
        with contextlib.ExitStack() as stack:
            stream = self._start_clamav(entry.name, stack)
            watching = [self._guarded(stream, "clamav", entry.name)] if stream else []
            size_bytes = read_once(
                entry.path, [digest, *guarded, *watching, *self._sinks], self._on_bytes
            )
            if stream and not watching[0].failed:
                self._take_verdict(entry.name, stream)
        self._files.append(
            ScannedFile(name=entry.name, size_bytes=size_bytes, sha256=digest.hexdigest())
        )
        self._conclude(readers, guarded, entry.name)

    def _guarded(self, sink: Sink, scanner: str, name: str) -> _Guarded:
        return _Guarded(sink, lambda why: self._fail(scanner, name, why))

    def _conclude(self, readers: list[Reader], guarded: list[_Guarded], name: str) -> None:
        for reader, guard in zip(readers, guarded, strict=True):
            if guard.failed:
                continue
            try:
                reader.close()
                self._add(reader.findings(name))
                why = reader.failure()
            except Exception as error:  # noqa: BLE001 (as in _Guarded)
                why = _said(error)
            if why:
                self._fail(reader.scanner, name, why)

    def _start_clamav(self, name: str, stack: contextlib.ExitStack) -> clamav.Stream | None:
        if not self._clamd:
            return None
        try:
            return stack.enter_context(clamav.Stream(self._clamd))
        except BudError as error:
            self._fail("clamav", name, str(error))
            return None

    def _take_verdict(self, name: str, virus_scan: clamav.Stream) -> None:
        try:
            virus = virus_scan.verdict()
        except BudError as error:
            self._fail("clamav", name, str(error))
            return
        if virus is not None:
            self._add([files.virus(name, virus)])

    def _fail(self, scanner: str, name: str, why: str) -> None:
        self._failures.setdefault(scanner, f"{name}: {why}"[:400])

    # --- archives ------------------------------------------------------------------------------

    def _look_inside(self, entry: Entry, head: bytes) -> bool:
        """Look into an archive; False when the rest of it is not worth reading."""
        if not archives.is_archive(entry.name, head):
            return True
        if archives.is_hollow(entry.path):
            why = "it is an archive that is mostly a hole in the disk"
            self._add([archives.bomb(entry.name, why)])
            is_harmless = False
        else:
            with entry.path.open("rb") as file:
                self._unpacked_bytes = 0
                is_harmless = self._archive(file, head, entry.name, 1)
        if not is_harmless:
            self._fail("archives", entry.name, "it was not read to its end")
        return is_harmless

    def _archive(self, file: BinaryIO, head: bytes, name: str, depth: int) -> bool:
        """Look into one archive, and into those in it; False when it is a bomb."""
        try:
            for member, pieces in self._members(file, head, name):
                self._member(f"{name}!{member}", pieces, depth)
        except archives.Bomb as error:
            self._add([archives.bomb(name, str(error))])
            return False
        except archives.Unreadable as error:
            self._add([files.malformed(name, f"It is a broken archive: {error}.")])
            self._fail("archives", name, str(error))
        except Exception as error:  # noqa: BLE001 (as in _Guarded)
            self._fail("archives", name, _said(error))
        return True

    def _members(
        self, file: BinaryIO, head: bytes, name: str
    ) -> Iterator[tuple[str, Iterator[bytes]]]:
        if not archives.is_zip(name, head):
            for member, pieces in archives.walk_tar(file, name, self._add):
                yield member.name, pieces
            return
        members, found = archives.list_zip(file, name)
        self._add(found)
        for member in members:
            yield member.name, archives.read_zip_member(file, member)

    def _member(self, name: str, pieces: Iterator[bytes], depth: int) -> None:
        head = b""
        while len(head) < HEAD_BYTES and (piece := next(pieces, None)) is not None:
            head += piece
        inner = name.rpartition("!")[2]
        self._add(files.suspicious(name, head[:HEAD_BYTES], False))
        if archives.is_archive(inner, head):
            self._nested(name, head, pieces, depth)
            return
        readers = readers_for(inner, head[:HEAD_BYTES])
        guarded = [self._guarded(reader, reader.scanner, name) for reader in readers]
        for piece in self._counted(head, pieces):
            for guard in guarded:
                guard.feed(piece)
            # Most members are bare numbers: a few bytes of each are enough.
            if all(reader.is_done() for reader in readers):
                break
        self._conclude(readers, guarded, name)

    def _nested(self, name: str, head: bytes, pieces: Iterator[bytes], depth: int) -> None:
        content = io.BytesIO()
        for piece in self._counted(head, pieces):
            content.write(piece)
            if content.tell() > _MAX_NESTED_BYTES or depth >= _MAX_DEPTH:
                self._fail("archives", name, "an archive in an archive, too large or too deep")
                self._add([files.nested(name)])
                return
        self._archive(content, head, name, depth + 1)

    def _counted(self, head: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The bytes of a member, until those of all members of a file are too many."""
        for piece in itertools.chain((head,), pieces):
            self._unpacked_bytes += len(piece)
            if self._unpacked_bytes > _MAX_UNPACKED_BYTES:
                raise archives.Bomb(f"it unpacks to over {_MAX_UNPACKED_BYTES >> 30} GB in all")
            yield piece


class _Guarded:
    """A sink whose failure is that of its scanner alone: the others go on, and it is reported."""

    def __init__(self, sink: Sink, fail: Callable[[str], None]) -> None:
        self._sink = sink
        self._fail = fail
        self.failed = False

    def feed(self, chunk: bytes) -> None:
        if self.failed:
            return
        try:
            self._sink.feed(chunk)
        except Exception as error:  # noqa: BLE001 (a hostile file may raise anything in a reader)
            self.failed = True
            self._fail(_said(error))


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _template_findings(header: gguf.GgufHeader, name: str) -> list[Finding]:
    text = header.metadata.get("tokenizer.chat_template")
    reader: Patterns = template()
    reader.feed(text.encode() if isinstance(text, str) else b"")
    return reader.findings(name)
