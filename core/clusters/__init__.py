"""Clusters: the machines that deployments run on."""
