"""What callers see of prices."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict

THIS_MACHINE = "this-machine"


class TokenPrice(BaseModel):
    """USD per million tokens of one model name (a deployment's name) of a project.

    A field that is None is not set; a cached token without a price of its own costs what an
    input token costs.
    """

    model_config = ConfigDict(frozen=True, from_attributes=True, protected_namespaces=())

    id: str
    project_id: str
    model: str
    input_usd_per_million_tokens: float | None
    output_usd_per_million_tokens: float | None
    cached_usd_per_million_tokens: float | None
    valid_from: datetime
    set_by_name: str

    @property
    def is_set(self) -> bool:
        """Whether this row gives a price (or takes one back)."""
        return self.input_usd_per_million_tokens is not None

    def cost_usd(
        self, input_tokens: int, output_tokens: int, cached_tokens: int = 0
    ) -> float | None:
        """What a request costs in USD, as the gateway counts it; None when a price is missing.

        `cached_tokens` are those of the `input_tokens` that the server had in its cache.
        """
        input_price = self.input_usd_per_million_tokens
        output_price = self.output_usd_per_million_tokens
        cached_price = self.cached_usd_per_million_tokens
        if input_price is None or (output_price is None and output_tokens):
            return None
        total = (
            (input_tokens - cached_tokens) * input_price
            + cached_tokens * (input_price if cached_price is None else cached_price)
            + output_tokens * (output_price or 0.0)
        )
        return total / 1e6


class MachinePrice(BaseModel):
    """USD per hour of a machine, with what it was computed from; None is "not set"."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    id: str
    cluster_id: str
    usd_per_hour: float | None
    watts: float | None
    usd_per_kwh: float | None
    purchase_usd: float | None
    lifetime_hours: float | None
    valid_from: datetime
    set_by_name: str


class PriceSpan(BaseModel):
    """A time in which a machine had one price; `end_unix_s` is exclusive."""

    model_config = ConfigDict(frozen=True)

    cluster_id: str
    start_unix_s: float
    end_unix_s: float
    usd_per_hour: float
