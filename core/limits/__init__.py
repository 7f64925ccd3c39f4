"""What keys, users, projects and models may use at most."""
