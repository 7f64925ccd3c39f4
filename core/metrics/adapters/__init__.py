"""Stores of metrics: DuckDB in the data folder, and the running app asked over loopback."""
