"""What guardrails ask outside of Bud."""
