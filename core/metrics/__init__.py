"""Metrics: every request of the gateway, ingested exactly once, and what it took and cost."""
