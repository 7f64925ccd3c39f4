"""Boards that compare models, and one answer made of them."""
