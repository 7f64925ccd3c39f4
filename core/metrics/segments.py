"""Segments of request facts on disk: found, read, deleted, or put aside when damaged."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from core.contracts.request_fact import DROPPED_FILE_NAME, FOLDER_NAME, SEALED_SUFFIX, DroppedFacts
from core.metrics.schemas import Segment, StoredFact

DAMAGED_FOLDER = "damaged"

_MAX_UNIX_S = 7_258_118_400.0  # the year 2200
_MAX_DURATION_MS = 24 * 3600 * 1000.0

_decoder = msgspec.json.Decoder(StoredFact)


@dataclass(frozen=True)
class SealedFile:
    """A sealed segment that waits to be ingested."""

    path: Path
    size_bytes: int
    modified_unix_s: float

    @property
    def id(self) -> str:
        """The segment's id: its name without the suffix."""
        return self.path.name.removesuffix(SEALED_SUFFIX)


def folder(data_dir: Path) -> Path:
    """Where the segments are."""
    return data_dir / FOLDER_NAME


def sealed(data_dir: Path) -> list[SealedFile]:
    """The sealed segments, oldest first."""
    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir(folder(data_dir)) as entries:
        for entry in entries:
            # One that goes away meanwhile was ingested by the process that owns the store.
            with contextlib.suppress(FileNotFoundError):
                if entry.name.endswith(SEALED_SUFFIX) and entry.is_file():
                    status = entry.stat()
                    found.append(SealedFile(Path(entry.path), status.st_size, status.st_mtime))
    return sorted(found, key=lambda segment: (segment.modified_unix_s, segment.id))


def read(segment: SealedFile) -> Segment:
    """Decode a segment; lines that are no request fact are counted, the others kept."""
    facts, damaged_lines = [], 0
    for line in segment.path.read_bytes().splitlines():
        if not line.strip():
            continue
        fact = _decoded(line)
        if fact is None:
            damaged_lines += 1
        else:
            facts.append(fact)
    return Segment(segment.id, facts, damaged_lines)


def _decoded(line: bytes) -> StoredFact | None:
    try:
        fact = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    # A moment or a duration out of all bounds would spread one request over years of minutes.
    plausible = 0 <= fact.started_unix_s < _MAX_UNIX_S and 0 <= fact.duration_ms < _MAX_DURATION_MS
    return fact if plausible else None


def write(data_dir: Path, segment_id: str, facts: Iterable[StoredFact]) -> Path:
    """Write a sealed segment, as the gateway would; for demo data and tests."""
    folder(data_dir).mkdir(parents=True, exist_ok=True)
    # Not `.open`: such files are the gateway's, which seals what an earlier run left.
    being_written = folder(data_dir) / f"{segment_id}.part"
    encoder = msgspec.json.Encoder()
    with being_written.open("wb") as file:
        file.writelines(encoder.encode(fact) + b"\n" for fact in facts)
        file.flush()
        os.fsync(file.fileno())
    done = being_written.with_suffix(SEALED_SUFFIX)
    being_written.rename(done)
    return done


def finish(segment: SealedFile, damaged_lines: int) -> None:
    """Delete an ingested segment, or put it aside for a person to look at when damaged."""
    with contextlib.suppress(FileNotFoundError):
        if damaged_lines == 0:
            segment.path.unlink()
            return
        aside = segment.path.parent / DAMAGED_FOLDER
        aside.mkdir(exist_ok=True)
        segment.path.rename(aside / segment.path.name)


def damaged_count(data_dir: Path) -> int:
    """How many damaged segments were put aside."""
    return sum(1 for _ in (folder(data_dir) / DAMAGED_FOLDER).glob(f"*{SEALED_SUFFIX}"))


def dropped_facts(data_dir: Path) -> int:
    """How many facts the gateway could not write, from its own count; 0 without one."""
    try:
        content = (folder(data_dir) / DROPPED_FILE_NAME).read_bytes()
        return msgspec.json.decode(content, type=DroppedFacts).dropped
    except (FileNotFoundError, msgspec.DecodeError):
        return 0
