"""Write `data/licences/licences.json.xz` from ScanCode LicenseDB and Bud's own texts.

    python -m core.registry.licences.build FOLDER

FOLDER is `licensedcode/data/licenses` of the package `scancode-toolkit-mini` (or of
`licensedcode-data`). The index takes every licence of it; the texts are those that
`shipped.txt` names. The same input gives the same bytes.
"""

from __future__ import annotations

import json
import lzma
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.registry.licences.texts import ARCHIVE, DATA

_SCANCODE = "ScanCode LicenseDB (scancode-toolkit-mini 32.5.0), CC-BY-4.0"
_RULE = re.compile(r"^---\s*$", re.MULTILINE)


@dataclass(frozen=True)
class _File:
    """One `.LICENSE` file: a head of `name: value` lines, then the text."""

    head: dict[str, str]
    text: str


def build(folder: Path, archive: Path = ARCHIVE) -> None:
    """Write the archive of the index and the texts."""
    shipped = set((DATA / "shipped.txt").read_text().split())
    scancode = list(_files(folder))
    own = list(_files(DATA / "texts"))
    texts = [file for file in scancode if file.head["key"] in shipped] + own
    missing = shipped - {file.head["key"] for file in texts}
    if missing:
        raise SystemExit(f"Not in {folder}: {', '.join(sorted(missing))}")
    content = {
        "index": [_row(file.head) for file in _by_key([*scancode, *own])],
        "texts": {file.head["key"]: file.text for file in _by_key(texts)},
    }
    packed = json.dumps(content, ensure_ascii=False).encode()
    archive.write_bytes(lzma.compress(packed, preset=9 | lzma.PRESET_EXTREME))


def _files(folder: Path) -> Iterator[_File]:
    for path in sorted(folder.glob("*.LICENSE")):
        _, head, text = _RULE.split(path.read_text(encoding="utf-8"), 2)
        yield _File(_head(head), text.strip() + "\n")


def _by_key(files: list[_File]) -> list[_File]:
    return sorted(files, key=lambda file: file.head["key"])


def _head(lines: str) -> dict[str, str]:
    """The head's values by name; the entries of a list are joined with spaces."""
    found: dict[str, str] = {}
    name = ""
    for line in lines.splitlines():
        if line.startswith("    - "):
            found[name] = f"{found[name]} {line.removeprefix('    - ')}".strip()
        elif ": " in line or line.endswith(":"):
            name, _, value = line.partition(":")
            found[name] = value.strip().strip("'\"")
    return found


def _row(head: dict[str, str]) -> dict[str, str]:
    return {
        "key": head["key"],
        "spdx": head.get("spdx_license_key", ""),
        "other_spdx": head.get("other_spdx_license_keys", ""),
        "name": head.get("name", head["key"]),
        "short_name": head.get("short_name", head["key"]),
        "category": head.get("category", ""),
        "owner": head.get("owner", ""),
        "url": head.get("homepage_url") or head.get("text_urls", "").split(" ")[0],
        "text_source": head.get("text_source", _SCANCODE),
    }


if __name__ == "__main__":
    build(Path(sys.argv[1]))
