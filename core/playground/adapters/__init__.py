"""Adapters of the Playground: the gateway's OpenAI API."""
