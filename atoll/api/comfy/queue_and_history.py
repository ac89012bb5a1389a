"""/queue, /history and /interrupt: what waits, what runs and what ended, straight from the job store."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, Response

from atoll.api.comfy.job_record import JobRecord
from atoll.api.comfy.reply import GET, ComfyRoute, Json, RawBody, as_count, parse_object, to_json
from atoll.api.comfy.state import ComfyDoor, Door
from atoll.api.request_scope import Services
from atoll.api.services import StudioServices
from atoll.errors import NotFound
from atoll.jobs.job import JobHead, JobState

router = APIRouter(route_class=ComfyRoute)

MOST_ENTRIES = 10_000  # of the history, as in ComfyUI
ENTRIES_UNASKED = 100  # where a client asks for "all", as some do ten times a second
MOST_WAITING = 10_000


@router.api_route("/queue", methods=GET)
def get_queue(services: Services, door: Door) -> Json:
    return Json(
        {
            "queue_running": _entries(services, door, JobState.RUNNING),
            "queue_pending": _entries(services, door, JobState.QUEUED),
        }
    )


def _entries(services: StudioServices, door: ComfyDoor, state: JobState) -> list[list[Any]]:
    """In the order in which they run."""
    jobs = services.jobs(states={state}, limit=MOST_WAITING)
    jobs.sort(key=lambda job: (-job.priority, job.number))
    return [door.records.entry_in_queue(job) for job in jobs]


@router.post("/queue")
def change_queue(services: Services, body: RawBody) -> Response:
    """`{clear: true}` or `{delete: [ids]}`: what waits is cancelled; what runs goes on."""
    request = parse_object(body)
    waiting = {head.job_id for head in services.job_heads(states={JobState.QUEUED}, limit=MOST_WAITING)}
    for job_id in waiting if request.get("clear") else waiting & set(_names(request.get("delete"))):
        services.cancel(job_id)
    return Response()


@router.api_route("/history", methods=GET)
def get_history(services: Services, door: Door, max_items: str | None = None, offset: str | None = None) -> Response:
    """Ended jobs, oldest first: the newest `max_items`, or as many from `offset` on."""
    heads = _shown_heads(services, door)
    count, start = as_count(max_items, "max_items"), as_count(offset, "offset")
    if start is None:
        start = max(0, len(heads) - (ENTRIES_UNASKED if count is None else count))
    chosen = heads[start:] if count is None else heads[start : start + count]
    return _history([door.records.record(head.job_id) for head in chosen])


@router.api_route("/history/{prompt_id}", methods=GET)
def get_history_of(door: Door, prompt_id: str) -> Response:
    """`{}` for what has not ended, or is not known."""
    try:
        record = door.records.ended_record(prompt_id)
    except NotFound:
        record = None
    return _history([record] if record is not None and door.cleared.shows(record.head()) else [])


@router.post("/history")
def change_history(services: Services, door: Door, body: RawBody) -> Response:
    """`{clear: true}` or `{delete: [ids]}`: no longer listed here. Atoll keeps the jobs and their pictures."""
    request = parse_object(body)
    if request.get("clear"):
        door.cleared.clear()
    if names := set(_names(request.get("delete"))):
        door.cleared.delete({head.job_id for head in _shown_heads(services, door)} & names)
    return Response()


@router.post("/interrupt")
def interrupt(services: Services, body: RawBody) -> Response:
    """Stop the job of `prompt_id` if it runs; without one, whatever runs."""
    wanted = parse_object(body).get("prompt_id")
    for head in services.job_heads(states={JobState.RUNNING}, limit=MOST_WAITING):
        if wanted is None or head.job_id == wanted:
            services.cancel(head.job_id)
    return Response()


def _history(records: Iterable[JobRecord]) -> Response:
    """A JSON object of entries by id, put together from what is encoded already."""
    entries = (to_json(record.job.job_id) + b":" + record.history_json for record in records)
    return Response(b"{" + b",".join(entries) + b"}", media_type="application/json")


def _shown_heads(services: StudioServices, door: ComfyDoor) -> list[JobHead]:
    """Of the jobs in the history, oldest first."""
    ended = {state for state in JobState if state.is_terminal}
    heads = services.job_heads(states=ended, limit=MOST_ENTRIES)
    return [head for head in reversed(heads) if door.cleared.shows(head)]


def _names(value: object) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []
