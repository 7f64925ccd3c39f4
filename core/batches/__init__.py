"""Batches: many requests in a file, asked one by one when nobody else needs the models."""
