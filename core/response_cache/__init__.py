"""Projects whose answers are kept by the gateway, and given again: docs/cache.md."""
