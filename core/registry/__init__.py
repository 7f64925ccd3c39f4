"""The model registry: which models there are, and what their files say of themselves."""
