"""Guardrails at work: what is asked and answered is looked at, masked or refused.

`rules` makes a project's rules ready, `guard` takes one request through them, `texts` finds what
there is to read in it, `answers` does the same for what comes back, also while it comes.
"""
