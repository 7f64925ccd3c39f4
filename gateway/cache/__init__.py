"""Answers that a project keeps, and gives again to the same request: docs/cache.md."""
