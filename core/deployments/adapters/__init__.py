"""Outside systems that deployments use."""
