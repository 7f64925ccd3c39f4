"""The metrics store of the running app, asked over loopback by other processes.

The app writes `run/app_token`: JSON with its address and a secret, readable by the owner only.
Each question is one `POST /internal/metrics` with the method's name and its arguments as JSON;
types on both sides come from the protocol `MetricsStore`.
"""

from __future__ import annotations

import hmac
import os
import secrets
import typing
import urllib.error
import urllib.request
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from pydantic import TypeAdapter, ValidationError

from core.kernel.errors import InvalidInput, Unavailable
from core.kernel.settings import settings
from core.metrics.schemas import (
    CacheNumbers,
    ErrorCount,
    ErrorPoint,
    GroupBy,
    GroupNumbers,
    GuardrailCount,
    MachineTime,
    Numbers,
    RequestRow,
    Scope,
    SeriesPoint,
    Window,
)
from core.metrics.store import MetricsStore
from core.prices.schemas import PriceSpan

PATH = "/internal/metrics"
TOKEN_HEADER = "X-Bud-App-Token"  # noqa: S105 (the header's name)
_TIMEOUT_S = 30.0

_METHODS = frozenset(name for name in vars(MetricsStore) if not name.startswith("_"))


class AppAddress(msgspec.Struct, frozen=True):
    """Where the app listens on this machine, and the secret it asks for."""

    url: str
    token: str


def token_path(data_dir: Path) -> Path:
    """The file with the app's address and secret."""
    return data_dir / "run" / "app_token"


def publish_address(data_dir: Path, url: str) -> AppAddress:
    """Write a fresh secret for other processes of the same user; the app does, at its start."""
    address = AppAddress(url=url, token=secrets.token_urlsafe(32))
    path = token_path(data_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    being_written = path.with_suffix(".part")
    being_written.unlink(missing_ok=True)
    descriptor = os.open(being_written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(address))
    being_written.rename(path)
    return address


def withdraw_address(data_dir: Path) -> None:
    """Remove the file; the app does, at a clean stop."""
    token_path(data_dir).unlink(missing_ok=True)


def token_matches(given: str, expected: str) -> bool:
    """Compare in constant time; an empty expectation matches nothing."""
    return bool(expected) and hmac.compare_digest(given.encode(), expected.encode())


def connect() -> AppStore | None:
    """The store of the running app; None when none answers."""
    try:
        content = token_path(settings().data_dir).read_bytes()
        found = AppStore(msgspec.json.decode(content, type=AppAddress))
        found.last_ingested_at()
    except (FileNotFoundError, msgspec.DecodeError, Unavailable):
        return None
    return found


def answer(metrics: MetricsStore, body: bytes) -> bytes:
    """Answer one question put by an `AppStore`; the result as JSON.

    Raises:
        InvalidInput: No such method, or arguments that do not fit it.
    """
    try:
        question = msgspec.json.decode(body, type=dict[str, Any])
        name, given = question["method"], question["arguments"]
        if name not in _METHODS:
            raise InvalidInput("There is no such question.", value=name)
        types, returns = _types(name)
        if given.keys() != types.keys():
            raise InvalidInput(f"{name} takes {', '.join(types) or 'no arguments'}.")
        arguments = {key: types[key].validate_python(value) for key, value in given.items()}
        method = getattr(metrics, name)
    except (msgspec.DecodeError, KeyError, AttributeError, TypeError, ValidationError) as error:
        raise InvalidInput(f"The question is malformed: {error}") from error
    return returns.dump_json(method(**arguments))


@cache
def _types(name: str) -> tuple[dict[str, TypeAdapter[Any]], TypeAdapter[Any]]:
    hints = typing.get_type_hints(getattr(MetricsStore, name))
    returns = TypeAdapter(hints.pop("return"))
    return {key: TypeAdapter(hint) for key, hint in hints.items()}, returns


class AppStore:
    """`MetricsStore` over loopback HTTP."""

    def __init__(self, address: AppAddress) -> None:
        """Nothing is sent yet."""
        self._address = address

    def _ask(self, name: str, **arguments: Any) -> Any:
        types, returns = _types(name)
        encoded = {
            key: types[key].dump_python(value, mode="json") for key, value in arguments.items()
        }
        request = urllib.request.Request(  # noqa: S310 (http on loopback, from our own file)
            self._address.url + PATH,
            data=msgspec.json.encode({"method": name, "arguments": encoded}),
            headers={TOKEN_HEADER: self._address.token, "Content-Type": "application/json"},
        )
        try:
            # Never through a proxy: it is this machine.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(request, timeout=_TIMEOUT_S) as response:
                return returns.validate_json(response.read())
        except (OSError, ValidationError) as error:
            raise Unavailable(
                f"The dashboard does not answer questions about metrics: {error}",
                remedy="Look into logs/app.log in the data folder.",
            ) from error

    def summary(self, scope: Scope) -> Numbers:
        """See `MetricsStore`."""
        return typing.cast(Numbers, self._ask("summary", scope=scope))

    def series(
        self, scope: Scope, group_by: GroupBy, bucket_s: int, groups: list[str]
    ) -> list[SeriesPoint]:
        """See `MetricsStore`."""
        found = self._ask(
            "series", scope=scope, group_by=group_by, bucket_s=bucket_s, groups=groups
        )
        return typing.cast(list[SeriesPoint], found)

    def groups(self, scope: Scope, group_by: GroupBy, limit: int) -> list[GroupNumbers]:
        """See `MetricsStore`."""
        found = self._ask("groups", scope=scope, group_by=group_by, limit=limit)
        return typing.cast(list[GroupNumbers], found)

    def errors(self, scope: Scope) -> list[ErrorCount]:
        """See `MetricsStore`."""
        return typing.cast(list[ErrorCount], self._ask("errors", scope=scope))

    def errors_over_time(self, scope: Scope, bucket_s: int) -> list[ErrorPoint]:
        """See `MetricsStore`."""
        found = self._ask("errors_over_time", scope=scope, bucket_s=bucket_s)
        return typing.cast(list[ErrorPoint], found)

    def guardrails(self, scope: Scope) -> list[GuardrailCount]:
        """See `MetricsStore`."""
        return typing.cast(list[GuardrailCount], self._ask("guardrails", scope=scope))

    def cache(self, scope: Scope) -> CacheNumbers:
        """See `MetricsStore`."""
        return typing.cast(CacheNumbers, self._ask("cache", scope=scope))

    def requests(self, scope: Scope, limit: int) -> list[RequestRow]:
        """See `MetricsStore`."""
        return typing.cast(list[RequestRow], self._ask("requests", scope=scope, limit=limit))

    def request(
        self, project_id: str, request_id: str, prices: list[PriceSpan]
    ) -> RequestRow | None:
        """See `MetricsStore`."""
        found = self._ask("request", project_id=project_id, request_id=request_id, prices=prices)
        return typing.cast(RequestRow | None, found)

    def machines(self, window: Window, prices: list[PriceSpan]) -> list[MachineTime]:
        """See `MetricsStore`."""
        found = self._ask("machines", window=window, prices=prices)
        return typing.cast(list[MachineTime], found)

    def last_ingested_at(self) -> datetime | None:
        """See `MetricsStore`."""
        return typing.cast(datetime | None, self._ask("last_ingested_at"))

    def forget_project(self, project_id: str) -> int:
        """See `MetricsStore`."""
        return int(self._ask("forget_project", project_id=project_id))
