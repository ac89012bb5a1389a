"""A picture somebody asks for, and its translation to a graph: what the CLI, the REST API and the studio share."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from atoll.api.faults import FaultyRequest, faults_from_validation, nearest
from atoll.graph.graph import Graph, Link
from atoll.models.catalogue import BUILT_IN_MODEL
from atoll.nodes.sampling import SAMPLER_NAMES, SCHEDULE_NAMES

LONGEST_PROMPT = 100_000  # characters: some 300 chunks of 77 tokens, far above any use, far below what hurts
BIGGEST_SIDE = 8192  # pixels
BIGGEST_BATCH_PIXELS = 64 * 2**20  # of all pictures of one request together
BIGGEST_SEED = 2**64 - 1  # as ComfyUI's KSampler
FILENAME_PREFIX = "atoll"
READ_OTHERWISE = re.compile(r"[()\[\]\\]|\bBREAK\b")  # what the grammars of A1111 and ComfyUI differ in
RANDOM_SEEDS = 2**32  # a drawn seed stays short enough to be read aloud, and whole in JavaScript

# Familiar names that differ from ComfyUI's by more than case and punctuation.
SAMPLER_ALIASES = {"eulera": "euler_ancestral", "dpm2a": "dpm_2_ancestral", "unipcmultistep": "uni_pc"}
SCHEDULER_ALIASES = {"ddim": "ddim_uniform", "sgm": "sgm_uniform", "uniform": "normal", "automatic": "normal"}

Request = TypeVar("Request", bound="ImageRequest")
Side = Annotated[int, Field(ge=16, le=BIGGEST_SIDE, multiple_of=8)]


class ImageRequest(BaseModel):
    """One request for pictures. What is left out is decided by the model (`ImageDefaults`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str = Field("", max_length=LONGEST_PROMPT, description="What to draw. (word:1.2), [word] and BREAK work.")
    negative_prompt: str = Field("", max_length=LONGEST_PROMPT, description="What to keep out of the picture.")
    model: str | None = Field(None, description="Name of a checkpoint, as listed; default: the built-in model.")
    vae: str | None = Field(None, description="Name of a VAE to use in place of the checkpoint's own.")
    clip_skip: int = Field(1, ge=1, le=12, description="1: the text encoder's last layer; 2: the one before it.")
    width: Side | None = Field(None, description="Pixels; a multiple of 8. Default: the start image's or the model's.")
    height: Side | None = Field(None, description="Pixels; a multiple of 8. Default: the start image's or the model's.")
    batch_size: int = Field(1, ge=1, le=64, validate_default=True, description="How many pictures, in one batch.")
    num_inference_steps: Annotated[int, Field(ge=1, le=1000)] | None = Field(None, description="Default: the model's.")
    guidance_scale: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = Field(
        None, description="How strongly the prompt pulls; 1 is no guidance. Default: the model's."
    )
    sampler: str | None = Field(None, description='ComfyUI\'s name or a familiar one ("DPM++ 2M Karras", "Euler a").')
    scheduler: str | None = Field(None, description="Noise schedule: normal, karras, exponential, ...")
    seed: int = Field(-1, ge=-1, le=BIGGEST_SEED, description="-1 draws one; the real one is written in the graph.")
    init_image: str | None = Field(None, description="Name of an uploaded input to start from (img2img, inpainting).")
    denoising_strength: float = Field(
        0.75,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="With a start image: 0 gives it back, 1 forgets it.",
    )
    mask_image: str | None = Field(
        None, description="Name of an uploaded mask: white is painted anew. The start image's own name: its alpha."
    )
    mask_blur: int = Field(4, ge=0, le=256, description="Pixels by which the mask's border is softened.")
    only_masked: bool = Field(False, description="Work on the masked part alone, at full size, and paste it back.")
    only_masked_padding: int = Field(32, ge=0, le=1024, description="Pixels of surroundings shown to the model.")

    @model_validator(mode="before")
    @classmethod
    def _split_sampler_and_scheduler(cls, values: Any) -> Any:
        """ "DPM++ 2M Karras" names two things at once."""
        if not isinstance(values, dict) or not isinstance(values.get("sampler"), str):
            return values
        if values["sampler"] in SAMPLER_NAMES:
            return values
        name = _plain(values["sampler"])
        for scheduler in SCHEDULE_NAMES:
            sampler = _known_name(name.removesuffix(_plain(scheduler)), SAMPLER_NAMES, SAMPLER_ALIASES)
            if name.endswith(_plain(scheduler)) and sampler and not _known_name(name, SAMPLER_NAMES, SAMPLER_ALIASES):
                return {**values, "sampler": sampler, "scheduler": values.get("scheduler") or scheduler}
        return values

    @field_validator("sampler")
    @classmethod
    def _know_sampler(cls, name: str | None) -> str | None:
        return name and _name_or_fault("sampler", name, SAMPLER_NAMES, SAMPLER_ALIASES)

    @field_validator("scheduler")
    @classmethod
    def _know_scheduler(cls, name: str | None) -> str | None:
        return name and _name_or_fault("scheduler", name, SCHEDULE_NAMES, SCHEDULER_ALIASES)

    @field_validator("batch_size")
    @classmethod
    def _bound_pixels(cls, batch_size: int, info: ValidationInfo) -> int:
        width, height = info.data.get("width"), info.data.get("height")
        if width and height and width * height * batch_size > BIGGEST_BATCH_PIXELS:
            raise PydanticCustomError(
                "too_many_pixels",
                "batch_size {batch_size} of {width} x {height} pictures is more than {most} million pixels; ask for "
                "smaller or fewer ones.",
                {"width": width, "height": height, "batch_size": batch_size, "most": BIGGEST_BATCH_PIXELS // 2**20},
            )
        return batch_size

    @field_validator("mask_image")
    @classmethod
    def _mask_needs_start_image(cls, mask: str | None, info: ValidationInfo) -> str | None:
        if mask is not None and "init_image" in info.data and info.data["init_image"] is None:
            raise PydanticCustomError(
                "needs_init_image", "mask_image needs init_image: the picture that it is a mask of.", {}
            )
        return mask

    @field_validator("only_masked")
    @classmethod
    def _only_masked_needs_mask(cls, only_masked: bool, info: ValidationInfo) -> bool:
        if only_masked and "mask_image" in info.data and info.data["mask_image"] is None:
            raise PydanticCustomError(
                "needs_mask_image", "only_masked needs mask_image: which part is to be worked on.", {}
            )
        return only_masked


class CompleteImageRequest(ImageRequest):
    """A request with nothing left to be decided."""

    model: str
    width: Side
    height: Side
    num_inference_steps: Annotated[int, Field(ge=1, le=1000)]
    guidance_scale: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
    sampler: str
    scheduler: str
    seed: int = Field(ge=0, le=BIGGEST_SEED)


class ImageDefaults(BaseModel):
    """What a model wants when a request does not say."""

    model_config = ConfigDict(frozen=True)

    width: int = 512
    height: int = 512
    num_inference_steps: int = 20
    guidance_scale: float = 7.0
    sampler: str = "dpmpp_2m"
    scheduler: str = "karras"


def parse_image_request(values: Mapping[str, Any]) -> ImageRequest:
    """An ImageRequest from plain values. Raises: FaultyRequest with every fault."""
    return _validated(ImageRequest, values)


def complete_request(
    request: ImageRequest, defaults: ImageDefaults, init_size: tuple[int, int] | None = None
) -> CompleteImageRequest:
    """Decide what the request leaves open: sizes, steps, sampler, a real seed.

    Without a size, a start image keeps its own; a bigger one than the model was trained for is brought down to the
    model's number of pixels, keeping its aspect. "Only masked" works at the model's size.

    Args:
        defaults: the model's.
        init_size: (width, height) of the start image, if there is one.
    Raises: FaultyRequest, for instance for more pixels in all than are taken.
    """
    native = defaults.width, defaults.height
    size = native if init_size is None or request.only_masked else _size_for_start_image(init_size, native)
    decided = {
        "model": request.model or BUILT_IN_MODEL,
        "width": request.width or size[0],
        "height": request.height or size[1],
        "num_inference_steps": request.num_inference_steps or defaults.num_inference_steps,
        "guidance_scale": defaults.guidance_scale if request.guidance_scale is None else request.guidance_scale,
        "sampler": request.sampler or defaults.sampler,
        "scheduler": request.scheduler or defaults.scheduler,
        "seed": secrets.randbelow(RANDOM_SEEDS) if request.seed == -1 else request.seed,
    }
    return _validated(CompleteImageRequest, request.model_dump() | decided)


def _validated(kind: type[Request], values: Mapping[str, Any]) -> Request:
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise FaultyRequest(faults_from_validation(error.errors(), ImageRequest.model_fields)) from error


def _size_for_start_image(size: tuple[int, int], native: tuple[int, int]) -> tuple[int, int]:
    shrink = min(1.0, math.sqrt(native[0] * native[1] / (size[0] * size[1])))
    width, height = (min(max(16, round(side * shrink / 8) * 8), BIGGEST_SIDE) for side in size)
    return width, height


@dataclass(frozen=True)
class StartImage:
    """(width, height) of a start image and, if it has one, of its mask, as they lie on disk."""

    size: tuple[int, int]
    mask_size: tuple[int, int] | None = None


def graph_from_image_request(
    request: CompleteImageRequest, *, start: StartImage | None = None, inpainting_model: bool = False
) -> Graph:
    """Say in nodes what a request asks for.

    Args:
        start: what is known of the start image; needed if the request names one.
        inpainting_model: the model wants to be told the mask and what lies around it (9 channels).
    """
    graph = Graph()
    if start is not None and request.denoising_strength == 0:  # not even through the VAE, which loses a little
        unchanged = graph.add("LoadImage", image=request.init_image)[0]
        images = unchanged if request.only_masked else _scaled(graph, unchanged, request, start.size)
        graph.add("SaveImage", images=images, filename_prefix=FILENAME_PREFIX)
        return graph

    checkpoint = graph.add("CheckpointLoaderSimple", ckpt_name=request.model)
    clip, vae = checkpoint[1], checkpoint[2]
    if request.vae is not None:
        vae = graph.add("VAELoader", vae_name=request.vae)[0]
    if request.clip_skip > 1:
        clip = graph.add("CLIPSetLastLayer", clip=clip, stop_at_clip_layer=-request.clip_skip)[0]
    positive = _encoded(graph, request.prompt, clip)
    negative = _encoded(graph, request.negative_prompt, clip)

    masked: MaskedPicture | None = None
    forgotten = request.mask_image is None and request.denoising_strength == 1  # the same as without a start picture
    if start is None or forgotten:
        size = {"width": request.width, "height": request.height}
        latents = graph.add("EmptyLatentImage", **size, batch_size=request.batch_size)[0]
    elif request.mask_image is None:
        image = _scaled(graph, graph.add("LoadImage", image=request.init_image)[0], request, start.size)
        latents = graph.add("VAEEncode", pixels=image, vae=vae)[0]
    else:
        masked = _masked_picture(graph, request, start)
        if inpainting_model:
            told = graph.add(
                "InpaintModelConditioning",
                positive=positive, negative=negative, vae=vae, pixels=masked.image, mask=masked.mask, noise_mask=True,
            )  # fmt: skip
            positive, negative, latents = told[0], told[1], told[2]
        else:
            encoded = graph.add("VAEEncode", pixels=masked.image, vae=vae)
            latents = graph.add("SetLatentNoiseMask", samples=encoded, mask=masked.mask)[0]
    if start is not None and not forgotten and request.batch_size > 1:
        latents = graph.add("RepeatLatentBatch", samples=latents, amount=request.batch_size)[0]

    sampled = graph.add(
        "KSampler",
        model=checkpoint[0],
        seed=request.seed,
        steps=request.num_inference_steps,
        cfg=request.guidance_scale,
        sampler_name=request.sampler,
        scheduler=request.scheduler,
        positive=positive,
        negative=negative,
        latent_image=latents,
        denoise=1.0 if start is None else request.denoising_strength,
    )
    images = graph.add("VAEDecode", samples=sampled, vae=vae)[0]
    if masked is not None:
        place = {} if masked.region is None else {"region": masked.region}
        images = graph.add("AtollPasteBack", image=masked.whole, painted=images, mask=masked.whole_mask, **place)[0]
    graph.add("SaveImage", images=images, filename_prefix=FILENAME_PREFIX)
    return graph


@dataclass(frozen=True)
class MaskedPicture:
    """Links to the picture that comes out (`whole`), and to the part of it that is worked on."""

    whole: Link
    whole_mask: Link
    image: Link
    mask: Link
    region: Link | None  # None: the whole picture is worked on


def _masked_picture(graph: Graph, request: CompleteImageRequest, start: StartImage) -> MaskedPicture:
    loaded = graph.add("LoadImage", image=request.init_image)
    mask_size = start.mask_size or start.size
    if request.mask_image == request.init_image:
        mask = loaded[1]
    else:
        mask = graph.add("LoadImageMask", image=request.mask_image, channel="red")[0]
    # "Only masked" keeps the start image's own size; what is masked is worked on at the request's.
    whole = loaded[0] if request.only_masked else _scaled(graph, loaded[0], request, start.size)
    if not request.only_masked and not _same_aspect(start.size, (request.width, request.height)):
        as_image = graph.add("MaskToImage", mask=mask)[0]  # cut off at the sides as the picture is
        scaled = _scaled(graph, as_image, request, mask_size)
        mask = graph.add("ImageToMask", image=scaled, channel="red")[0]
        mask_size = request.width, request.height
    if request.mask_blur:
        shown_width = start.size[0] if request.only_masked else request.width
        radius = round(request.mask_blur * mask_size[0] / shown_width)
        mask = graph.add("AtollBlurMask", mask=mask, radius=min(radius, 256))[0]
    if not request.only_masked:
        return MaskedPicture(whole, mask, whole, mask, None)
    part = graph.add(
        "AtollCropToMask",
        image=whole, mask=mask, width=request.width, height=request.height, padding=request.only_masked_padding,
    )  # fmt: skip
    return MaskedPicture(whole, mask, part[0], part[1], part[2])


def _encoded(graph: Graph, prompt: str, clip: Link) -> Link:
    """By ComfyUI's own node where both grammars read the same, so that the workflow in the picture opens there too."""
    return graph.add("AtollTextEncode" if READ_OTHERWISE.search(prompt) else "CLIPTextEncode", text=prompt, clip=clip)[
        0
    ]


def _scaled(graph: Graph, image: Link, request: CompleteImageRequest, size: tuple[int, int]) -> Link:
    """The image at the request's size; of another aspect, the middle of it."""
    if size == (request.width, request.height):
        return image
    return graph.add(
        "ImageScale", image=image, upscale_method="lanczos", width=request.width, height=request.height, crop="center"
    )[0]


def _same_aspect(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes are of one shape, but for rounding to multiples of 8."""
    return abs(size[0] * other[1] - size[1] * other[0]) <= 8 * max(*size, *other)


@lru_cache(maxsize=1024)
def _plain(name: str) -> str:
    """A name without what people write differently: "DPM++ 2M" and "dpmpp_2m" are one."""
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("++", "pp"))


def _known_name(name: str, known: Sequence[str], aliases: Mapping[str, str]) -> str | None:
    if name in known:
        return name
    return {_plain(one): one for one in known}.get(_plain(name)) or aliases.get(_plain(name))


def _name_or_fault(field: str, name: str, known: Sequence[str], aliases: Mapping[str, str]) -> str:
    found = _known_name(name, known, aliases)
    if found is None:
        hint = nearest(name, known) or f" Known: {', '.join(known)}."
        raise PydanticCustomError(
            "not_in_list", "{field} {name} is not known.{hint}", {"field": field, "name": repr(name[:60]), "hint": hint}
        )
    return found
