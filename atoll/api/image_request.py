"""A picture somebody asks for, and its translation to a graph: what the CLI, the REST API and the studio share."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from atoll.api.faults import FaultyRequest, RequestFault, faults_from_validation, nearest

LONGEST_PROMPT = 100_000  # characters: some 300 chunks of 77 tokens, far above any use, far below what hurts
BIGGEST_SIDE = 8192  # pixels
BIGGEST_BATCH_PIXELS = 64 * 2**20  # of all pictures of one request together
BIGGEST_SEED = 2**64 - 1  # as ComfyUI's KSampler
RANDOM_SEEDS = 2**32  # a drawn seed stays short enough to be read aloud, and whole in JavaScript

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
    batch_size: int = Field(1, ge=1, le=64, description="How many pictures, in one batch.")
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


class ImageDefaults(BaseModel):
    """What a model wants when a request does not say."""

    model_config = ConfigDict(frozen=True)

    width: int = 512
    height: int = 512
    num_inference_steps: int = 20
    guidance_scale: float = 7.0
    sampler: str = "dpmpp_2m"
    scheduler: str = "karras"
