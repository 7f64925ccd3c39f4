"""Outside systems that models come from."""
