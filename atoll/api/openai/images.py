"""POST /v1/images/generations, edits and variations: the picture as base64 or by an address, whole or on its way."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.datastructures import UploadFile

from atoll.api.faults import FaultyRequest, RequestFault, faults_from_validation
from atoll.api.image_request import ImageRequest, parse_image_request
from atoll.api.openai.models import find_model
from atoll.api.openai.replies import OpenAIRoute, error_body
from atoll.api.openai.sent_files import keep_image, keep_mask
from atoll.api.request_scope import Services
from atoll.api.services import StudioServices
from atoll.api.waited_job import pictures_of, wait_for_job
from atoll.artifacts.encode import MEDIA_TYPES, reencode
from atoll.errors import AtollError, NotPossibleYet
from atoll.jobs.events import Event, EventKind
from atoll.jobs.job import DOOR_NOTES, Job

router = APIRouter(route_class=OpenAIRoute)

LATENT_PIXELS = 8
# What `quality` does: the model's own number of steps, times this.
STEPS_FACTOR = {"low": 0.6, "high": 1.5, "hd": 1.5, "xhigh": 2.0, "max": 2.0}
# How much of the start image an edit without a mask may change, by `input_fidelity`.
STRENGTH = {"high": 0.5, "low": 0.75}
VARIATION_STRENGTH = 0.6
USAGE = {
    "input_tokens": 0, "output_tokens": 0, "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}  # fmt: skip

Kind = Literal["image_generation", "image_edit"]


class ImageBody(BaseModel):
    """What the three routes share. Beside OpenAI's fields: those from `negative_prompt` on. Others are left out."""

    model_config = ConfigDict(extra="ignore")

    prompt: str = Field("", max_length=32_000)
    model: str | None = None
    n: int = Field(1, ge=1, le=10)
    size: str = "auto"
    response_format: Literal["url", "b64_json"] | None = None
    quality: str = "auto"
    background: Literal["auto", "transparent", "opaque"] = "auto"
    output_format: Literal["png", "jpeg", "webp"] = "png"
    output_compression: int = Field(100, ge=0, le=100)
    input_fidelity: Literal["high", "low"] = "low"
    stream: bool = False
    partial_images: int = Field(0, ge=0, le=3)
    negative_prompt: str = ""
    steps: int | None = None
    seed: int = -1
    cfg_scale: float | None = None
    sampler: str | None = None
    scheduler: str | None = None
    clip_skip: int = 1
    denoising_strength: float | None = None
    mask_blur: int | None = None
    lora: Any = None

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, values: Any) -> Any:
        return {k: v for k, v in values.items() if v is not None and v != ""} if isinstance(values, dict) else values


class GenerationBody(ImageBody):
    prompt: str = Field(min_length=1, max_length=32_000)


@router.post("/v1/images/generations", response_model=None)
async def generate(services: Services, request: Request, body: GenerationBody) -> Response | dict[str, Any]:
    return await _answer(services, request, body, {}, "image_generation")


@router.post("/v1/images/edits", response_model=None)
async def edit(services: Services, request: Request) -> Response | dict[str, Any]:
    """Multipart: `image`, or one `image[]`; `mask`, whose transparent part is painted anew."""
    form = await request.form()
    images = [file for name in ("image", "image[]") for file in form.getlist(name) if isinstance(file, UploadFile)]
    body = _body_of(form)
    if not body.prompt:
        raise FaultyRequest(
            [RequestFault("prompt", "missing", "prompt is missing: say what the picture shall become.")]
        )
    mask = form.get("mask")
    start = await asyncio.to_thread(_start, services, body, images, mask if isinstance(mask, UploadFile) else None)
    return await _answer(services, request, body, start, "image_edit")


@router.post("/v1/images/variations", response_model=None)
async def vary(services: Services, request: Request) -> Response | dict[str, Any]:
    """Multipart: `image`, which the results are like."""
    form = await request.form()
    image = form.get("image")
    body = _body_of(form)
    files = [image] if isinstance(image, UploadFile) else []
    start = await asyncio.to_thread(_start, services, body, files, None)
    strength = VARIATION_STRENGTH if body.denoising_strength is None else body.denoising_strength
    varied = {"init_image": start["init_image"], "denoising_strength": strength}
    return await _answer(services, request, body, varied, "image_edit")


@router.get("/v1/images/files/{sha256}.{format}", response_class=Response)
def get_file(
    services: Services,
    sha256: Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")],
    format: Literal["png", "jpeg", "webp"],
    quality: Annotated[int, Query(ge=0, le=100)] = 100,
) -> Response:
    """What an address in an answer leads to."""
    content = services.artifact_path(sha256).read_bytes()
    return Response(reencode(content, format, quality=quality), media_type=MEDIA_TYPES[format])


@router.post("/v1/audio/speech")
async def speak() -> None:
    raise NotPossibleYet("audio/speech: Atoll has no voice yet.")


# --- from the request to jobs


def _body_of(form: Any) -> ImageBody:
    """Raises: FaultyRequest."""
    try:
        return ImageBody.model_validate({name: value for name, value in form.items() if isinstance(value, str)})
    except ValidationError as error:
        raise FaultyRequest(faults_from_validation(error.errors())) from error


def _start(
    services: StudioServices, body: ImageBody, images: list[UploadFile], mask: UploadFile | None
) -> dict[str, Any]:
    """Fields of an ImageRequest: what to start from, and how much may change. Raises: InvalidRequest."""
    if len(images) != 1:
        sent = "no picture was sent" if not images else f"{len(images)} pictures were sent"
        raise FaultyRequest(
            [RequestFault("image", "one_image", f"{sent}; Stable Diffusion edits one. Send it as image.")]
        )
    picture = keep_image(services, images[0].file.read())
    fields: dict[str, Any] = {"init_image": picture.name}
    if mask is not None:
        fields["mask_image"] = keep_mask(services, mask.file.read(), picture.size)
    elif picture.has_holes:
        fields["mask_image"] = picture.name
    is_masked = "mask_image" in fields
    strength = 1.0 if is_masked else STRENGTH[body.input_fidelity]
    fields["denoising_strength"] = strength if body.denoising_strength is None else body.denoising_strength
    if is_masked and body.mask_blur is not None:
        fields["mask_blur"] = body.mask_blur
    return fields


def requests_of(services: StudioServices, body: ImageBody, start: dict[str, Any]) -> list[ImageRequest]:
    """One request with a batch of `n`; while streaming one for each picture, so that each has previews of its own.

    Raises: FaultyRequest, UnknownModel, NotPossibleYet.
    """
    if body.background == "transparent":
        raise NotPossibleYet('background "transparent": Atoll draws opaque pictures. Leave it at "auto".')
    if body.lora:
        raise NotPossibleYet("lora: Atoll cannot apply LoRAs yet. Leave it out.")
    model = find_model(services, body.model)
    values = {
        "prompt": body.prompt,
        "negative_prompt": body.negative_prompt,
        "model": model,
        "seed": body.seed,
        "guidance_scale": body.cfg_scale,
        "sampler": body.sampler,
        "scheduler": body.scheduler,
        "clip_skip": body.clip_skip,
        "num_inference_steps": body.steps or _steps(services, model, body.quality),
        **_size(body.size),
        **start,
    }
    if not body.stream:
        return [parse_image_request({**values, "batch_size": body.n})]
    seeds = [-1 if body.seed == -1 else body.seed + number for number in range(body.n)]
    return [parse_image_request({**values, "seed": seed}) for seed in seeds]


def _steps(services: StudioServices, model: str, quality: str) -> int | None:
    factor = STEPS_FACTOR.get(quality)
    if factor is None:
        return None
    defaults = next(info.defaults for info in services.models("checkpoints") if info.name == model)
    return max(1, round(defaults.num_inference_steps * factor))


def _size(size: str) -> dict[str, int]:
    """ "1024x768" as fields, cut down to multiples of 8; "auto" is the model's own, or the start image's."""
    if size == "auto":
        return {}
    match = re.fullmatch(r"(\d{2,5})\s*[xX×]\s*(\d{2,5})", size.strip())
    if match is None:
        words = f'size {size[:40]!r} is no size. Write it like "512x768", or "auto".'
        raise FaultyRequest([RequestFault("size", "no_size", words)])
    width, height = (int(side) // LATENT_PIXELS * LATENT_PIXELS for side in match.groups())
    return {"width": width, "height": height}


def _submit(services: StudioServices, body: ImageBody, start: dict[str, Any]) -> list[str]:
    """Store the jobs; their ids."""
    planned = [services.plan_image(request) for request in requests_of(services, body, start)]
    notes = {DOOR_NOTES: {"door": "openai"}}
    return [
        services.submit_graph(graph.to_api(), extra={"image_request": complete.model_dump(mode="json"), **notes}).job_id
        for complete, graph in planned
    ]


# --- from jobs to the answer


async def _answer(
    services: StudioServices, request: Request, body: ImageBody, start: dict[str, Any], kind: Kind
) -> Response | dict[str, Any]:
    job_ids = await asyncio.to_thread(_submit, services, body, start)
    if body.stream:
        return StreamingResponse(_stream(services, job_ids, body, kind), media_type="text/event-stream")
    jobs = [await wait_for_job(services, job_id, _ignore) for job_id in job_ids]
    return await asyncio.to_thread(_reply, services, jobs, body, str(request.base_url))


def _ignore(event: Event) -> None:
    """Only the end counts."""


def _reply(services: StudioServices, jobs: list[Job], body: ImageBody, base_url: str) -> dict[str, Any]:
    artifacts = [entry.artifact for job in jobs for entry in pictures_of(services, job)]
    as_url = body.response_format == "url" or (body.response_format is None and (body.model or "").startswith("dall-e"))
    if as_url:
        ending = f"{body.output_format}?quality={body.output_compression}"
        data = [{"url": f"{base_url}v1/images/files/{artifact.sha256}.{ending}"} for artifact in artifacts]
    else:
        data = [{"b64_json": _encoded(services, artifact.sha256, body)} for artifact in artifacts]
    return {
        "created": int(time.time()),
        "data": data,
        "background": "opaque",
        "output_format": body.output_format,
        "quality": _told_quality(body),
        "size": f"{artifacts[0].width}x{artifacts[0].height}" if artifacts else None,
        "usage": USAGE,
    }


def _encoded(services: StudioServices, sha256: str, body: ImageBody) -> str:
    content = reencode(
        services.artifact_files.path(sha256).read_bytes(), body.output_format, quality=body.output_compression
    )
    return base64.b64encode(content).decode("ascii")


def _told_quality(body: ImageBody) -> str:
    return {"hd": "high", "standard": "medium", "auto": "medium"}.get(body.quality, body.quality)


async def _stream(services: StudioServices, job_ids: list[str], body: ImageBody, kind: Kind) -> AsyncIterator[bytes]:
    """Server-sent events: previews on the way, then each picture."""
    try:
        for job_id in job_ids:
            sent = 0
            async with aclosing(services.events(job_id)) as events:  # type: ignore[type-var]
                async for event in events:
                    if is_due(event, sent, body.partial_images):
                        partial = await asyncio.to_thread(_partial, event.data["preview"], body)
                        yield _event(f"{kind}.partial_image", {**partial, "partial_image_index": sent})
                        sent += 1
            job = await asyncio.to_thread(services.job, job_id)
            for entry in await asyncio.to_thread(pictures_of, services, job):
                encoded = await asyncio.to_thread(_encoded, services, entry.artifact.sha256, body)
                size = f"{entry.artifact.width}x{entry.artifact.height}"
                yield _event(f"{kind}.completed", {**_frame(encoded, size, body), "usage": USAGE})
    except AtollError as error:  # the status is long sent: the reason goes the same way
        yield _event("error", {"type": "error", **error_body(error)})


def is_due(event: Event, sent: int, wanted: int) -> bool:
    """Whether an event brings the next preview to send: they are spread evenly over the steps."""
    if event.kind is not EventKind.STEP or sent >= wanted or not event.data.get("preview"):
        return False
    step, total = event.data["step"], event.data["total"]
    return bool(step < total and step * (wanted + 1) >= total * (sent + 1))


def _partial(preview: str, body: ImageBody) -> dict[str, Any]:
    """A step's small JPEG in the format that was asked for."""
    with Image.open(io.BytesIO(base64.b64decode(preview))) as picture:
        file = io.BytesIO()
        picture.save(file, body.output_format.upper())
        encoded = base64.b64encode(file.getvalue()).decode("ascii")
        return _frame(encoded, f"{picture.width}x{picture.height}", body)


def _frame(encoded: str, size: str, body: ImageBody) -> dict[str, Any]:
    return {
        "b64_json": encoded,
        "background": "opaque",
        "created_at": int(time.time()),
        "output_format": body.output_format,
        "quality": _told_quality(body),
        "size": size,
    }


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()
