"""One file a public source that the catalogue is refreshed from: where it is, how it is read."""

from core.registry.adapters.feeds import hub, litellm, models_dev
from core.registry.adapters.feeds.reading import Feed, Watch

FEEDS: dict[str, Feed] = {feed.name: feed for feed in (hub.FEED, models_dev.FEED, litellm.FEED)}

__all__ = ["FEEDS", "Feed", "Watch"]
