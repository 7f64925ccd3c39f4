"""Rules of the house that import-linter cannot see: who may use which file of a domain.

The layers themselves are import-linter's (`lint-imports`, in `bud test`).
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from core.kernel.actor import _MEMBER_PERMISSIONS

ROOT = Path(__file__).resolve().parents[3]
INSIDE = {"models", "crud", "adapters"}
CLIENTS = {
    *("ansible_runner", "boto3", "botocore", "duckdb", "httpx", "huggingface_hub", "keycloak"),
    *("kubernetes", "requests", "xllamacpp"),
}
# It is the outside system: the process that serves a model.
CLIENTS_ALLOWED = {"core/deployments/model_server.py"}


def imports(*folders: str) -> Iterator[tuple[str, list[str]]]:
    """Each import of each file: the file, and the words of the imported name."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for name in imported(path):
                yield str(path.relative_to(ROOT)), name.split(".")


@cache
def imported(path: Path) -> list[str]:
    """The names that a file imports."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return names


def test_a_domain_uses_no_other_domains_tables_queries_or_adapters() -> None:
    wrong = [
        f"{file} imports {'.'.join(words)}"
        for file, words in imports("core")
        if words[0] == "core"
        and len(words) > 2
        and words[1] != Path(file).parts[1]
        and words[2] in INSIDE
        and not file.startswith("core/kernel/migrations/")
    ]
    assert wrong == []


def test_pages_and_app_stay_above_the_services() -> None:
    # The route of the metrics store is the app's own half of a core adapter.
    allowed = {"app/internal.py"}
    wrong = [
        f"{file} imports {'.'.join(words)}"
        for file, words in imports("app", "pages")
        if file not in allowed
        and ((words[0] == "core" and len(words) > 2 and words[2] in INSIDE) or words[0] == "dbos")
    ]
    assert wrong == []


def test_pages_know_no_database_and_no_network() -> None:
    wrong = [
        f"{file} imports {'.'.join(words)}"
        for file, words in imports("pages")
        if words[0] in {"sqlalchemy", "sqlite3", *CLIENTS}
        or words[:3] == ["core", "kernel", "database"]
    ]
    assert wrong == []


def test_only_adapters_import_an_outside_systems_client() -> None:
    wrong = [
        f"{file} imports {words[0]}"
        for file, words in imports("core", "app", "pages")
        if words[0] in CLIENTS and "/adapters/" not in file and file not in CLIENTS_ALLOWED
    ]
    assert wrong == []


def test_only_the_kernel_makes_engines() -> None:
    files = [
        file for file, words in imports("core", "app", "pages") if words[-1] == "create_engine"
    ]
    assert set(files) == {"core/kernel/database.py"}


def test_every_domain_has_its_place_in_the_layers() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(c["layers"] for c in settings["contracts"] if c["type"] == "layers")
    domains = {path.parent.name for path in (ROOT / "core").glob("*/__init__.py")}
    assert domains == set(layers)


def test_the_gateway_loads_nothing_heavy() -> None:
    # The last ones are for those who use them: credentials, access tokens, limits over hosts.
    heavy = (
        *("sqlalchemy", "pandas", "pydantic", "streamlit", "dbos", "duckdb", "numpy", "httpx"),
        *("cryptography", "jwt", "valkey"),
    )
    code = f"import gateway.__main__, sys; print([n for n in {heavy!r} if n in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def test_every_permission_of_a_member_is_asked_for_by_a_service() -> None:
    asked = {
        node.value
        for path in (ROOT / "core").rglob("*.py")
        if path.name != "actor.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert _MEMBER_PERMISSIONS - asked == set()


def test_types_are_checked_in_every_package() -> None:
    checked = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["packages"]
    assert sorted(checked) == ["app", "core", "gateway"]
