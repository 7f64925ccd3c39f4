"""The lock files: every version pinned, with the hashes of every platform's files.

They name no index: whoever installs takes packages from the index that pip is set up for.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from core.kernel.errors import UpstreamFailed
from core.kernel.settings import ROOT

_FLAGS = (
    *("--generate-hashes", "--no-emit-index-url", "--no-emit-find-links", "--universal"),
    *("--python-version", "3.11", "--quiet", "--custom-compile-command", "./bud dev lock"),
)
# What each file is made from; test tools may not move what runs.
_FILES: dict[str, tuple[str, ...]] = {
    "installer.txt": ("requirements/installer.in",),
    "runtime.txt": ("pyproject.toml",),
    "test.txt": ("--extra", "test", "-c", "requirements/runtime.txt", "pyproject.toml"),
    "models.txt": ("--no-deps", "--group", "models"),
    "bench.txt": ("-c", "requirements/test.txt", "requirements/bench.in"),
}


def write() -> list[str]:
    """Resolve and write every lock file; the names of those that changed.

    Raises:
        UpstreamFailed: uv cannot resolve; with its own words.
    """
    uv = Path(sys.prefix) / "bin" / "uv"
    changed = []
    for name, sources in _FILES.items():
        path = ROOT / "requirements" / name
        before = path.read_bytes() if path.exists() else b""
        run = subprocess.run(
            [str(uv), "pip", "compile", *_FLAGS, *sources, "-o", f"requirements/{name}"],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if run.returncode != 0:
            raise UpstreamFailed(
                f"uv could not resolve requirements/{name}:\n{run.stderr.strip()[-2000:]}",
                remedy="Mend the versions in pyproject.toml, or the index settings.",
            )
        if path.read_bytes() != before:
            changed.append(name)
    return changed
