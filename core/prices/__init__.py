"""Prices: what tokens and machine hours cost, dated, and "not set" until somebody says so."""
