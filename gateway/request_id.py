"""The id of a request: in its answer, its fact, its traces and the replica's log."""

from __future__ import annotations

import re

from core.kernel import ids
from gateway.http_request import Headers

_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{7,127}").fullmatch


def request_id(headers: Headers) -> str:
    """The caller's own id, or a new one."""
    return headers.once(_given) or ids.new_id("req")


def _given(headers: Headers) -> str:
    """The caller's own id, when it is one that can stand in logs and headers; else ""."""
    given = headers.get("X-Request-Id")
    return given if given and _REQUEST_ID(given) else ""
