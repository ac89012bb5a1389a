"""From what a client sent to plans with nothing left open, one for each batch."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import Any

from atoll.api.a1111.graphs import HiresPass, Mask, Plan, Start, Words
from atoll.api.a1111.models import (
    LANCZOS,
    LATENT_UPSCALERS,
    NEAREST,
    Checkpoint,
    find_checkpoint,
    find_vae,
    upscale_models,
)
from atoll.api.a1111.prompts import apply_styles, read_styles, take_out_loras
from atoll.api.a1111.requests import GenerationRequest, Img2ImgRequest, Txt2ImgRequest
from atoll.api.a1111.samplers import Sampling, resolve_sampling
from atoll.api.a1111.scope import Refused
from atoll.api.a1111.scripts import refuse_scripts
from atoll.api.a1111.sent_pictures import keep_mask, keep_picture
from atoll.api.image_request import BIGGEST_BATCH_PIXELS, BIGGEST_SEED, RANDOM_SEEDS
from atoll.api.services import StudioServices
from atoll.artifacts.encode import FORMATS
from atoll.errors import InvalidRequest, NotPossibleYet

LATENT_PIXELS = 8
SAME_AS_FIRST = ("", "use same checkpoint", "use same sampler", "use same scheduler")
MOST_INIT_IMAGES = 64


@dataclass(frozen=True)
class Batches:
    """plans: one for each batch, of all the request's pictures. sampling: by A1111's name. format: of the answer."""

    plans: tuple[Plan, ...]
    checkpoint: Checkpoint
    styles: tuple[str, ...]
    format: str
    jpeg_quality: int
    wants_grid: bool


def plan_batches(services: StudioServices, request: GenerationRequest, options: dict[str, Any]) -> Batches:
    """Decide all that the request leaves open. Keeps its pictures among the inputs.

    Args:
        options: the caller's, by name; the request's override_settings go before them.
    Raises: AtollError: what can't be, or is not there.
    """
    options = {**options, **{name: value for name, value in request.override_settings.items() if value is not None}}
    refuse_scripts(request)
    _refuse_what_is_missing(request)
    checkpoint = find_checkpoint(services, _text(options, "sd_model_checkpoint"))
    styles = {style.name: style for style in read_styles(services.settings.home)}
    chosen = [styles[name] for name in request.styles if name in styles]
    words = words_of(
        services,
        apply_styles(request.prompt, [style.prompt for style in chosen]),
        apply_styles(request.negative_prompt, [style.negative_prompt for style in chosen]),
    )
    sampling = resolve_sampling(request.sampler_name or request.sampler_index, request.scheduler)
    width, height = (max(16, side // LATENT_PIXELS * LATENT_PIXELS) for side in (request.width, request.height))
    start = _start(services, request)
    batch_size = request.batch_size if start is None or len(start.names) == 1 else len(start.names)
    hires = _hires(services, request, words, sampling, width, height)
    pixels = max(width * height, hires.width * hires.height if hires else 0)
    if pixels * batch_size > BIGGEST_BATCH_PIXELS:
        raise InvalidRequest(
            f"batch_size {batch_size} of {pixels} pixels each is more than {BIGGEST_BATCH_PIXELS // 2**20} million "
            "pixels at once. Ask for smaller pictures, or for fewer in a batch and more of them in n_iter."
        )
    first = Plan(
        model=checkpoint.name,
        words=words,
        sampling=sampling,
        steps=request.steps,
        cfg_scale=request.cfg_scale,
        width=width,
        height=height,
        batch_size=batch_size,
        seed=_seed(request.seed),
        subseed=_seed(request.subseed),
        subseed_strength=request.subseed_strength,
        resize_from=_resize_from(request),
        vae=find_vae(services, _vae_of(options)),
        clip_skip=_clip_skip(options),
        start=start,
        hires=hires,
        all_steps=bool(options.get("img2img_fix_steps")),
        inpainting_model=checkpoint.inpainting,
        keep=request.save_images and not request.do_not_save_samples,
    )
    format = str(options.get("samples_format") or "png").lower().lstrip(".")
    return Batches(
        plans=tuple(_nth(first, number) for number in range(request.n_iter)),
        checkpoint=checkpoint,
        styles=tuple(style.name for style in chosen),
        format=format if format in FORMATS else "png",
        jpeg_quality=_quality(options),
        wants_grid=request.save_images and not request.do_not_save_grid and bool(options.get("return_grid", True)),
    )


def words_of(services: StudioServices, prompt: str, negative_prompt: str) -> Words:
    """Prompts with the LoRAs taken out. Raises: NotPossibleYet, Refused where a LoRA is not there."""
    text, loras = take_out_loras(prompt)
    if loras and services.registry.get("LoraLoader") is None:
        names = ", ".join(f"<lora:{lora.name}:{lora.weight:g}>" for lora in loras)
        raise NotPossibleYet(f"The prompt asks for {names}: Atoll cannot apply LoRAs yet. Take them out of the prompt.")
    known = services.catalogue.names("loras")
    named = []
    for lora in loras:
        found = next((name for name in known if lora.name in (name, name.rsplit(".", 1)[0], _stem(name))), None)
        if found is None:
            folder = services.catalogue.folder("loras")
            raise Refused(f'There is no LoRA "{lora.name}" here. New ones belong in {folder}.', 404)
        named.append(replace(lora, name=found))
    return Words(text, negative_prompt, (prompt, negative_prompt), tuple(named))


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def _nth(first: Plan, number: int) -> Plan:
    """The plan of a later batch: its seeds go on where the one before ended."""
    further = number * first.batch_size
    varied = first.subseed_strength > 0
    return replace(
        first,
        seed=first.seed if varied else (first.seed + further) % (BIGGEST_SEED + 1),
        subseed=(first.subseed + further) % (BIGGEST_SEED + 1),
    )


def _refuse_what_is_missing(request: GenerationRequest) -> None:
    if request.restore_faces:
        raise NotPossibleYet("restore_faces: Atoll has no face restorer yet. Leave it off.")
    if request.tiling:
        raise NotPossibleYet("tiling: Atoll cannot make seamless tiles yet. Leave it off.")
    if request.refiner_checkpoint and request.refiner_checkpoint.lower() != "none":
        raise NotPossibleYet("refiner_checkpoint: Atoll cannot change the model within a picture yet. Leave it out.")


def _start(services: StudioServices, request: GenerationRequest) -> Start | None:
    if not isinstance(request, Img2ImgRequest):
        return None
    if not request.init_images:
        raise Refused("Init image not found: init_images is empty. Send one picture or more, in base64.", 404)
    if len(request.init_images) > MOST_INIT_IMAGES:
        raise InvalidRequest(
            f"init_images are {len(request.init_images)}; at most {MOST_INIT_IMAGES} are taken at once."
        )
    names = tuple(keep_picture(services, text, f"init_images[{n}]") for n, text in enumerate(request.init_images))
    return Start(names, request.resize_mode, request.denoising_strength, _mask(services, request))


def _mask(services: StudioServices, request: Img2ImgRequest) -> Mask | None:
    if not request.mask:
        return None
    blur = request.mask_blur
    if blur is None:
        if request.mask_blur_x != request.mask_blur_y:
            raise NotPossibleYet(
                f"mask_blur_x {request.mask_blur_x} and mask_blur_y {request.mask_blur_y} differ; Atoll blurs a mask "
                "both ways alike. Give one mask_blur."
            )
        blur = request.mask_blur_x
    return Mask(
        name=keep_mask(services, request.mask, rounded=request.mask_round),
        invert=bool(request.inpainting_mask_invert),
        blur=blur,
        content=request.inpainting_fill,
        only_masked=request.inpaint_full_res,
        padding=request.inpaint_full_res_padding,
    )


def _hires(
    services: StudioServices, request: GenerationRequest, words: Words, sampling: Sampling, width: int, height: int
) -> HiresPass | None:
    if not isinstance(request, Txt2ImgRequest) or not request.enable_hr:
        return None
    size = hires_size(width, height, request.hr_scale, request.hr_resize_x, request.hr_resize_y)
    name = request.hr_upscaler or "Latent"
    networks = upscale_models(services)
    network = next((model for model in networks if name in (model, _stem(model))), None)
    if network is None and name not in LATENT_UPSCALERS and name not in ("None", LANCZOS, NEAREST):
        known = ", ".join([*LATENT_UPSCALERS, "None", LANCZOS, NEAREST, *networks])
        raise Refused(f'There is no upscaler "{name[:60]}" here. There are: {known}.', 422)
    second = _second_sampling(request, sampling)
    hires_words = words
    if request.hr_prompt or request.hr_negative_prompt:
        prompts = request.hr_prompt or words.written[0], request.hr_negative_prompt or words.written[1]
        hires_words = words_of(services, *prompts)
    other_model = (request.hr_checkpoint_name or "").strip()
    return HiresPass(
        width=size[0],
        height=size[1],
        crops=size[0] * height != size[1] * width,
        steps=request.hr_second_pass_steps or request.steps,
        denoising_strength=request.denoising_strength,
        words=hires_words,
        sampling=second,
        latent_method=LATENT_UPSCALERS.get(name),
        image_method="nearest-exact" if name == NEAREST else "lanczos",
        upscale_model=network,
        model=None if other_model.lower() in SAME_AS_FIRST else find_checkpoint(services, other_model).name,
    )


def hires_size(width: int, height: int, scale: float, resize_x: int, resize_y: int) -> tuple[int, int]:
    """(width, height) of a hires fix: a multiple of the first's, or as given; one side given keeps the aspect."""
    if resize_x and resize_y:
        size = resize_x, resize_y
    elif resize_x or resize_y:
        size = resize_x or resize_y * width // height, resize_y or resize_x * height // width
    else:
        size = int(width * scale), int(height * scale)
    return max(16, size[0] // LATENT_PIXELS * LATENT_PIXELS), max(16, size[1] // LATENT_PIXELS * LATENT_PIXELS)


def _second_sampling(request: Txt2ImgRequest, first: Sampling) -> Sampling:
    name, scheduler = request.hr_sampler_name or "", request.hr_scheduler or ""
    if name.lower() in SAME_AS_FIRST and scheduler.lower() in SAME_AS_FIRST:
        return first
    kept = first.name if name.lower() in SAME_AS_FIRST else name
    schedule = first.schedule if scheduler.lower() in SAME_AS_FIRST else scheduler
    return resolve_sampling(kept, schedule)


def _seed(seed: int) -> int:
    return secrets.randbelow(RANDOM_SEEDS) if seed == -1 else seed


def _resize_from(request: GenerationRequest) -> tuple[int, int]:
    width, height = request.seed_resize_from_w, request.seed_resize_from_h
    return (width, height) if width > 0 and height > 0 else (0, 0)


def _text(options: dict[str, Any], name: str) -> str | None:
    value = options.get(name)
    return value if isinstance(value, str) and value.strip() else None


def _vae_of(options: dict[str, Any]) -> str | None:
    """sd_vae, or the VAE among Forge's modules, which may name text encoders too."""
    modules = options.get("forge_additional_modules")
    if isinstance(modules, list) and modules and isinstance(modules[0], str):
        return modules[0].replace("\\", "/").rsplit("/", 1)[-1]
    return _text(options, "sd_vae")


def _clip_skip(options: dict[str, Any]) -> int:
    try:
        return min(12, max(1, int(options.get("CLIP_stop_at_last_layers") or 1)))
    except (TypeError, ValueError) as error:
        raise InvalidRequest("CLIP_stop_at_last_layers must be a whole number from 1 to 12.") from error


def _quality(options: dict[str, Any]) -> int:
    quality = options.get("jpeg_quality")
    return min(100, max(1, quality)) if isinstance(quality, int) else 80
