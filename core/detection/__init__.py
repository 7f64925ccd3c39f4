"""Finds things in texts: personal data, secrets, words, signs of prompt injection.

No domain and no I/O: the gateway runs it on requests, `core.guardrails` where somebody tries a
text.
"""
