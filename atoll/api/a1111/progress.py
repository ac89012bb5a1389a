"""GET progress, POST interrupt and skip: of the caller's own request, never of another's."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi import APIRouter

from atoll.api.a1111.generate import cancel_rest
from atoll.api.a1111.in_flight import Ticket
from atoll.api.a1111.requests import ProgressBody
from atoll.api.a1111.scope import A1111Route, Doorway, Poller

router = APIRouter(route_class=A1111Route)


@router.get("/sdapi/v1/progress")
async def progress(door: Doorway, caller: Poller, skip_current_image: bool = False) -> dict[str, Any]:
    """How far the caller's request has come; all zeros when there is none, which clients wait for."""
    ticket = door.in_flight.current(caller.key)
    if ticket is None:
        return {
            "progress": 0.0,
            "eta_relative": 0.0,
            "state": _state(None),
            "current_image": None,
            "textinfo": None,
            "current_task": None,
        }
    return {
        "progress": ticket.progress,
        "eta_relative": ticket.eta_s,
        "state": _state(ticket),
        "current_image": None if skip_current_image else ticket.preview,
        "textinfo": None if ticket.is_running else "Waiting for its turn",
        "current_task": ticket.task_id,
    }


def _state(ticket: Ticket | None) -> dict[str, Any]:
    if ticket is None:
        return {
            "skipped": False, "interrupted": False, "stopping_generation": False, "job": "", "job_count": 0,
            "job_timestamp": "0", "job_no": 0, "sampling_step": 0, "sampling_steps": 0,
        }  # fmt: skip
    return {
        "skipped": ticket.skipped,
        "interrupted": ticket.interrupted,
        "stopping_generation": False,
        "job": ticket.name,
        "job_count": max(1, len(ticket.job_ids)),
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.localtime(ticket.started_at)),
        "job_no": ticket.job_no,
        "sampling_step": ticket.step,
        "sampling_steps": ticket.steps,
    }


@router.post("/sdapi/v1/interrupt")
@router.post("/sdapi/v1/stop-generating")
async def interrupt(door: Doorway, caller: Poller) -> dict[str, Any]:
    """Stop all that this caller waits for; what is finished by then is answered."""
    for ticket in door.in_flight.of(caller.key):
        ticket.interrupted = True
        await cancel_rest(door, ticket)
    return {}


@router.post("/sdapi/v1/skip")
async def skip(door: Doorway, caller: Poller) -> None:
    """Stop the batch that is worked on; the next one of the same request goes on."""
    ticket = door.in_flight.current(caller.key)
    if ticket is not None:
        ticket.skipped = True
        for job_id in ticket.job_ids[ticket.job_no : ticket.job_no + 1]:
            await asyncio.to_thread(door.services.cancel, job_id)


@router.get("/internal/ping")
async def ping() -> dict[str, Any]:
    return {}


@router.get("/internal/pending-tasks")
async def pending_tasks(door: Doorway, caller: Poller) -> dict[str, Any]:
    """The caller's requests that have not begun."""
    waiting = [ticket.task_id for ticket in door.in_flight.of(caller.key) if not ticket.is_running]
    return {"size": len(waiting), "tasks": waiting}


@router.post("/internal/progress")
async def progress_of_task(door: Doorway, caller: Poller, body: ProgressBody) -> dict[str, Any]:
    """Of the request that was sent with this `force_task_id`."""
    ticket = door.in_flight.task(caller.key, body.id_task)
    if ticket is None:
        return {
            "active": False, "queued": False, "completed": bool(body.id_task), "progress": None, "eta": None,
            "live_preview": None, "id_live_preview": -1, "textinfo": None,
        }  # fmt: skip
    is_news = body.live_preview and ticket.preview is not None and body.id_live_preview != ticket.preview_number
    return {
        "active": ticket.is_running,
        "queued": not ticket.is_running,
        "completed": False,
        "progress": ticket.progress,
        "eta": ticket.eta_s,
        "live_preview": f"data:image/jpeg;base64,{ticket.preview}" if is_news else None,
        "id_live_preview": ticket.preview_number if is_news else body.id_live_preview,
        "textinfo": None if ticket.is_running else "Waiting for its turn",
    }
