"""POST /prompt: a workflow in API form becomes a job. GET /prompt: how many are left."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import isfinite
from typing import Any

from fastapi import APIRouter

from atoll.api.comfy.artifact_names import name_by_content
from atoll.api.comfy.job_record import SECRETS, DoorNotes, is_prompt_id, queue_number
from atoll.api.comfy.reply import GET, ComfyRoute, Json, RawBody, error_body, parse_object
from atoll.api.request_scope import Services
from atoll.api.services import StudioServices
from atoll.errors import InvalidRequest
from atoll.graph.node import OneFile
from atoll.graph.ui_form import is_ui_format
from atoll.graph.ui_format import api_form
from atoll.graph.validate import Validation
from atoll.jobs.job import DOOR_NOTES, JobState

router = APIRouter(route_class=ComfyRoute)

LONGEST_CLIENT_ID = 200  # characters
FRONT_PRIORITY = 1_000  # what goes to the front runs before all that came by a usual way


@router.api_route("/prompt", methods=GET)
def get_prompt(services: Services) -> Json:
    return Json(queue_info(services))


def queue_info(services: StudioServices) -> dict[str, Any]:
    """`{exec_info: {queue_remaining}}`: jobs that wait or run."""
    counts = services.job_counts()
    return {"exec_info": {"queue_remaining": counts[JobState.QUEUED] + counts[JobState.RUNNING]}}


@router.post("/prompt")
def post_prompt(services: Services, body: RawBody) -> Json:
    """Queue what of the workflow can run. It is stored for good when this answers."""
    request = parse_object(body)
    prompt_id = request.get("prompt_id")
    if prompt_id is not None and not is_prompt_id(prompt_id):
        words = "prompt_id must be a UUID in lower case, such as 0b0c9fd4-0b7b-4d3c-8a1a-1d5b4f1a2c3d."
        return Json(error_body("invalid_prompt_id", words, f"{prompt_id!r:.100}"), 400)
    graph = request.get("prompt")
    targets = request.get("partial_execution_targets")
    workflow = graph if is_ui_format(graph) else None
    if workflow is not None:  # ComfyUI takes the API form alone; what people save and share is as good
        graph = api_form(workflow, services.registry)
    if isinstance(graph, dict):
        graph = with_pictures_by_content(services, graph)
        if isinstance(targets, list):
            graph = needed_by(graph, {str(target) for target in targets})
    validation = services.judge_graph(graph)
    error, node_errors = validation.comfy_error(), validation.comfy_node_errors()
    if error is not None:
        reply = {"error": error, "node_errors": node_errors, "sentences": sentences_of(validation)}
        return Json(reply, 400)
    notes, pnginfo = notes_of(request)
    if workflow is not None:
        pnginfo = {"workflow": workflow, **pnginfo}
    try:
        job = services.submit_valid_graph(
            validation.lenient(),
            priority=priority_of(services, notes),
            extra={**pnginfo, **notes.as_extra()},
            job_id=prompt_id,
        )
    except InvalidRequest as refusal:
        if refusal.code != "job_exists":
            raise
        return Json(error_body("invalid_prompt_id", refusal.message, f"{prompt_id}"), 400)
    return Json({"prompt_id": job.job_id, "number": queue_number(job), "node_errors": node_errors})


def sentences_of(validation: Validation) -> list[str]:
    """Every fault in a sentence for people; ComfyUI has no place for these, and its clients pass them over."""
    return [fault.sentence for fault in validation.faults]


def notes_of(request: Mapping[str, Any]) -> tuple[DoorNotes, dict[str, Any]]:
    """What is kept beside the graph, and what goes into its pictures. Raises: InvalidRequest."""
    extra_data = request.get("extra_data")
    if extra_data is None:
        extra_data = {}
    if not isinstance(extra_data, dict):
        raise InvalidRequest(f"extra_data must be a JSON object, not {type(extra_data).__name__}.")
    client_id = request.get("client_id", extra_data.get("client_id"))
    if client_id is not None and not (isinstance(client_id, str) and len(client_id) <= LONGEST_CLIENT_ID):
        raise InvalidRequest(f"client_id must be a text of at most {LONGEST_CLIENT_ID} characters.")
    number = request.get("number")
    if number is not None and (isinstance(number, bool) or not isinstance(number, int | float) or not isfinite(number)):
        raise InvalidRequest(f"number must be a number, the place in the queue; {number!r:.80} is not.")
    pnginfo = extra_data.get("extra_pnginfo")
    left_out = {*SECRETS, "extra_pnginfo", "client_id"}
    kept = {name: value for name, value in extra_data.items() if name not in left_out}
    notes = DoorNotes(client_id, number, bool(request.get("front")), kept)
    named = pnginfo.items() if isinstance(pnginfo, dict) else ()
    return notes, {str(name): value for name, value in named if name != DOOR_NOTES}


def priority_of(services: StudioServices, notes: DoorNotes) -> int:
    """Atoll's priority (higher runs first) for ComfyUI's number (lower runs first, 0 and less before all others).

    What is put to the front goes before what was put there earlier.
    """
    if notes.front:
        waiting = services.job_heads(states={JobState.QUEUED}, limit=FRONT_PRIORITY)
        return max([FRONT_PRIORITY, *(head.priority + 1 for head in waiting)])
    if notes.number is not None and notes.number <= 0:
        return int(min(FRONT_PRIORITY - 1, 1 - max(notes.number, -FRONT_PRIORITY)))
    return 0


def needed_by(graph: dict[str, Any], targets: Collection[str]) -> dict[str, Any]:
    """Those nodes of a graph in API form, still unchecked, that some of its nodes need."""
    needed: set[str] = set()
    pending = [target for target in targets if target in graph]
    while pending:
        node_id = pending.pop()
        if node_id in needed:
            continue
        needed.add(node_id)
        node = graph[node_id]
        inputs = node.get("inputs") if isinstance(node, dict) else None
        values = inputs.values() if isinstance(inputs, dict) else ()
        links = [value for value in values if isinstance(value, list) and len(value) == 2]
        pending += [link[0] for link in links if isinstance(link[0], str) and link[0] in graph]
    return {node_id: node for node_id, node in graph.items() if node_id in needed}


def with_pictures_by_content(services: StudioServices, graph: dict[str, Any]) -> dict[str, Any]:
    """The graph with every `ComfyUI_00042_.png [output]` of its Load Image nodes named by its content."""
    changed = dict(graph)
    for node_id, node in graph.items():
        class_type = node.get("class_type") if isinstance(node, dict) else None
        spec = services.registry.get(class_type) if isinstance(class_type, str) else None
        inputs = node.get("inputs") if spec else None
        if spec is None or not isinstance(inputs, dict):
            continue
        for item in spec.inputs:
            value = inputs.get(item.name)
            if isinstance(item.choices, OneFile) and item.choices.kind == "inputs" and isinstance(value, str):
                named = name_by_content(services, value)
                if named != value:
                    inputs = {**inputs, item.name: named}
                    changed[node_id] = {**node, "inputs": inputs}
    return changed
