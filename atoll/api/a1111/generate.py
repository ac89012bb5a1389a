"""POST /sdapi/v1/txt2img and img2img: a job for each batch, waited for, and answered with the pictures."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import math
import time
import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import APIRouter
from PIL import Image

from atoll import __version__
from atoll.api.a1111.callers import Caller
from atoll.api.a1111.graphs import Plan, graph_of
from atoll.api.a1111.in_flight import Ticket
from atoll.api.a1111.plan import Batches, plan_batches
from atoll.api.a1111.requests import GenerationRequest, Img2ImgRequest, Txt2ImgRequest
from atoll.api.a1111.scope import A1111Route, Door, Doorway, From
from atoll.api.waited_job import pictures_of, wait_for_job
from atoll.artifacts.encode import reencode
from atoll.artifacts.png import encode_png, read_png_text
from atoll.errors import JobCancelled
from atoll.jobs.job import DOOR_NOTES, Job

router = APIRouter(route_class=A1111Route)

Reply = dict[str, Any]


@dataclass(frozen=True)
class Made:
    """One finished picture: the PNG, the text in it, and which one of its batch it is."""

    content: bytes
    infotext: str
    plan: Plan
    index: int


@router.post("/sdapi/v1/txt2img")
async def txt2img(door: Doorway, caller: From, request: Txt2ImgRequest) -> Reply:
    return await _answer(door, caller, request, "txt2img")


@router.post("/sdapi/v1/img2img")
async def img2img(door: Doorway, caller: From, request: Img2ImgRequest) -> Reply:
    return await _answer(door, caller, request, "img2img")


async def _answer(door: Door, caller: Caller, request: GenerationRequest, name: str) -> Reply:
    options = door.options.of(caller)
    batches = await asyncio.to_thread(plan_batches, door.services, request, options)
    ticket = Ticket(caller.key, f"scripts_{name}", request.force_task_id or f"task({uuid.uuid4().hex[:15]})")
    with door.in_flight.working(ticket):
        ticket.job_ids = await asyncio.to_thread(_submit, door, batches, ticket)
        if ticket.interrupted:  # while the jobs were stored
            await cancel_rest(door, ticket)
        made = await make(door, ticket, batches.plans)
    return await asyncio.to_thread(_reply, request, batches, made)


def _submit(door: Door, batches: Batches, ticket: Ticket) -> list[str]:
    """Store a job for each batch, all before the first is waited for: what is asked for is durable now."""
    notes = {DOOR_NOTES: {"door": "a1111", "task_id": ticket.task_id}}
    return [door.services.submit_graph(graph_of(plan).to_api(), extra=notes).job_id for plan in batches.plans]


async def make(door: Door, ticket: Ticket, plans: tuple[Plan, ...]) -> list[Made]:
    """The pictures of all batches; without those of a batch that was skipped, or that an interrupt came before.

    Raises: AtollError, when a batch fails; the later ones are cancelled then.
    """
    made: list[Made] = []
    for job_id, plan in zip(ticket.job_ids, plans, strict=True):
        job = await wait_for_job(door.services, job_id, ticket.hear)
        try:
            made += await asyncio.to_thread(_made_by, door, job, plan)
        except JobCancelled:
            pass  # the caller did that
        except Exception:
            await cancel_rest(door, ticket)
            raise
        ticket.next_job()
    return made


async def cancel_rest(door: Door, ticket: Ticket) -> None:
    """Stop the jobs of a request that have not ended; others stay as they are."""
    for job_id in ticket.job_ids[ticket.job_no :]:
        await asyncio.to_thread(door.services.cancel, job_id)


def _made_by(door: Door, job: Job, plan: Plan) -> list[Made]:
    made = []
    for entry in pictures_of(door.services, job):
        content = door.services.artifact_files.path(entry.artifact.sha256).read_bytes()
        made.append(Made(content, read_png_text(content).get("parameters", ""), plan, entry.artifact.index))
    return made


def _reply(request: GenerationRequest, batches: Batches, made: list[Made]) -> Reply:
    pictures = [reencode(one.content, batches.format, quality=batches.jpeg_quality) for one in made]
    infotexts = [one.infotext for one in made]
    has_grid = batches.wants_grid and len(made) > 1
    if has_grid:
        grid = contact_sheet([one.content for one in made], infotexts[0])
        pictures.insert(0, reencode(grid, batches.format, quality=batches.jpeg_quality))
        infotexts.insert(0, infotexts[0])
    parameters = request.model_dump(mode="json")
    if isinstance(request, Img2ImgRequest):
        keep = parameters["init_images"] if request.include_init_images else None
        parameters |= {"init_images": keep, "mask": parameters["mask"] if request.include_init_images else None}
    return {
        "images": [base64.b64encode(picture).decode("ascii") for picture in pictures] if request.send_images else [],
        "parameters": parameters,
        "info": json.dumps(_info(request, batches, made, infotexts, has_grid), ensure_ascii=False),
    }


def _info(
    request: GenerationRequest, batches: Batches, made: list[Made], infotexts: list[str], has_grid: bool
) -> dict[str, Any]:
    """What A1111 tells of its pictures; seeds and prompts of each that was made, or of all asked for if none was."""
    first, asked = batches.plans[0], [(plan, i) for plan in batches.plans for i in range(plan.batch_size)]
    told = [(one.plan, one.index) for one in made] or asked
    varies = first.subseed_strength > 0
    prompt, negative = first.words.written
    return {
        "prompt": prompt,
        "all_prompts": [prompt] * len(told),
        "negative_prompt": negative,
        "all_negative_prompts": [negative] * len(told),
        "seed": first.seed,
        "all_seeds": [plan.seed if varies else plan.seed + index for plan, index in told],
        "subseed": first.subseed,
        "all_subseeds": [plan.subseed + index for plan, index in told],
        "subseed_strength": first.subseed_strength,
        "width": first.width,
        "height": first.height,
        "sampler_name": first.sampling.name,
        "cfg_scale": first.cfg_scale,
        "steps": first.steps,
        "batch_size": first.batch_size,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": batches.checkpoint.stem,
        "sd_model_hash": batches.checkpoint.hash,
        "sd_vae_name": first.vae,
        "sd_vae_hash": None,
        "seed_resize_from_w": first.resize_from[0] or -1,
        "seed_resize_from_h": first.resize_from[1] or -1,
        "denoising_strength": request.denoising_strength if first.start or first.hires else None,
        "extra_generation_params": _extra_parameters(first),
        "index_of_first_image": int(has_grid),
        "infotexts": infotexts,
        "styles": list(batches.styles),
        "job_timestamp": time.strftime("%Y%m%d%H%M%S"),
        "clip_skip": first.clip_skip,
        "is_using_inpainting_conditioning": first.inpainting_model,
        "version": f"Atoll {__version__}",
    }


def _extra_parameters(plan: Plan) -> dict[str, Any]:
    said: dict[str, Any] = {"Schedule type": plan.sampling.schedule}
    if plan.start is not None and plan.start.mask is not None:
        said |= {"Mask blur": plan.start.mask.blur}
    if plan.hires is not None:
        said |= {"Hires resize": f"{plan.hires.width}x{plan.hires.height}", "Hires steps": plan.hires.steps}
    return said


def contact_sheet(contents: list[bytes], infotext: str) -> bytes:
    """All pictures in one PNG, as near to a square as whole rows allow."""
    pictures = [Image.open(io.BytesIO(content)).convert("RGB") for content in contents]
    rows = round(math.sqrt(len(pictures)))
    columns = math.ceil(len(pictures) / rows)
    width, height = pictures[0].size
    sheet = Image.new("RGB", (columns * width, rows * height))
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number % columns * width, number // columns * height))
    return encode_png(np.asarray(sheet), {"parameters": infotext} if infotext else {})
