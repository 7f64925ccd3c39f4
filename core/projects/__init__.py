"""Projects: what keeps the work of one team from that of another."""
