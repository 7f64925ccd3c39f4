"""The one place that composes the route table and publishes it."""
