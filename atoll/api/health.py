"""/api/v1/health and /api/v1/ready: is the server alive, and would a job be worked on."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel
from starlette.requests import HTTPConnection

from atoll import __version__
from atoll.api.request_scope import Services
from atoll.errors import AtollError
from atoll.jobs.job import JobState

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: Literal["alive"]
    version: str


class Readiness(BaseModel):
    """ready: jobs are taken and worked on. Otherwise `store` and `worker` say in words what is missing."""

    ready: bool
    store: str
    worker: str
    queued: int
    running: int


@router.get("/health")
async def health() -> Health:
    """The server answers; nothing else is asked."""
    return Health(status="alive", version=__version__)


@router.get("/ready", responses={503: {"model": Readiness}})
def ready(services: Services, connection: HTTPConnection, response: Response) -> Readiness:
    """The store answers and a worker is up; 503 otherwise."""
    counts: dict[JobState, int] = {}
    store = "ok"
    try:
        counts = services.store.counts()
    except AtollError as error:
        store = error.message
    executor = connection.app.state.executor
    worker = "no worker was asked for" if executor is None else executor.condition()
    is_ready = store == "ok" and worker == "ok"
    response.status_code = 200 if is_ready else 503
    return Readiness(
        ready=is_ready,
        store=store,
        worker=worker,
        queued=counts.get(JobState.QUEUED, 0),
        running=counts.get(JobState.RUNNING, 0),
    )
