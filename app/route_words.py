"""What a route does, in words: the same on pages and on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.routing.schemas import Rules


def extras(of: Rules) -> list[str]:
    """What a route does beside the usual, in a few words each."""
    found = []
    if of.hedge != "off":
        late = "p95" if of.hedge_after_ms is None else f"{of.hedge_after_ms:g} ms"
        found.append(f"hedged after {late}, {of.hedge_percent:g}% at most")
    if of.shadow:
        found.append(f"{of.shadow_percent:g}% copied to {of.shadow}")
    if not of.cached:
        found.append("answers not kept")
    return found
