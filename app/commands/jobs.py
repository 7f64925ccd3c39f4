"""`bud jobs`: what runs and what ran."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from app import formats
from app.commands import context, follow, output
from app.commands.context import DEFAULT_PROJECT, Project
from app.commands.output import Json

group = typer.Typer(help="Jobs: list, show, logs, wait, cancel, retry.", no_args_is_help=True)

_JobId = Annotated[str, typer.Argument(help="Job id.", metavar="JOB")]


@group.command("list")
def list_jobs(
    active: Annotated[
        bool, typer.Option("--active", help="Only those that have not ended.")
    ] = False,
    limit: Annotated[int, typer.Option(help="How many.")] = 20,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """List the newest jobs of a project."""
    from core import jobs

    found = jobs.list_jobs(
        context.operator(), context.project_id(project), active_only=active, limit=limit
    )
    rows = [
        (job.id, job.title, job.state, formats.ago(job.created_at), job.created_by_name)
        for job in found
    ]
    text = output.table(("id", "title", "state", "started", "by"), rows, empty="No jobs yet.")
    output.show(found, text, as_json=as_json)


@group.command("show")
def show_job(job: _JobId, as_json: Json = False) -> None:
    """Show a job with its steps."""
    from core import jobs

    view = jobs.get(context.operator(), job)
    lines = [f"{view.title}: {view.state}", follow.steps_text(view)]
    if view.eta_s is not None:
        lines.append(f"About {formats.duration(view.eta_s)} left.")
    if view.error:
        lines.append(f"Error: {view.error}\nDo this: {view.remedy or 'see its logs'}")
    output.show(view, "\n".join(lines), as_json=as_json)


@group.command()
def logs(
    job: _JobId,
    follow_on: Annotated[bool, typer.Option("--follow", "-f", help="Until the job ends.")] = False,
    as_json: Json = False,
) -> None:
    """Show the log of a job."""
    from core import jobs

    actor, after = context.operator(), 0
    while True:
        ended = not jobs.get(actor, job).is_active
        lines = jobs.logs(actor, job, after=after)
        for line in lines:
            output.show_line(line, as_json=as_json, text=f"{line.at:%H:%M:%S} {line.line}")
            after = line.id
        if not lines and (ended or not follow_on):
            return
        if not lines:
            time.sleep(0.5)


@group.command()
def wait(job: _JobId, as_json: Json = False) -> None:
    """Wait for a job and show its steps; fails when it fails."""
    view = follow.job(context.operator(), job)
    output.show(view, f"{view.title}: {view.state}.", as_json=as_json)


@group.command()
def cancel(job: _JobId, as_json: Json = False) -> None:
    """Ask a job to stop."""
    from core import jobs

    jobs.cancel(context.operator(), job)
    output.show({"cancelled": job}, f"Asked {job} to stop.", as_json=as_json)


@group.command()
def retry(job: _JobId, as_json: Json = False) -> None:
    """Start a failed or cancelled job again."""
    from core import jobs

    new = jobs.retry(context.operator(), job)
    output.show({"job_id": new}, f"Started again as {new}.", as_json=as_json)
