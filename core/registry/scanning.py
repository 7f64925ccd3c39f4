"""The security scan of a model's files, in one read of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from core.registry.reading import Sha256, Sink, read_once
from core.registry.scanners.report import (
    Finding,
    ScannedFile,
    ScannerRun,
    ScanReport,
    ScanState,
    Severity,
)

__all__ = ["Finding", "ScanReport", "ScanState", "ScannedFile", "ScannerRun", "Severity", "scan"]


def scan(
    paths: Sequence[Path],
    *,
    sinks: Sequence[Sink] = (),
    on_bytes: Callable[[int], None] = lambda _count: None,
) -> ScanReport:
    """Scan files and folders for danger; nothing is run or unpickled, no link is followed out.

    Args:
        paths: Files, or folders with everything below them.
        sinks: More takers of the same read: each gets every byte of every file, in the order
            of `paths` and, within a folder, of the names. A SHA-256 over a model's parts, say.
        on_bytes: Called with the number of bytes of each chunk that is done; may raise to stop.

    Returns:
        The report. A scanner that fails reads as `not scanned` in it, never as clean.

    Raises:
        InvalidInput: There is nothing at one of `paths`.
        OSError: A file cannot be read.
    """
    files = []
    for path in paths:
        digest = Sha256()
        size_bytes = read_once(path, [digest, *sinks], on_bytes)
        files.append(ScannedFile(name=path.name, size_bytes=size_bytes, sha256=digest.hexdigest()))
    return ScanReport(state="not scanned", severity=None, files=tuple(files))
