"""From a network and what it is told to a denoiser: (latents, sigma) -> clean latents."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from atoll.diffusion.conditioning import Conditioning
from atoll.diffusion.denoiser import TwoSidedDenoiser
from atoll.diffusion.model import Estimates, Model
from atoll.diffusion.prediction import read_prediction, scale_input
from atoll.diffusion.regions import Placed, place, with_partners
from atoll.errors import InvalidRequest, NotANumber

# Prompts of unlike length share one call of the network if that repeats none of them more often than this.
MAX_REPEATS = 4
PIXELS_PER_LATENT = 8
# Latents (scaled) of an evenly grey picture in the first Stable Diffusion's VAE: what an inpainting network is shown
# where there is no picture.
GREY_LATENTS = (0.8223, -0.6876, 0.6364, 0.1380)
# What SDXL's refiner is told where nobody says how beautiful the picture is.
REFINER_SCORE, REFINER_NEGATIVE_SCORE = 6.0, 2.5


@dataclass(frozen=True)
class InpaintStart:
    """What an inpainting network is shown when the conditioning itself does not say.

    mask: (1 or batch, 1, height, width) at any size, 1 = change. latents: unscaled.
    """

    mask: Tensor
    latents: Tensor


TimestepOf = Callable[[Tensor], Tensor]
Estimate = Callable[[Tensor, Tensor], list[Tensor]]
"""(latents, sigma) -> for each group of prompts the clean latents that it would have."""


def build_denoiser(
    model: Model,
    positive: Sequence[Conditioning],
    negative: Sequence[Conditioning],
    guidance_scale: float,
    *,
    timestep_of: TimestepOf | None = None,
    inpaint_start: InpaintStart | None = None,
    asks_negative: bool = False,
) -> TwoSidedDenoiser:
    """Bind network, prompts and guidance.

    The network runs in the model's precision, everything around it in float32. With guidance_scale 1 the negative
    says nothing and is not run. Positive and negative share a call of the network where their lengths allow it.

    Args:
        positive, negative: each a mix of one or more; weighed by their strengths, areas and masks.
        timestep_of: sigma -> what the network is told; the nearest trained timestep unless given.
        asks_negative: run the negative whatever guidance_scale is; some samplers want to know its answer.

    Raises: InvalidRequest, if the conditioning does not fit the network. The denoiser raises NotANumber, if the
        network answers nonsense, as some do in fp16.

    Source: Ho & Salimans 2022, arXiv:2207.12598, equation 6.
    """
    check_guidance_scale(guidance_scale)
    if not positive:
        raise InvalidRequest("There is no positive prompt to sample from; encode one, an empty text will do.")
    is_changed = model.guide is not None or bool(model.corrections)
    guided = len(negative) > 0 and (is_changed or asks_negative or not math.isclose(guidance_scale, 1.0))
    extras = model.guide.told if model.guide is not None and guided else ()
    groups = [positive, *([negative] if guided else []), *extras]
    estimate = build_estimate(model, groups, timestep_of=timestep_of, inpaint_start=inpaint_start)

    estimate_negative = estimate
    if guided and model.corrections:
        estimate_negative = build_estimate(model, [negative], timestep_of=timestep_of, inpaint_start=inpaint_start)

    def ask_negative(latents: Tensor, sigma: Tensor) -> Tensor:
        return estimate_negative(latents, sigma)[0]

    def ask(latents: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor | None]:
        answers = estimate(latents, sigma)
        if not guided:
            denoised = answers[0]
        elif model.guide is not None:
            denoised = model.guide.combine(Estimates(latents, sigma, guidance_scale, answers))
        else:
            denoised = answers[1] + (answers[0] - answers[1]) * guidance_scale
        for correction in model.corrections if guided else ():
            known = Estimates(latents, sigma, guidance_scale, [*answers[:2], denoised])
            denoised = correction.corrected(model.unet, known, ask_negative)
        return checked(model, denoised, sigma), answers[1] if guided else None

    return TwoSidedDenoiser(ask)


def build_estimate(
    model: Model,
    groups: Sequence[Sequence[Conditioning]],
    *,
    timestep_of: TimestepOf | None = None,
    inpaint_start: InpaintStart | None = None,
) -> Estimate:
    """What each of several groups of prompts would draw by itself; they share calls of the network where they can.

    Within a group the answers are averaged, each weighing its strength where it speaks; where nobody does, the estimate
    is 0. The second group is the negative one, whose rectangles and the first's become each other's partners.
    """
    for group in groups:
        for conditioning in group:
            check_conditioning(model, conditioning)
    tell_timestep = timestep_of or model.noise_schedule.nearest_timestep
    placed_for: dict[tuple[int, int], list[list[Placed]]] = {}
    calls_for: dict[tuple[tuple[int, int], tuple[bool, ...]], list[Call]] = {}

    def placed_in(height: int, width: int) -> list[list[Placed]]:
        if (height, width) not in placed_for:
            placed = [[place(conditioning, height, width) for conditioning in group] for group in groups]
            if len(placed) > 1:
                placed[1] = with_partners(placed[1], placed[0])
                placed[0] = with_partners(placed[0], placed[1])
            placed_for[(height, width)] = placed
        return placed_for[(height, width)]

    def estimate(latents: Tensor, sigma: Tensor) -> list[Tensor]:
        height, width = latents.shape[-2:]
        placed = placed_in(height, width)
        everybody = [one for group in placed for one in group]
        group_of = [number for number, group in enumerate(placed) for _ in group]
        speaks = tuple(speaks_at(model, one.conditioning, float(sigma)) for one in everybody)
        key = ((height, width), speaks)
        if key not in calls_for:
            negative = [number == 1 for number in group_of]
            calls_for[key] = [
                build_call(model, everybody, members, negative, inpaint_start)
                for members in plan_calls(everybody, speaks)
            ]
        seen = scale_input(model.noise_schedule, latents, sigma).to(model.dtype)
        timestep = tell_timestep(sigma).to(model.device)
        answers: dict[int, Tensor] = {}
        with ExitStack() as stack:
            for patch in model.patches:
                stack.enter_context(patch.applied(model.unet, float(sigma), (height, width)))
            for call in calls_for[key]:
                answers.update(call(seen, timestep))
        return [
            mix(model, latents, sigma, [(everybody[one], answers[one]) for one in answers if group_of[one] == number])
            for number in range(len(groups))
        ]

    return estimate


def mix(model: Model, latents: Tensor, sigma: Tensor, answers: Sequence[tuple[Placed, Tensor]]) -> Tensor:
    """The clean latents of one group: the mean of its members' estimates, each with its weights at its place."""
    height, width = latents.shape[-2:]
    if len(answers) == 1 and answers[0][0].box is None and answers[0][0].mask is None:
        placed, output = answers[0]
        if placed.conditioning.strength != 0:
            return read_prediction(model.noise_schedule, latents, sigma, output.float())
    total, weight = torch.zeros_like(latents), torch.zeros_like(latents)
    for placed, output in answers:
        shown = placed.cut(latents)
        denoised = read_prediction(model.noise_schedule, shown, sigma, output.float())
        weights = placed.faded(placed.weights(shown), height, width).to(denoised)
        placed.cut(total).add_(denoised * weights)
        placed.cut(weight).add_(weights.expand_as(denoised))
    return torch.where(weight == 0, 0.0, total / torch.where(weight == 0, 1.0, weight))


def speaks_at(model: Model, conditioning: Conditioning, sigma: float) -> bool:
    """Whether a conditioning's part of the way holds this sigma."""
    schedule = model.noise_schedule
    starts = schedule.sigma_at_percent(conditioning.start_percent)
    return schedule.sigma_at_percent(conditioning.end_percent) <= sigma <= starts


def checked(model: Model, denoised: Tensor, sigma: Tensor) -> Tensor:
    """Raises: NotANumber. Waits for the device in every step; that also keeps progress honest and lets a job be stopped
    within a step.
    """
    if not torch.isfinite(denoised).all():
        raise NotANumber(
            f"The network answered with numbers that are none (NaN) at sigma {float(sigma):.4g}, in "
            f"{str(model.dtype).removeprefix('torch.')}. Run it in a wider precision (bf16 or fp32), "
            "or check that the checkpoint is undamaged and the guidance_scale not huge."
        )
    return denoised


def check_guidance_scale(guidance_scale: float) -> None:
    """Raises: InvalidRequest for what is no number."""
    if not math.isfinite(guidance_scale):
        raise InvalidRequest(f"guidance_scale is {guidance_scale}; it must be a number, usually 1 to 12.")


def check_conditioning(model: Model, conditioning: Conditioning) -> None:
    wanted = model.unet.config.cross_attention_dim
    width = conditioning.embeds.shape[-1]
    if isinstance(wanted, int) and width != wanted:
        raise InvalidRequest(
            f"The prompt was encoded to vectors of {width} numbers, but {model.name or 'the model'} wants {wanted}. "
            "Encode it with the text encoder of the same family of models."
        )
    if wants_picture_size(model) and conditioning.pooled is None:
        raise InvalidRequest(
            f"{model.name or 'The model'} is of the SDXL family and wants a pooled prompt vector, which this text "
            "encoder does not give. Encode the prompt with SDXL's two text encoders."
        )


def wants_picture_size(model: Model) -> bool:
    return getattr(model.unet.config, "addition_embed_type", None) == "text_time"


def plan_calls(told: Sequence[Placed], speaks: Sequence[bool]) -> list[list[int]]:
    """Which prompts run together in one call of the network: those that are shown the same size, and that one length
    can be repeated to.
    """
    plan: list[list[int]] = []
    for index, placed in enumerate(told):
        if not speaks[index]:
            continue
        tokens = placed.conditioning.embeds.shape[1]
        for members in plan:
            lengths = [told[member].conditioning.embeds.shape[1] for member in members] + [tokens]
            if placed.shape == told[members[0]].shape and math.lcm(*lengths) <= MAX_REPEATS * min(lengths):
                members.append(index)
                break
        else:
            plan.append([index])
    return plan


Call = Callable[[Tensor, Tensor], dict[int, Tensor]]
"""(scaled latents of the whole picture, timestep) -> the network's answer to each prompt, at its place."""


def build_call(
    model: Model,
    told: Sequence[Placed],
    members: list[int],
    negative: Sequence[bool],
    inpaint_start: InpaintStart | None,
) -> Call:
    """One call of the network for several prompts at once. negative: which of `told` are of the negative group."""
    conditionings = [told[member].conditioning for member in members]
    length = math.lcm(*(conditioning.embeds.shape[1] for conditioning in conditionings))
    # Attention over keys repeated n times is attention over the keys: softmax divides the n out.
    embeds = [
        conditioning.embeds.repeat(1, length // conditioning.embeds.shape[1], 1).to(model.device, model.dtype)
        for conditioning in conditionings
    ]

    def call(seen: Tensor, timestep: Tensor) -> dict[int, Tensor]:
        batch = len(seen)
        shown = []
        for member in members:
            inputs = seen
            if model.is_inpainting:
                extra = what_inpainting_sees(model, told[member].conditioning, inpaint_start, seen)
                inputs = torch.cat([seen, extra], dim=1)
            shown.append(told[member].cut(inputs))
        added = None
        if wants_picture_size(model):
            pooled = [conditioning.pooled for conditioning in conditionings]
            ids = [
                picture_size_ids(model, told[member].conditioning, seen.shape, is_negative=negative[member])
                for member in members
            ]
            added = {
                "text_embeds": torch.cat(
                    [to_batch(each.to(model.device, model.dtype), batch) for each in pooled if each is not None]
                ),
                "time_ids": torch.cat([to_batch(each, batch) for each in ids]),
            }
        output = model.unet(
            torch.cat(shown),
            timestep.expand(batch * len(members)),
            encoder_hidden_states=torch.cat([to_batch(each, batch) for each in embeds]),
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return dict(zip(members, output.chunk(len(members)), strict=True))

    return call


def picture_size_ids(model: Model, conditioning: Conditioning, shape: torch.Size, *, is_negative: bool) -> Tensor:
    """(1, 6) numbers that SDXL is told; (1, 5) for its refiner, which takes a score in place of the target size."""
    size = conditioning.size
    height = shape[-2] * PIXELS_PER_LATENT if size.height is None else size.height
    width = shape[-1] * PIXELS_PER_LATENT if size.width is None else size.width
    ids = [float(height), float(width), float(size.crop_top), float(size.crop_left)]
    if model.is_refiner:
        usual = REFINER_NEGATIVE_SCORE if is_negative else REFINER_SCORE
        ids.append(usual if size.aesthetic_score is None else size.aesthetic_score)
    else:
        ids.append(float(height if size.target_height is None else size.target_height))
        ids.append(float(width if size.target_width is None else size.target_width))
    return torch.tensor([ids], device=model.device, dtype=model.dtype)


def what_inpainting_sees(model: Model, conditioning: Conditioning, start: InpaintStart | None, seen: Tensor) -> Tensor:
    """(batch, 1 + channels, height, width): the mask, and the scaled latents of the picture without its masked part."""
    mask, latents = conditioning.inpaint_mask, conditioning.masked_latents
    if mask is None and start is not None:
        mask = start.mask
    if latents is None and start is not None:
        latents = start.latents
    if mask is None:
        mask = torch.ones_like(seen[:, :1])
    if latents is None:
        shown = seen.new_tensor(GREY_LATENTS[: model.latent_channels]).view(1, -1, 1, 1).expand_as(seen)
    else:
        shown = fit_size(latents.to(seen.device) * model.scaling_factor, seen)
    mask = fit_size(mask.to(seen.device).float(), seen).round()
    return torch.cat([to_batch(mask, len(seen)), to_batch(shown, len(seen))], dim=1).to(seen.dtype)


def fit_size(tensor: Tensor, like: Tensor) -> Tensor:
    if tensor.shape[-2:] == like.shape[-2:]:
        return tensor
    return functional.interpolate(tensor, size=like.shape[-2:], mode="bilinear")


def to_batch(tensor: Tensor, batch: int) -> Tensor:
    """As many as the batch has: one for all of them, or repeated from the first again."""
    if len(tensor) == batch:
        return tensor
    return tensor.repeat(-(-batch // len(tensor)), *([1] * (tensor.ndim - 1)))[:batch]
