"""The C programs in `native/`, compiled by the machine's own compiler when they are needed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from core.kernel.errors import BudError, NotFound

SOURCES = Path(__file__).parent / "native"
MOCK_BACKEND = "mock_backend"
LOAD = "load"


def compile_into(folder: Path, *flags: str) -> None:
    """Write the programs `mock_backend` and `load` into a folder.

    Args:
        folder: Where they go; it must exist.
        flags: More flags for the compiler.

    Raises:
        NotFound: There is no C compiler.
        BudError: It refuses a source; with its own words.
    """
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None:
        raise NotFound(
            "This benchmark needs a C compiler.",
            value=compiler,
            remedy="Install one (apt-get install gcc libc6-dev), or name yours in CC.",
        )
    for name in (MOCK_BACKEND, LOAD):
        command = (compiler, "-std=c11", "-O2", *flags, "-o", folder / name, SOURCES / f"{name}.c")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BudError(f"{compiler} could not compile {name}.c:\n{done.stderr[-2000:]}")
