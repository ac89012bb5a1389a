"""What txt2img and img2img ask for, said in nodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atoll.api.a1111.prompt_steps import texts_of_steps
from atoll.api.a1111.prompts import PromptLora
from atoll.api.a1111.samplers import Sampling
from atoll.graph.graph import Graph, Link

FILENAME_PREFIX = "atoll"


@dataclass(frozen=True)
class Words:
    """Prompts without their LoRAs, which are named beside; written: both as sent, for the text in the picture."""

    prompt: str
    negative_prompt: str
    written: tuple[str, str]
    loras: tuple[PromptLora, ...] = ()


@dataclass(frozen=True)
class HiresPass:
    """A second pass at a higher resolution.

    latent_method: of AtollUpscaleLatent, with its antialiasing; None: the picture itself is scaled, by image_method,
        or by the upscaling network upscale_model. crops: the size has another aspect than the first pass.
    """

    width: int
    height: int
    crops: bool
    steps: int
    denoising_strength: float
    words: Words
    sampling: Sampling
    latent_method: tuple[str, bool] | None = None
    image_method: str = "lanczos"
    upscale_model: str | None = None
    model: str | None = None  # None: the first pass's


@dataclass(frozen=True)
class Mask:
    """name: an input, white where to paint. content: A1111's inpainting_fill, 0 to 3. crops: "only masked"."""

    name: str
    invert: bool
    blur: int
    content: int
    only_masked: bool
    padding: int


@dataclass(frozen=True)
class Start:
    """Start images, by the names of inputs; resize_mode as in A1111, 0 to 3."""

    names: tuple[str, ...]
    resize_mode: int
    denoising_strength: float
    mask: Mask | None = None


@dataclass(frozen=True)
class Plan:
    """One batch, with nothing left open. Sizes in pixels; resize_from is (width, height), both 0 for none.

    all_steps: make all of the steps of img2img; A1111 makes denoising_strength's share of them, and one more.
    inpainting_model: it has 9 channels and wants to be told the mask.
    keep: leave the pictures in the gallery.
    """

    model: str
    words: Words
    sampling: Sampling
    steps: int
    cfg_scale: float
    width: int
    height: int
    batch_size: int
    seed: int
    subseed: int = 0
    subseed_strength: float = 0.0
    resize_from: tuple[int, int] = (0, 0)
    vae: str | None = None
    clip_skip: int = 1
    start: Start | None = None
    hires: HiresPass | None = None
    all_steps: bool = False
    inpainting_model: bool = False
    keep: bool = False


@dataclass(frozen=True)
class Parts:
    """Links to the parts of a checkpoint, LoRAs applied."""

    model: Link
    clip: Link
    vae: Link


@dataclass(frozen=True)
class Told:
    """Links to what the sampler is told."""

    positive: Link
    negative: Link


@dataclass(frozen=True)
class Steps:
    """The sampler's part that steps are counted in."""

    count: int
    sampling: Sampling
    denoise: float = 1.0
    start_at: int = 0

    @property
    def made(self) -> int:
        return self.count - self.start_at


def graph_of(plan: Plan) -> Graph:
    """Say in nodes what one batch asks for."""
    graph = Graph()
    parts = _load(graph, plan, plan.model, plan.words.loras)
    if plan.start is None:
        latents = _sample_from_nothing(graph, plan, parts)
        if plan.hires is None:
            images = graph.add("VAEDecode", samples=latents, vae=parts.vae)[0]
        else:
            images = _second_pass(graph, plan, plan.hires, parts, latents)
    else:
        images = _paint_over(graph, plan, plan.start, parts)
    if plan.keep:
        graph.add("SaveImage", images=images, filename_prefix=FILENAME_PREFIX)
    else:
        graph.add("PreviewImage", images=images)
    return graph


# --- parts


def _load(graph: Graph, plan: Plan, name: str, loras: Sequence[PromptLora]) -> Parts:
    checkpoint = graph.add("CheckpointLoaderSimple", ckpt_name=name)
    model, clip, vae = checkpoint[0], checkpoint[1], checkpoint[2]
    if plan.vae is not None:
        vae = graph.add("VAELoader", vae_name=plan.vae)[0]
    for lora in loras:
        applied = graph.add(
            "LoraLoader", model=model, clip=clip,
            lora_name=lora.name, strength_model=lora.weight, strength_clip=lora.weight,
        )  # fmt: skip
        model, clip = applied[0], applied[1]
    if plan.clip_skip > 1:
        clip = graph.add("CLIPSetLastLayer", clip=clip, stop_at_clip_layer=-plan.clip_skip)[0]
    return Parts(model, clip, vae)


def _tell(graph: Graph, parts: Parts, words: Words, steps: Steps, steps_before: int | None = None) -> Told:
    return Told(
        _encode(graph, parts, words.prompt, words.written[0], steps, steps_before),
        _encode(graph, parts, words.negative_prompt, words.written[1], steps, steps_before),
    )


def _encode(graph: Graph, parts: Parts, prompt: str, written: str, steps: Steps, steps_before: int | None) -> Link:
    """The prompt, or each of its wordings for its own steps."""
    wordings = texts_of_steps(prompt, steps.made, steps_before=steps_before)
    links = []
    for wording in wordings:
        link = graph.add("AtollTextEncode", clip=parts.clip, text=wording.text, emphasis="a1111")[0]
        if wording.text != written:
            _note(graph, link, prompt=written)
        if len(wordings) > 1:
            link = graph.add(
                "AtollPromptSteps",
                conditioning=link, model=parts.model,
                ranges=",".join(f"{first}-{last}" for first, last in wording.ranges),
                steps=steps.count, sampler_name=steps.sampling.sampler, scheduler=steps.sampling.schedule,
                denoise=steps.denoise, start_at_step=steps.start_at,
            )[0]  # fmt: skip
        links.append(link)
    whole = links[0]
    for link in links[1:]:
        whole = graph.add("ConditioningCombine", conditioning_1=whole, conditioning_2=link)[0]
    return whole


def _own_noise(graph: Graph, plan: Plan, latents: Link) -> Link:
    """A1111's rule: picture i of a batch has seed + i, or the subseed + i."""
    return graph.add(
        "AtollImageNoise",
        samples=latents, subseed=plan.subseed, subseed_strength=plan.subseed_strength,
        resize_from_width=plan.resize_from[0], resize_from_height=plan.resize_from[1],
    )[0]  # fmt: skip


def _sample(graph: Graph, plan: Plan, model: Link, told: Told, latents: Link, steps: Steps) -> Link:
    """Run the sampler through its steps, from pure noise unless they begin later."""
    return graph.add(
        "KSampler",
        model=model, seed=plan.seed, steps=steps.count, cfg=plan.cfg_scale,
        sampler_name=steps.sampling.sampler, scheduler=steps.sampling.schedule,
        positive=told.positive, negative=told.negative, latent_image=latents, denoise=steps.denoise,
    )[0]  # fmt: skip


def _note(graph: Graph, link: Link, **said: Any) -> None:
    """Keep with a node what the text in the picture says in place of its fields."""
    graph.nodes[link.node_id] = dataclasses.replace(graph.nodes[link.node_id], meta=said)


# --- txt2img


def _sample_from_nothing(graph: Graph, plan: Plan, parts: Parts) -> Link:
    steps = Steps(plan.steps, plan.sampling)
    told = _tell(graph, parts, plan.words, steps)
    empty = graph.add("EmptyLatentImage", width=plan.width, height=plan.height, batch_size=plan.batch_size)[0]
    return _sample(graph, plan, parts.model, told, _own_noise(graph, plan, empty), steps)


def _second_pass(graph: Graph, plan: Plan, hires: HiresPass, parts: Parts, latents: Link) -> Link:
    """The pictures of a hires fix: all of `steps` are made, from a lower level of noise."""
    upscaled = _upscale(graph, hires, parts, latents)
    if hires.model is not None or hires.words.loras != plan.words.loras:
        parts = _load(graph, plan, hires.model or plan.model, hires.words.loras)
    steps = Steps(hires.steps, hires.sampling, denoise=hires.denoising_strength)
    told = _tell(graph, parts, hires.words, steps, steps_before=plan.steps)
    sampled = _sample(graph, plan, parts.model, told, _own_noise(graph, plan, upscaled), steps)
    return graph.add("VAEDecode", samples=sampled, vae=parts.vae)[0]


def _upscale(graph: Graph, hires: HiresPass, parts: Parts, latents: Link) -> Link:
    if hires.latent_method is not None:
        method, antialias = hires.latent_method
        return graph.add(
            "AtollUpscaleLatent",
            samples=latents, upscale_method=method, antialias=antialias, width=hires.width, height=hires.height,
        )[0]  # fmt: skip
    image = graph.add("VAEDecode", samples=latents, vae=parts.vae)[0]
    if hires.upscale_model is not None:
        image = upscaled_by_network(graph, image, hires.upscale_model)
    image = graph.add(
        "ImageScale",
        image=image, upscale_method=hires.image_method, width=hires.width, height=hires.height,
        crop="center" if hires.crops else "disabled",
    )[0]  # fmt: skip
    return graph.add("VAEEncode", pixels=image, vae=parts.vae)[0]


def upscaled_by_network(graph: Graph, image: Link, name: str) -> Link:
    network = graph.add("UpscaleModelLoader", model_name=name)[0]
    return graph.add("ImageUpscaleWithModel", upscale_model=network, image=image)[0]


# --- img2img


def _paint_over(graph: Graph, plan: Plan, start: Start, parts: Parts) -> Link:
    # A1111 makes int(steps * strength) + 1 of the steps; its option "img2img_fix_steps" makes all.
    made = int(min(start.denoising_strength, 0.999) * plan.steps) + 1
    steps = Steps(plan.steps, plan.sampling, start_at=plan.steps - made)
    if plan.all_steps:
        steps = Steps(plan.steps, plan.sampling, denoise=start.denoising_strength)
    told = _tell(graph, parts, plan.words, steps)
    images = _load_all(graph, start.names)
    mask = None if start.mask is None else _load_mask(graph, start.mask)
    whole, whole_mask = images, mask
    region: Link | None = None
    if start.mask is not None and start.mask.only_masked:
        cut = graph.add(
            "AtollCropToMask",
            image=images, mask=mask, width=plan.width, height=plan.height, padding=start.mask.padding,
        )  # fmt: skip
        images, mask, region = cut[0], cut[1], cut[2]
    elif start.resize_mode != 3:
        whole = images = _resized(graph, images, start.resize_mode, plan.width, plan.height)
        if mask is not None and start.resize_mode in (1, 2):
            picture = graph.add("MaskToImage", mask=mask)
            scaled = _resized(graph, picture[0], start.resize_mode, plan.width, plan.height)
            whole_mask = mask = graph.add("ImageToMask", image=scaled, channel="red")[0]

    latents, told = _start_latents(graph, plan, start, parts, told, images, mask)
    if start.resize_mode == 3 and region is None:
        latents = graph.add(
            "AtollUpscaleLatent",
            samples=latents, upscale_method="bilinear", antialias=False, width=plan.width, height=plan.height,
        )[0]  # fmt: skip
    repeats = plan.batch_size if len(start.names) == 1 else 1
    if repeats > 1:
        latents = graph.add("RepeatLatentBatch", samples=latents, amount=repeats)[0]
    latents = _own_noise(graph, plan, latents)
    sampled = _sample_part(graph, plan, start, parts, told, latents, steps)
    images = graph.add("VAEDecode", samples=sampled, vae=parts.vae)[0]
    if mask is None:
        return images
    if start.resize_mode == 3 and region is None:
        whole = _resized(graph, whole, 0, plan.width, plan.height)
    place = {} if region is None else {"region": region}
    return graph.add("AtollPasteBack", image=whole, painted=images, mask=whole_mask, **place)[0]


def _sample_part(graph: Graph, plan: Plan, start: Start, parts: Parts, told: Told, latents: Link, steps: Steps) -> Link:
    if plan.all_steps:
        return _sample(graph, plan, parts.model, told, latents, steps)
    sampled = graph.add(
        "KSamplerAdvanced",
        model=parts.model, add_noise="enable", noise_seed=plan.seed, steps=steps.count, cfg=plan.cfg_scale,
        sampler_name=steps.sampling.sampler, scheduler=steps.sampling.schedule,
        positive=told.positive, negative=told.negative, latent_image=latents,
        start_at_step=steps.start_at, end_at_step=10_000, return_with_leftover_noise="disable",
    )  # fmt: skip
    _note(graph, sampled[0], denoising_strength=start.denoising_strength)
    return sampled[0]


def _start_latents(
    graph: Graph, plan: Plan, start: Start, parts: Parts, told: Told, images: Link, mask: Link | None
) -> tuple[Link, Told]:
    """Latents to start from, their masked part filled as asked; and what an inpainting model is told besides."""
    if start.mask is None or mask is None:
        return graph.add("VAEEncode", pixels=images, vae=parts.vae)[0], told
    if start.mask.content == 0:
        images = graph.add("AtollFillMasked", image=images, mask=mask)[0]
    if plan.inpainting_model:
        shown = graph.add(
            "InpaintModelConditioning",
            positive=told.positive, negative=told.negative, vae=parts.vae, pixels=images, mask=mask, noise_mask=True,
        )  # fmt: skip
        latents, told = shown[2], Told(shown[0], shown[1])
    else:
        encoded = graph.add("VAEEncode", pixels=images, vae=parts.vae)[0]
        latents = graph.add("SetLatentNoiseMask", samples=encoded, mask=mask)[0]
    if start.mask.content in (2, 3):
        latents = graph.add(
            "AtollMaskedLatents",
            samples=latents, mask=mask, model=parts.model,
            content="noise" if start.mask.content == 2 else "nothing", seed=plan.seed,
        )[0]  # fmt: skip
    return latents, told


def _load_all(graph: Graph, names: Sequence[str]) -> Link:
    images = graph.add("LoadImage", image=names[0])[0]
    for name in names[1:]:
        images = graph.add("ImageBatch", image1=images, image2=graph.add("LoadImage", image=name))[0]
    return images


def _load_mask(graph: Graph, mask: Mask) -> Link:
    link = graph.add("LoadImageMask", image=mask.name, channel="red")[0]
    if mask.invert:
        link = graph.add("InvertMask", mask=link)[0]
    if mask.blur:
        link = graph.add("AtollBlurMask", mask=link, radius=mask.blur)[0]
    return link


def _resized(graph: Graph, image: Link, mode: int, width: int, height: int) -> Link:
    """mode: A1111's: 0 stretches, 1 cuts off what is over, 2 fills what is left."""
    if mode == 2:
        return graph.add("AtollResizeAndFill", image=image, width=width, height=height)[0]
    crop = "center" if mode == 1 else "disabled"
    return graph.add("ImageScale", image=image, upscale_method="lanczos", width=width, height=height, crop=crop)[0]
