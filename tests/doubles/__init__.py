"""Stand-ins for the edge of the world, written from public wire formats."""
