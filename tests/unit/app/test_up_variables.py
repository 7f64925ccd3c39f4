"""What `bud up` hands to the gateway: by variables, checked before anything starts."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from app.commands.up import _for_gateway
from core.kernel.errors import InvalidInput
from core.kernel.settings import Settings


def test_what_stands_in_env_files_reaches_the_gateway_too() -> None:
    given = Settings(
        trusted_proxies="10.0.0.0/8",
        otlp_endpoint="http://localhost:4318",
        otlp_headers=SecretStr("x-token=s3cret"),
        trace_ratio=0.5,
    )
    variables = _for_gateway(given)
    assert variables["BUD_TRUSTED_PROXIES"] == "10.0.0.0/8"
    assert variables["BUD_OTLP_HEADERS"] == "x-token=s3cret"
    assert variables["BUD_TRACE_RATIO"] == "0.5"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("trusted_proxies", "10.0.0.1/8"),
        ("cors_origins", "https://app.example/path"),
        ("jwt_issuers", "[{}]"),
        ("otlp_endpoint", "localhost:4318"),
        # What cannot be sent would stand in the log of each attempt.
        ("otlp_endpoint", "http://ada:s3cret@localhost:4318"),
        ("otlp_headers", SecretStr("s3cret")),
        ("otlp_headers", SecretStr("x-token=s3cret…")),
    ],
)
def test_what_would_keep_the_gateway_from_starting_is_told_first(field: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=f"BUD_{field.upper()}") as refused:
        _for_gateway(Settings.model_validate({field: value}))
    assert "s3cret" not in str(refused.value)
