"""What a security scan says."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Severity = Literal["safe", "low", "medium", "high", "critical"]
ScanState = Literal["scanned", "not scanned"]

SEVERITIES: tuple[Severity, ...] = ("safe", "low", "medium", "high", "critical")


class Finding(BaseModel):
    """Something in a file that may do harm.

    `kind` is a stable word such as `pickle-import`, `zip-bomb` or `secret`; `file` is relative to
    the folder that was scanned, and names a member of an archive as `archive.zip!member`.
    """

    model_config = ConfigDict(frozen=True)

    severity: Severity
    kind: str
    file: str
    what: str
    remedy: str = ""


class ScannerRun(BaseModel):
    """Whether one scanner finished; `reason` says why it did not, and on which file."""

    model_config = ConfigDict(frozen=True)

    scanner: str
    state: ScanState
    reason: str = ""


class ScannedFile(BaseModel):
    """A file that was read, with the SHA-256 of its bytes."""

    model_config = ConfigDict(frozen=True)

    name: str
    size_bytes: int
    sha256: str


class ScanReport(BaseModel):
    """The result of a scan; `model_dump(mode="json")` and `model_validate` store and restore it.

    `state` is `scanned` only when every scanner finished on every file. `severity` is that of the
    worst finding; without a finding it is `safe` when all was scanned, and else None (unknown).
    """

    model_config = ConfigDict(frozen=True)

    state: ScanState
    severity: Severity | None
    findings: tuple[Finding, ...] = ()
    scanners: tuple[ScannerRun, ...] = ()
    files: tuple[ScannedFile, ...] = ()

    @property
    def is_blocking(self) -> bool:
        """Whether a deployment needs an admin's override: there is a critical finding."""
        return self.severity == "critical"

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it reads as not scanned, a sentence a scanner; empty when it was scanned."""
        return tuple(
            f"{run.scanner}: {run.reason}" for run in self.scanners if run.state == "not scanned"
        )
