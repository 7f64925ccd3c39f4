"""What a file's name and first bytes say about it."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from core.registry.listing import Entry
from core.registry.scanners.report import Finding, Severity

_PROGRAMS = (b"\x7fELF", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe",
             b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"\x00asm")  # fmt: skip
_PROGRAM_SUFFIXES = frozenset({
    ".exe", ".dll", ".so", ".dylib", ".msi", ".com", ".scr", ".jar", ".class", ".apk", ".deb",
    ".rpm", ".pyc", ".pyd", ".wasm", ".lnk", ".hta", ".llamafile",
})  # fmt: skip
_SCRIPT_SUFFIXES = frozenset({
    ".sh", ".bash", ".zsh", ".bat", ".cmd", ".ps1", ".psm1", ".vbs", ".js", ".mjs", ".pl", ".rb",
    ".php", ".lua", ".command",
})  # fmt: skip
_USUAL_HIDDEN = frozenset({".gitattributes", ".gitignore", ".gitkeep", ".metadata"})
_CODE_SUFFIXES = frozenset({".py", ".ipynb"})
_OUT_OF_PLACE: dict[str, tuple[Severity, str, str]] = {
    "program": ("high", "It is a program or a library of machine code.", "A model needs none."),
    "script": ("medium", "It is a script; Bud never runs it.", "Read it before you run it."),
    "code": (
        "low",
        "It is Python code; Bud never runs it.",
        "Read it before you turn trust_remote_code on.",
    ),
    "hidden-file": ("low", "It is a hidden file.", "Look at what it is for."),
}
_WINDOWS_PROGRAM = re.compile(rb"MZ.{58}(....)", re.DOTALL)


def suspicious(name: str, head: bytes, is_executable: bool) -> list[Finding]:
    """What is out of place among a model's files: programs, scripts, code, hidden files.

    Args:
        name: The file, relative to the folder; `archive!member` in an archive.
        head: Its first bytes.
        is_executable: Whether its mode lets it be run.
    """
    path = PurePosixPath(name.rpartition("!")[2].replace("\\", "/"))
    suffix = path.suffix.lower()
    is_script = suffix in _SCRIPT_SUFFIXES or (is_executable and head.startswith(b"#!"))
    if _is_program(head) or suffix in _PROGRAM_SUFFIXES:
        kind = "program"
    elif is_script:
        kind = "script"
    elif suffix in _CODE_SUFFIXES:
        kind = "code"
    elif path.name.startswith(".") and path.name not in _USUAL_HIDDEN:
        kind = "hidden-file"
    else:
        return []
    severity, what, remedy = _OUT_OF_PLACE[kind]
    return [_finding(severity, kind, name, what, remedy)]


def _is_program(head: bytes) -> bool:
    if head.startswith(_PROGRAMS):
        return True
    found = _WINDOWS_PROGRAM.match(head)
    if found is None:
        return False
    at = int.from_bytes(found[1], "little")
    return head[at : at + 4] == b"PE\0\0"


def unreadable(entry: Entry, what: str) -> Finding:
    """The finding for a link that leads out of the folder, or for what is no file."""
    severity: Severity = "low" if entry.problem == "broken" else "critical"
    kind = "special-file" if entry.problem == "special" else "link"
    return _finding(severity, kind, entry.name, what, "Remove it from the folder.")


def malformed(name: str, what: str) -> Finding:
    """The finding for a file that is not what it says."""
    return _finding("high", "malformed", name, what, "Download it again and compare its checksum.")


def nested(name: str) -> Finding:
    """The finding for an archive in an archive that is not looked into."""
    return _finding(
        "high", "nested-archive", name,
        "It is an archive in an archive, too large or too deep to be looked into.",
        "Unpack the outer one, and scan again.",
    )  # fmt: skip


def more(severity: Severity, kind: str, count: int) -> Finding:
    """Stands for further findings of one kind."""
    what = f"There are {count:,} more findings of this kind."
    return _finding(severity, kind, "(more files)", what, "Scan fewer files at once.")


def virus(name: str, virus_name: str) -> Finding:
    """The finding for what ClamAV knows."""
    return _finding(
        "critical", "virus", name, f"ClamAV knows it as {virus_name[:120]}.", "Delete it."
    )


def _finding(severity: Severity, kind: str, name: str, what: str, remedy: str) -> Finding:
    return Finding(severity=severity, kind=kind, file=name, what=what, remedy=remedy)
