"""POST extra-single-image and extra-batch-images: pictures made bigger."""

from __future__ import annotations

import asyncio
import base64
import math
import uuid
from typing import Any

from fastapi import APIRouter

from atoll.api.a1111.callers import Caller
from atoll.api.a1111.graphs import upscaled_by_network
from atoll.api.a1111.in_flight import Ticket
from atoll.api.a1111.models import LANCZOS, NEAREST, upscale_models
from atoll.api.a1111.requests import ExtraBatchRequest, ExtraSingleRequest, ExtrasRequest
from atoll.api.a1111.scope import A1111Route, Door, Doorway, From, Refused
from atoll.api.a1111.sent_pictures import keep_picture
from atoll.api.image_request import BIGGEST_BATCH_PIXELS
from atoll.api.services import StudioServices, picture_size
from atoll.api.waited_job import pictures_of, wait_for_job
from atoll.errors import InvalidRequest, JobCancelled, NotPossibleYet
from atoll.graph.graph import Graph, Link
from atoll.jobs.job import DOOR_NOTES

router = APIRouter(route_class=A1111Route)

_METHODS = {LANCZOS: "lanczos", NEAREST: "nearest-exact"}


@router.post("/sdapi/v1/extra-single-image")
async def extra_single_image(door: Doorway, caller: From, request: ExtraSingleRequest) -> dict[str, Any]:
    if not request.image:
        raise Refused("Image not found: send a picture in base64.", 404)
    images = await _answer(door, caller, request, [request.image])
    return {"html_info": "", "image": images[0] if images else ""}


@router.post("/sdapi/v1/extra-batch-images")
async def extra_batch_images(door: Doorway, caller: From, request: ExtraBatchRequest) -> dict[str, Any]:
    return {"html_info": "", "images": await _answer(door, caller, request, [one.data for one in request.imageList])}


async def _answer(door: Door, caller: Caller, request: ExtrasRequest, texts: list[str]) -> list[str]:
    """In base64, one for each picture that was sent."""
    ticket = Ticket(caller.key, "scripts_extras", f"task({uuid.uuid4().hex[:15]})")
    with door.in_flight.working(ticket):
        ticket.job_ids = await asyncio.to_thread(_submit, door.services, request, texts)
        made = []
        for job_id in ticket.job_ids:
            job = await wait_for_job(door.services, job_id, ticket.hear)
            try:
                for entry in await asyncio.to_thread(pictures_of, door.services, job):
                    path = door.services.artifact_files.path(entry.artifact.sha256)
                    made.append(base64.b64encode(await asyncio.to_thread(path.read_bytes)).decode("ascii"))
            except JobCancelled:
                pass  # the caller did that
            ticket.next_job()
    return made


def _submit(services: StudioServices, request: ExtrasRequest, texts: list[str]) -> list[str]:
    """Every picture is read before the first job is stored."""
    if request.gfpgan_visibility or request.codeformer_visibility:
        raise NotPossibleYet("Atoll has no face restorers (GFPGAN, CodeFormer) yet. Leave their visibility at 0.")
    names = [
        keep_picture(services, text, "image" if len(texts) == 1 else f"imageList[{n}]") for n, text in enumerate(texts)
    ]
    graphs = [extras_graph(services, request, name, picture_size(services.input_path(name), name)) for name in names]
    notes = {DOOR_NOTES: {"door": "a1111"}}
    return [services.submit_graph(graph.to_api(), extra=notes).job_id for graph in graphs]


def extras_graph(services: StudioServices, request: ExtrasRequest, name: str, size: tuple[int, int]) -> Graph:
    """Raises: Refused for an upscaler that is not there; InvalidRequest for a size beyond all measure."""
    graph = Graph()
    image = graph.add("LoadImage", image=name)[0]
    target = extras_size(request, size)
    if target[0] * target[1] > BIGGEST_BATCH_PIXELS:
        raise InvalidRequest(
            f"{target[0]}x{target[1]} is more than {BIGGEST_BATCH_PIXELS // 2**20} million pixels. Ask for less."
        )
    scaled = _upscaled(graph, services, image, request.upscaler_1, target)
    second = request.upscaler_2 if request.extras_upscaler_2_visibility > 0 else "None"
    if scaled is not None and second.lower() != "none":
        other = _upscaled(graph, services, image, second, target)
        scaled = graph.add(
            "ImageBlend",
            image1=scaled, image2=other, blend_factor=request.extras_upscaler_2_visibility, blend_mode="normal",
        )[0]  # fmt: skip
    if scaled is not None and request.resize_mode == 1 and request.upscaling_crop:
        scaled = graph.add(
            "ImageScale",
            image=scaled, upscale_method="lanczos", crop="center",
            width=request.upscaling_resize_w, height=request.upscaling_resize_h,
        )[0]  # fmt: skip
    graph.add("PreviewImage", images=image if scaled is None else scaled)
    return graph


def extras_size(request: ExtrasRequest, size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) before anything is cut off: a multiple of the picture's, or what covers the wanted size."""
    if request.resize_mode == 0:
        return math.floor(size[0] * request.upscaling_resize), math.floor(size[1] * request.upscaling_resize)
    scale = max(request.upscaling_resize_w / size[0], request.upscaling_resize_h / size[1])
    return math.ceil(size[0] * scale), math.ceil(size[1] * scale)


def _upscaled(graph: Graph, services: StudioServices, image: Link, name: str, target: tuple[int, int]) -> Link | None:
    """None for the upscaler "None", which leaves a picture as it is."""
    if name.lower() in ("none", ""):
        return None
    method = _METHODS.get(name)
    if method is None:
        networks = upscale_models(services)
        if name not in networks:
            known = ", ".join(["None", *_METHODS, *networks])
            raise Refused(f'There is no upscaler "{name[:60]}" here. There are: {known}.', 422)
        image, method = upscaled_by_network(graph, image, name), "lanczos"
    return graph.add(
        "ImageScale", image=image, upscale_method=method, width=target[0], height=target[1], crop="disabled"
    )[0]
