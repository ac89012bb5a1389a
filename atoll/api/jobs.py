"""/api/v1/jobs and /api/v1/images: make jobs, look at them, cancel them, follow their events."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ConfigDict, Field

from atoll.api.artifacts import ArtifactView
from atoll.api.errors import ERROR_REPLIES, error_reply
from atoll.api.image_request import ImageRequest
from atoll.api.request_scope import Services
from atoll.api.services import StudioServices, request_of
from atoll.errors import AtollError
from atoll.jobs.events import Event
from atoll.jobs.job import Job, JobState

router = APIRouter(tags=["jobs"], responses=ERROR_REPLIES)

SEND_WITHIN_S = 20.0  # a listener that takes nothing for so long has gone

JobId = Annotated[str, Path(min_length=1, max_length=64)]
Priority = Annotated[int, Field(ge=-1000, le=1000, description="Higher runs first.")]


class GraphJob(BaseModel):
    """A workflow in ComfyUI's API form, or as its editor saves it. `job_id` makes sending it twice harmless."""

    model_config = ConfigDict(extra="forbid")

    graph: dict[str, Any]
    priority: Priority = 0
    extra: dict[str, Any] | None = Field(None, description='Kept with the job and its pictures; may hold "workflow".')
    job_id: str | None = Field(None, description="1 to 64 letters, digits, '-' and '_'; default: one is made.")


class ImageJob(ImageRequest):
    """A picture that is asked for, and how urgently."""

    priority: Priority = 0


class FailureView(BaseModel):
    code: str
    message: str
    node_id: str | None


class JobSummary(BaseModel):
    """Times are seconds since 1970."""

    job_id: str
    number: int
    state: JobState
    owner: str
    priority: int
    attempts: int
    cancel_requested: bool
    submitted_at: float
    started_at: float | None
    finished_at: float | None
    failure: FailureView | None


class JobDetail(JobSummary):
    """queue_position: how many jobs run before this one; null if it is not queued."""

    queue_position: int | None
    graph: dict[str, Any]
    request: ImageRequest | None = Field(description="What the graph was made from, with the real seed.")
    artifacts: list[ArtifactView]


def job_summary(job: Job) -> JobSummary:
    return JobSummary.model_validate(_fields(job))


def job_detail(services: StudioServices, job: Job) -> JobDetail:
    artifacts = services.artifacts(job_id=job.job_id, kind=None, limit=500)
    return JobDetail.model_validate(
        {
            **_fields(job),
            "queue_position": services.queue_position(job.job_id),
            "graph": job.graph,
            "request": request_of(job),
            "artifacts": [ArtifactView.of(entry) for entry in artifacts],
        }
    )


def event_message(event: Event) -> dict[str, Any]:
    return {"seq": event.seq, "job_id": event.job_id, "kind": event.kind, "time": event.time, "data": event.data}


def _fields(job: Job) -> dict[str, Any]:
    return {**vars(job), "failure": vars(job.failure) if job.failure else None}


@router.post("/images", status_code=201)
def make_image(services: Services, request: ImageJob) -> JobDetail:
    """Queue a picture. It is stored for good when this answers."""
    image_request = ImageRequest.model_validate(request.model_dump(exclude={"priority"}))
    return job_detail(services, services.submit_image(image_request, priority=request.priority))


@router.post("/jobs", status_code=201)
def make_job(services: Services, request: GraphJob) -> JobDetail:
    """Queue a workflow. It is stored for good when this answers."""
    job = services.submit_graph(request.graph, priority=request.priority, extra=request.extra, job_id=request.job_id)
    return job_detail(services, job)


@router.get("/jobs")
def list_jobs(
    services: Services,
    state: Annotated[list[JobState] | None, Query(description="May be given several times.")] = None,
    before: Annotated[int | None, Query(ge=0, description="The `number` of the last job seen.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> list[JobSummary]:
    """Newest first."""
    return [job_summary(job) for job in services.jobs(states=state, before=before, limit=limit)]


@router.get("/jobs/{job_id}")
def get_job(services: Services, job_id: JobId) -> JobDetail:
    return job_detail(services, services.job(job_id))


@router.post("/jobs/{job_id}/cancel")
def cancel_job(services: Services, job_id: JobId) -> JobSummary:
    """Stop a job: at once if it is queued, at its next step if it runs. An ended one stays as it is."""
    return job_summary(services.cancel(job_id))


@router.websocket("/jobs/{job_id}/events")
async def follow_job(socket: WebSocket, services: Services, job_id: str, after: int = 0) -> None:
    """One JSON text per event, from number `after` on; closes after the job's last one."""
    await _send_events(socket, services, job_id, after)


@router.websocket("/events")
async def follow_all(socket: WebSocket, services: Services, after: int | None = None) -> None:
    """Events of all jobs; without `after` only those from now on."""
    start = await asyncio.to_thread(services.last_event_number) if after is None else after
    await _send_events(socket, services, None, start)


async def _send_events(socket: WebSocket, services: StudioServices, job_id: str | None, after: int) -> None:
    """Send at the listener's own pace until the end, or until they are gone."""
    await socket.accept()

    async def send() -> None:
        try:
            async with aclosing(services.events(job_id, after=after)) as events:  # type: ignore[type-var]
                async for event in events:
                    await asyncio.wait_for(socket.send_json(event_message(event)), SEND_WITHIN_S)
        except AtollError as error:
            await socket.send_json(error_reply(error))
            await socket.close(1008, error.code)
        else:
            await socket.close()

    sender, gone = asyncio.create_task(send()), asyncio.create_task(_until_gone(socket))
    done, pending = await asyncio.wait((sender, gone), return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    with suppress(WebSocketDisconnect, TimeoutError, RuntimeError):  # they left while something was on its way
        for task in done:
            task.result()


async def _until_gone(socket: WebSocket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass
