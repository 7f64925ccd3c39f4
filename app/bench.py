"""`bud bench NAME`: runs `tests/benchmarks/NAME.py`, a module with `run(json: bool)`."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

from core.kernel.errors import NotFound
from core.kernel.settings import ROOT

FOLDER = ROOT / "tests" / "benchmarks"


def available(folder: Path = FOLDER) -> dict[str, str]:
    """Every benchmark with the first line of its docstring."""
    found = {}
    for path in sorted(folder.glob("*.py")):
        tree = ast.parse(path.read_text())
        functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        if "run" in functions:
            found[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


def run(name: str, *, as_json: bool) -> None:
    """Run one benchmark; it prints its own result. NotFound with the names there are."""
    known = available()
    if name not in known:
        names = ", ".join(known) or "none yet"
        raise NotFound(f"There is no benchmark {name!r}.", remedy=f"There are: {names}.")
    importlib.import_module(f"tests.benchmarks.{name}").run(json=as_json)
