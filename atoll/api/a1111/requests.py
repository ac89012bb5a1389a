"""The bodies that A1111's clients send. Unknown fields are left out and logged; null means the default."""

from __future__ import annotations

import logging
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from atoll.api.image_request import BIGGEST_SEED, BIGGEST_SIDE, LONGEST_PROMPT

log = logging.getLogger(__name__)

Prompt = Annotated[str, Field(max_length=LONGEST_PROMPT)]
Seed = Annotated[int, Field(ge=-1, le=BIGGEST_SEED)]
Side = Annotated[int, Field(ge=16, le=BIGGEST_SIDE)]
OtherSide = Annotated[int, Field(le=BIGGEST_SIDE)]  # 0 or less: not given
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Lenient(BaseModel):
    """A body as real clients fill it."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _leave_out(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        unknown = sorted(str(name)[:60] for name in values if name not in cls.model_fields)
        if unknown:
            log.info("Fields that Atoll does not have are left out: %s.", ", ".join(unknown[:30]))
        return {name: value for name, value in values.items() if value is not None}


class GenerationRequest(Lenient):
    """What txt2img and img2img share. Those without a word in docs/a1111.md change nothing."""

    prompt: Prompt = ""
    negative_prompt: Prompt = ""
    styles: list[str] = []
    seed: Seed = -1
    subseed: Seed = -1
    subseed_strength: Share = 0.0
    seed_resize_from_h: OtherSide = -1
    seed_resize_from_w: OtherSide = -1
    sampler_name: str | None = None
    sampler_index: str = "Euler"
    scheduler: str | None = None
    batch_size: int = Field(1, ge=1, le=64)
    n_iter: int = Field(1, ge=1, le=100)
    steps: int = Field(50, ge=1, le=1000)
    cfg_scale: float = Field(7.0, ge=0, le=100, allow_inf_nan=False)
    width: Side = 512
    height: Side = 512
    restore_faces: bool = False
    tiling: bool = False
    do_not_save_samples: bool = False
    do_not_save_grid: bool = False
    eta: Number | None = None
    denoising_strength: Share = 0.75
    s_min_uncond: Number | None = None
    s_churn: Number | None = None
    s_tmax: Number | None = None
    s_tmin: Number | None = None
    s_noise: Number | None = None
    override_settings: dict[str, Any] = {}
    override_settings_restore_afterwards: bool = True
    refiner_checkpoint: str | None = None
    refiner_switch_at: Number | None = None
    disable_extra_networks: bool = False
    comments: dict[str, Any] | None = None
    script_name: str | None = None
    script_args: list[Any] = []
    alwayson_scripts: dict[str, Any] = {}
    send_images: bool = True
    save_images: bool = False
    force_task_id: str | None = None
    infotext: str | None = None


class Txt2ImgRequest(GenerationRequest):
    """POST /sdapi/v1/txt2img."""

    enable_hr: bool = False
    firstphase_width: int = 0
    firstphase_height: int = 0
    firstpass_image: str | None = None
    hr_scale: float = Field(2.0, ge=1, le=8, allow_inf_nan=False)
    hr_upscaler: str | None = None
    hr_second_pass_steps: int = Field(0, ge=0, le=1000)
    hr_resize_x: int = Field(0, ge=0, le=BIGGEST_SIDE)
    hr_resize_y: int = Field(0, ge=0, le=BIGGEST_SIDE)
    hr_checkpoint_name: str | None = None
    hr_sampler_name: str | None = None
    hr_scheduler: str | None = None
    hr_prompt: Prompt = ""
    hr_negative_prompt: Prompt = ""


class Img2ImgRequest(GenerationRequest):
    """POST /sdapi/v1/img2img."""

    init_images: list[str] = []
    resize_mode: int = Field(0, ge=0, le=3)
    image_cfg_scale: Number | None = None
    mask: str | None = None
    mask_blur: int | None = Field(None, ge=0, le=256)
    mask_blur_x: int = Field(4, ge=0, le=256)
    mask_blur_y: int = Field(4, ge=0, le=256)
    mask_round: bool = True
    inpainting_fill: int = Field(0, ge=0, le=3)
    inpaint_full_res: bool = True
    inpaint_full_res_padding: int = Field(0, ge=0, le=1024)
    inpainting_mask_invert: int = Field(0, ge=0, le=1)
    initial_noise_multiplier: Number | None = None
    latent_mask: str | None = None
    include_init_images: bool = False


class ExtrasRequest(Lenient):
    """What both extra-* routes share."""

    resize_mode: int = Field(0, ge=0, le=1)
    show_extras_results: bool = True
    gfpgan_visibility: Share = 0.0
    codeformer_visibility: Share = 0.0
    codeformer_weight: Share = 0.0
    upscaling_resize: float = Field(2.0, ge=1, le=8, allow_inf_nan=False)
    upscaling_resize_w: int = Field(512, ge=1, le=BIGGEST_SIDE)
    upscaling_resize_h: int = Field(512, ge=1, le=BIGGEST_SIDE)
    upscaling_crop: bool = True
    upscaler_1: str = "None"
    upscaler_2: str = "None"
    extras_upscaler_2_visibility: Share = 0.0
    upscale_first: bool = False


class ExtraSingleRequest(ExtrasRequest):
    image: str = ""


class NamedImage(Lenient):
    data: str
    name: str = "picture"


class ExtraBatchRequest(ExtrasRequest):
    imageList: list[NamedImage] = Field([], max_length=100)  # noqa: N815 - A1111's name


class ImageBody(Lenient):
    """A body that is one picture; `model` is for interrogate."""

    image: str = ""
    model: str = "clip"


class ProgressBody(Lenient):
    """POST /internal/progress."""

    id_task: str = ""
    id_live_preview: int = -1
    live_preview: bool = True
