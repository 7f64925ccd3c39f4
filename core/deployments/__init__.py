"""Deployments: a model that answers callers under a name, on one or more replicas.

`model_server` and `server_records` are imported by light processes: keep this module empty.
"""
