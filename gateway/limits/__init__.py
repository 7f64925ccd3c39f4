"""Limits and budgets: held before a request, settled after it, over all workers and hosts."""
