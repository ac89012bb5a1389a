"""/jobs: the newer list from which current frontends read queue and history alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter

from atoll.api.comfy.job_record import JOB_STATUS, JobRecord
from atoll.api.comfy.queue_and_history import MOST_ENTRIES
from atoll.api.comfy.reply import GET, ComfyRoute, Json, RawBody, as_count, error_body, parse_object
from atoll.api.comfy.state import ComfyDoor, Door
from atoll.api.request_scope import Services
from atoll.api.services import StudioServices
from atoll.errors import InvalidRequest, NotFound
from atoll.jobs.job import JobHead, JobState

router = APIRouter(route_class=ComfyRoute)

MOST_SEARCHED = 1_000  # newest jobs that are opened to find those of one workflow
SORTED_BY = ("created_at", "execution_duration")
STATE_OF_STATUS = {status: state for state, status in JOB_STATUS.items()}


@router.api_route("/jobs", methods=GET)
def list_jobs(
    services: Services,
    door: Door,
    status: str | None = None,
    workflow_id: str | None = None,
    sort_by: str = "created_at",
    sort_order: str = "desc",
    limit: str | None = None,
    offset: str | None = None,
) -> Json:
    """Jobs of some states (comma between them) and of one workflow, a page at a time."""
    if sort_by not in SORTED_BY or sort_order not in ("asc", "desc"):
        raise InvalidRequest(
            f"sort_by {sort_by!r:.80}, sort_order {sort_order!r:.80}: known are {', '.join(SORTED_BY)}; asc and desc."
        )
    heads = [head for head in services.job_heads(states=_states(status), limit=MOST_ENTRIES) if _is_shown(door, head)]
    if workflow_id:
        heads = [head for head in heads[:MOST_SEARCHED] if _workflow_id(door, head) == workflow_id]
    if sort_by == "execution_duration":
        heads.sort(key=_duration, reverse=sort_order == "desc")
    elif sort_order == "asc":
        heads.reverse()
    first, count = as_count(offset, "offset") or 0, as_count(limit, "limit")
    page = heads[first:] if count is None else heads[first : first + count]
    pagination = {
        "offset": first,
        "limit": count,
        "total": len(heads),
        "has_more": first + len(page) < len(heads),
    }
    jobs = [record.job_entry() for record in _records(door, page)]
    return Json({"jobs": jobs, "pagination": pagination})


@router.api_route("/jobs/{job_id}", methods=GET)
def get_job(door: Door, job_id: str) -> Json:
    try:
        return Json(door.records.record(job_id).job_detail())
    except NotFound as error:
        return Json(error_body("job_not_found", error.message), 404)


@router.post("/jobs/cancel")
def cancel_jobs(services: Services, body: RawBody) -> Json:
    """Stop each of `{job_ids: [...]}` that waits or runs."""
    job_ids = parse_object(body).get("job_ids")
    if not isinstance(job_ids, list) or not all(isinstance(job_id, str) for job_id in job_ids):
        raise InvalidRequest('job_ids is missing. Send {"job_ids": ["...", ...]}.')
    cancelled = [_cancel(services, job_id) for job_id in job_ids]
    return Json({"cancelled": any(cancelled)})


@router.post("/jobs/{job_id}/cancel")
def cancel_job(services: Services, job_id: str) -> Json:
    """`cancelled`: whether there was something to stop."""
    return Json({"cancelled": _cancel(services, job_id)})


def _cancel(services: StudioServices, job_id: str) -> bool:
    try:
        if services.job(job_id).state.is_terminal:
            return False
        services.cancel(job_id)
    except NotFound:
        return False
    return True


def _states(status: str | None) -> set[JobState] | None:
    """Raises: InvalidRequest for a status that there is not."""
    names = [name.strip() for name in (status or "").split(",") if name.strip()]
    unknown = [name for name in names if name not in STATE_OF_STATUS]
    if unknown:
        raise InvalidRequest(f"status {unknown[0]!r:.80} is not known. Known: {', '.join(STATE_OF_STATUS)}.")
    return {STATE_OF_STATUS[name] for name in names} or None


def _is_shown(door: ComfyDoor, head: JobHead) -> bool:
    return not door.cleared.hides(head)


def _workflow_id(door: ComfyDoor, head: JobHead) -> Any:
    return next((record.job_entry()["workflow_id"] for record in _records(door, [head])), None)


def _records(door: ComfyDoor, heads: list[JobHead]) -> Iterator[JobRecord]:
    for head in heads:
        yield door.records.record(head.job_id)


def _duration(head: JobHead) -> float:
    """Seconds that it ran; 0 before its end."""
    if head.started_at is None or head.finished_at is None:
        return 0.0
    return head.finished_at - head.started_at
