"""The traces that a project has: the shipped ones, and those that people brought."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from core.kernel import ids
from core.kernel.errors import NotFound
from core.kernel.settings import settings
from core.simulation import traces
from core.simulation.traces import Trace

_KEPT = re.compile(r"trc_[0-9a-f]{16}")


def folder_of(project_id: str) -> Path:
    """Where the traces of a project lie."""
    return settings().data_dir / "traces" / project_id


def keep(project_id: str, trace: Trace) -> str:
    """Write a trace and return its id; the same requests under the same name have the same."""
    digest = hashlib.sha256(trace.name.encode())
    for column in (trace.arrival_s, trace.input_tokens, trace.output_tokens):
        digest.update(column.tobytes())
    trace_id = f"trc_{digest.hexdigest()[:16]}"
    path = _path(project_id, trace_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Readers must never see half a file.
    part = path.with_name(f"{ids.new_id('part')}.tmp")
    traces.save(trace, part)
    part.replace(path)
    return trace_id


def find(project_id: str, trace_id: str) -> Trace:
    """A shipped trace or one of the project. NotFound when there is none."""
    if not trace_id.startswith("trc_"):
        return traces.shipped(trace_id)
    path = _path(project_id, trace_id)
    if not path.exists():
        raise _missing(trace_id)
    return traces.load(path)


def kept(project_id: str) -> list[str]:
    """The ids of the traces that people brought."""
    return sorted(path.stem for path in folder_of(project_id).glob("trc_*.parquet"))


def remove(project_id: str, trace_id: str) -> None:
    """Delete a trace that somebody brought. NotFound when there is none."""
    path = _path(project_id, trace_id)
    if not path.exists():
        raise _missing(trace_id)
    path.unlink()


def _path(project_id: str, trace_id: str) -> Path:
    if not _KEPT.fullmatch(trace_id):
        raise _missing(trace_id)
    return folder_of(project_id) / f"{trace_id}.parquet"


def _missing(trace_id: str) -> NotFound:
    return NotFound(
        f"There is no trace {trace_id[:60]!r} in this project.",
        remedy="Upload it again; it may have been deleted.",
    )
