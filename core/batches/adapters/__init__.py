"""Outside systems of batches: the gateway."""
