"""Captured prompts and answers: which projects keep them, for how long, and what they kept."""
