"""A picture somebody asks for, and its translation to a graph: what the CLI, the REST API and the studio share."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from atoll.api.faults import FaultyRequest, RequestFault, faults_from_validation, nearest

LONGEST_PROMPT = 100_000  # characters: some 300 chunks of 77 tokens, far above any use, far below what hurts
BIGGEST_SIDE = 8192  # pixels
BIGGEST_BATCH_PIXELS = 64 * 2**20  # of all pictures of one request together
BIGGEST_SEED = 2**64 - 1  # as ComfyUI's KSampler
RANDOM_SEEDS = 2**32  # a drawn seed stays short enough to be read aloud, and whole in JavaScript

# Familiar names that differ from ComfyUI's by more than case and punctuation.
SAMPLER_ALIASES = {"eulera": "euler_ancestral", "dpm2a": "dpm_2_ancestral", "plms": "pndm", "unipcmultistep": "uni_pc"}
SCHEDULER_ALIASES = {"ddim": "ddim_uniform", "sgm": "sgm_uniform", "uniform": "normal", "automatic": "normal"}

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
    batch_size: int = Field(
        1, ge=1, le=64, validate_default=True, description="How many pictures, in one batch."
    )
    num_inference_steps: Annotated[int, Field(ge=1, le=1000)] | None = Field(None, description="Default: the model's.")
    guidance_scale: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = Field(
        None, description="How strongly the prompt pulls; 1 is no guidance. Default: the model's."
    )
    sampler: str | None = Field(None, description='ComfyUI\'s name or a familiar one ("DPM++ 2M Karras", "Euler a").')
    scheduler: str | None = Field(None, description="Noise schedule: normal, karras, exponential, ...")
    seed: int = Field(-1, ge=-1, le=BIGGEST_SEED, description="-1 draws one; the real one is written in the graph.")
    init_image: str | None = Field(None, description="Name of an uploaded input to start from (img2img, inpainting).")
    denoising_strength: float = Field(
        0.75, ge=0, le=1, allow_inf_nan=False, description="With a start image: 0 gives it back, 1 forgets it."
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
        if not isinstance(values, dict) or not isinstance(values.get("sampler"), str) or values.get("scheduler"):
            return values
        name = _plain(values["sampler"])
        for scheduler in scheduler_names():
            sampler = _known_name(name.removesuffix(_plain(scheduler)), sampler_names(), SAMPLER_ALIASES)
            if name.endswith(_plain(scheduler)) and sampler and not _known_name(name, sampler_names(), SAMPLER_ALIASES):
                return {**values, "sampler": sampler, "scheduler": scheduler}
        return values

    @field_validator("sampler")
    @classmethod
    def _know_sampler(cls, name: str | None) -> str | None:
        return name and _name_or_fault("sampler", name, sampler_names(), SAMPLER_ALIASES)

    @field_validator("scheduler")
    @classmethod
    def _know_scheduler(cls, name: str | None) -> str | None:
        return name and _name_or_fault("scheduler", name, scheduler_names(), SCHEDULER_ALIASES)

    @field_validator("batch_size")
    @classmethod
    def _bound_pixels(cls, batch_size: int, info: ValidationInfo) -> int:
        width, height = info.data.get("width"), info.data.get("height")
        if width and height and width * height * batch_size > BIGGEST_BATCH_PIXELS:
            raise PydanticCustomError(
                "too_many_pixels",
                "width {width} x height {height} x batch_size {batch_size} is more than {most} million pixels; "
                "ask for smaller or fewer pictures.",
                {"width": width, "height": height, "batch_size": batch_size, "most": BIGGEST_BATCH_PIXELS // 2**20},
            )
        return batch_size

    @field_validator("mask_image")
    @classmethod
    def _mask_needs_start_image(cls, mask: str | None, info: ValidationInfo) -> str | None:
        if mask is not None and "init_image" in info.data and info.data["init_image"] is None:
            raise PydanticCustomError("needs_init_image", "mask_image needs init_image: the picture that it is a mask of.", {})
        return mask

    @field_validator("only_masked")
    @classmethod
    def _only_masked_needs_mask(cls, only_masked: bool, info: ValidationInfo) -> bool:
        if only_masked and "mask_image" in info.data and info.data["mask_image"] is None:
            raise PydanticCustomError("needs_mask_image", "only_masked needs mask_image: which part is to be worked on.", {})
        return only_masked


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
    try:
        return ImageRequest.model_validate(dict(values))
    except ValidationError as error:
        raise FaultyRequest(faults_from_validation(error.errors(), ImageRequest.model_fields)) from error


def complete_request(
    request: ImageRequest, defaults: ImageDefaults, init_size: tuple[int, int] | None = None
) -> ImageRequest:
    """The request with nothing left to be decided: sizes, steps, sampler, a real seed.

    Without a size, a start image keeps its own; a bigger one than the model was trained for is brought down to the
    model's number of pixels, keeping its aspect. "Only masked" works at the model's size.

    Args:
        init_size: (width, height) of the start image, if there is one.
    """
    native = defaults.width, defaults.height
    size = native if init_size is None or request.only_masked else _size_for_start_image(init_size, native)
    return request.model_copy(
        update={
            "width": request.width or size[0],
            "height": request.height or size[1],
            "num_inference_steps": request.num_inference_steps or defaults.num_inference_steps,
            "guidance_scale": defaults.guidance_scale if request.guidance_scale is None else request.guidance_scale,
            "sampler": request.sampler or defaults.sampler,
            "scheduler": request.scheduler or defaults.scheduler,
            "seed": secrets.randbelow(RANDOM_SEEDS) if request.seed == -1 else request.seed,
        }
    )


def _size_for_start_image(size: tuple[int, int], native: tuple[int, int]) -> tuple[int, int]:
    shrink = min(1.0, math.sqrt(native[0] * native[1] / (size[0] * size[1])))
    width, height = (max(16, round(side * shrink / 8) * 8) for side in size)
    return width, height


def sampler_names() -> tuple[str, ...]:
    return _choices("sampler_name")


def scheduler_names() -> tuple[str, ...]:
    return _choices("scheduler")
