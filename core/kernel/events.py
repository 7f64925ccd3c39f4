"""What a lower domain must tell a higher one, without knowing it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

_subscribers: dict[str, list[Callable[..., None]]] = defaultdict(list)


def subscribe(event: str, handler: Callable[..., None]) -> None:
    """Call `handler(**details)` on each `publish(event, …)`; subscribing twice does nothing."""
    if handler not in _subscribers[event]:
        _subscribers[event].append(handler)


def publish(event: str, **details: object) -> None:
    """Tell every subscriber, in order, in this thread, after the transaction that caused it."""
    for handler in list(_subscribers[event]):
        handler(**details)
