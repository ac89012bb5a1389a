"""`atoll jobs`: what is asked for, how far it is, and how to stop it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.terminal import HomeOption, JsonOption, print_json, telling_errors

if TYPE_CHECKING:
    from pathlib import Path

    from atoll.api.services import StudioServices

app = typer.Typer(help="What was asked for, how far it is, and how to stop it.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(help="As `atoll jobs list` prints it.", show_default=False)]


@app.command("list")
def list_jobs(
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many, newest first.")] = 20,
    state: Annotated[
        list[str] | None, typer.Option(help="queued, running, done, failed or cancelled; repeatable.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    with telling_errors(as_json):
        from atoll.api.jobs import job_summary
        from atoll.api.services import request_of
        from atoll.errors import InvalidRequest
        from atoll.jobs.job import JobState

        try:
            states = [JobState(name) for name in state] if state else None
        except ValueError as error:
            raise InvalidRequest(f"{error}: there is no such state. Known: {', '.join(JobState)}.") from error
        services = _services(home)
        jobs = services.jobs(states=states, limit=limit)
        if as_json:
            print_json({"jobs": [job_summary(job).model_dump(mode="json") for job in jobs]})
            return
        for job in jobs:
            when = datetime.fromtimestamp(job.submitted_at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
            request = request_of(job)
            text = " ".join(request.prompt.split()) if request else f"{len(job.graph)} nodes"
            typer.echo(f"{job.job_id:34}{job.state:11}{when}  {text[:60]}")


@app.command("show")
def show_job(job_id: JobId, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Say everything about one job."""
    with telling_errors(as_json):
        from atoll.api.jobs import job_detail

        services = _services(home)
        detail: dict[str, Any] = job_detail(services, services.job(job_id)).model_dump(mode="json")
        if as_json:
            print_json(detail)
            return
        for name in ("job_id", "state", "priority", "attempts", "queue_position"):
            typer.echo(f"{name:16}{detail[name]}")
        for name, value in (detail["request"] or {}).items():
            typer.echo(f"{name:24}{value}")
        if detail["failure"]:
            typer.echo(f"failure         {detail['failure']['message']}")
        for artifact in detail["artifacts"]:
            typer.echo(str(services.artifact_path(artifact["sha256"])))


@app.command("cancel")
def cancel_job(job_id: JobId, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Stop a job: at once if it is queued, at its next step if it runs."""
    with telling_errors(as_json):
        from atoll.api.jobs import job_summary

        job = _services(home).cancel(job_id)
        if as_json:
            print_json(job_summary(job).model_dump(mode="json"))
        elif job.state.is_terminal:
            typer.echo(f"{job.job_id} is {job.state}.")
        else:
            typer.echo(f"{job.job_id} stops at its next step.")


@app.command("watch")
def watch_job(job_id: JobId, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Follow a job to its end. Ctrl+C only stops watching. With --json: one JSON object per event and line."""
    with telling_errors(as_json):
        import json

        from atoll.api.jobs import event_message
        from atoll.cli.job_watch import EXIT_CODES, Progress, follow, tell_end
        from atoll.cli.pictures import deliver

        services = _services(home)
        services.job(job_id)
        with Progress(quiet=as_json) as progress:
            for event in follow(services, job_id):
                if as_json:
                    print(json.dumps(event_message(event), ensure_ascii=False), flush=True)
                progress.show(event)
        job = services.job(job_id)
        if not as_json:
            tell_end(services, job, deliver(services, job, None), as_json=False)
        raise typer.Exit(EXIT_CODES[job.state])


def _services(home: Path | None) -> StudioServices:
    from atoll.api.services import StudioServices
    from atoll.settings import load_settings

    return StudioServices(load_settings(home=home))
