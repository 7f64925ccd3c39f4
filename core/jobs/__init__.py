"""Durable jobs: anything that takes over a second, step by step, on DBOS.

A job is a row before it is anything else: any process may start one, the app's dispatcher runs
it, and every page reads the same rows while it runs and afterwards.
"""

from core.jobs.services import cancel, enqueue, find_active, get, list_jobs, logs, retry, start
from core.jobs.workflows import JobCancelled, Progress, Run, Step, Workflow, workflow

__all__ = [
    "JobCancelled",
    "Progress",
    "Run",
    "Step",
    "Workflow",
    "cancel",
    "enqueue",
    "find_active",
    "get",
    "list_jobs",
    "logs",
    "retry",
    "start",
    "workflow",
]
