"""People: tenants, users, memberships, log-in sessions and API keys."""
