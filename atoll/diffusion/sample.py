"""The denoising loop from outside: latents, prompts and a seed in, clean latents out.

Latents come and go unscaled, as the VAE makes them (ComfyUI's LATENT); inside they are times model.scaling_factor.

What denoising_strength means depends on the family of the schedule (`sigmas.py`):

- with ComfyUI's schedules `num_inference_steps` steps are made in any case, from a lower sigma;
- with diffusers_* schedules int(num_inference_steps * denoising_strength) of them are made.

With 1 the first adds full noise to the latents, of which next to nothing stays, as in ComfyUI; the second starts from
pure noise, whatever the latents hold. In both, zeros are a picture from nothing, and 0 gives the latents back.

To equal diffusers' pipelines: sampler ddim or pndm with schedule diffusers_leading, euler or lms with
diffusers_linspace, each the spacing that its scheduler class has by default. (Not pndm with a network that predicts v:
diffusers mixes v's of several timesteps as if they were one.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from atoll.diffusion.conditioning import Conditioning
from atoll.diffusion.denoiser import Denoiser, OnStep
from atoll.diffusion.guidance import InpaintStart, build_denoiser, check_guidance_scale
from atoll.diffusion.inpaint import hold_outside_mask, mask_for_latents
from atoll.diffusion.model import Model
from atoll.diffusion.noise import NoiseRule, Variation, check_seed, draw_start_noise, next_seed
from atoll.diffusion.samplers import find_sampler, run_sampler
from atoll.diffusion.samplers_diffusers import pndm_calls, sample_lms_as_diffusers, sample_pndm_as_diffusers
from atoll.diffusion.sigmas import (
    DIFFUSERS_SCHEDULES,
    MAX_STEPS,
    NoiseSchedule,
    build_partial_sigmas,
    build_sigmas,
)
from atoll.errors import InvalidRequest, OutOfMemory

OnSampleStep = Callable[[int, int, Tensor], None]
"""Told (step, total, denoised): the step under way, 1..total, and its estimate of the unscaled clean latents.
May raise JobCancelled."""

RunWalk = Callable[[Denoiser, Tensor, OnStep], Tensor]
"""(denoise, latents, on_step) -> latents at the end of the walk."""


def ignore_sample_step(step: int, total: int, denoised: Tensor) -> None:
    """For a caller who does not want to hear."""


@dataclass(frozen=True)
class Walk:
    """A way down the sigmas, ready to go.

    total: how often on_step will be told.
    start_scale: what unit noise is multiplied with at its start: the sigma there, or `full_scale` of it.
    final_scale: what the result is divided by.
    as_diffusers: diffusers' ways of timesteps and masks.
    forgets: its start holds nothing of the latents.
    """

    run: RunWalk
    total: int
    start_scale: float
    final_scale: float = 1.0
    as_diffusers: bool = False
    forgets: bool = False


def full_scale(sigma: float) -> float:
    """Where all is noise, the network expects variance 1 in its own scale, so 1 + sigma^2 in this one."""
    return math.sqrt(1.0 + sigma**2)


def sample_latents(
    model: Model,
    positive: Sequence[Conditioning],
    negative: Sequence[Conditioning],
    latents: Tensor,
    *,
    seed: int,
    num_inference_steps: int,
    guidance_scale: float,
    sampler: str,
    schedule: str,
    denoising_strength: float = 1.0,
    noise_mask: Tensor | None = None,
    add_noise: bool = True,
    start_at_step: int | None = None,
    end_at_step: int | None = None,
    return_with_leftover_noise: bool = False,
    batch_index: Sequence[int] | None = None,
    noise_rule: NoiseRule = "batch",
    variation: Variation | None = None,
    on_step: OnSampleStep = ignore_sample_step,
) -> Tensor:
    """Denoise a batch of latents.

    Args:
        latents: (batch, channels, height/8, width/8), unscaled; zeros for a picture from nothing.
        seed: 0..2^64-1, of the start noise and of what the sampler draws on its way; see `noise.py`.
        denoising_strength: 0..1, see above.
        noise_mask: (height, width), (batch, height, width) or (batch, 1, height, width) of any size; 1 = change.
            Where it is 0 the latents come back as they were.
        add_noise: False starts from the latents as they are, with the noise that an earlier part left in them.
        start_at_step, end_at_step: walk only a part of the steps.
        return_with_leftover_noise: after end_at_step leave the noise of that step in; otherwise that step goes to 0.
        batch_index: which pictures of a larger batch these are.
        noise_rule: what a seed means for a batch.
        variation: of each picture's noise, under the "per_image" rule.

    Returns: float32, shape and device of `latents`.

    Raises: InvalidRequest for an argument that cannot be, NotANumber if the network answers nonsense, OutOfMemory,
        and whatever on_step raises.
    """
    first, last = start_at_step or 0, MAX_STEPS if end_at_step is None else end_at_step
    check_request(model, latents, seed, num_inference_steps, guidance_scale, denoising_strength, first, last)
    walk = plan_walk(
        sampler,
        schedule,
        model.noise_schedule,
        num_inference_steps,
        denoising_strength,
        first,
        last,
        keep_leftover=return_with_leftover_noise,
        seed=seed,
        noise_rule=noise_rule,
        batch_index=[0] * len(latents) if variation is not None and variation.strength > 0 else batch_index,
    )
    if walk is None:
        return latents.clone()

    clean = latents.to(model.device, torch.float32) * model.scaling_factor
    noise = torch.zeros_like(clean)
    if add_noise:
        noise = draw_start_noise(clean.shape, seed, rule=noise_rule, batch_index=batch_index, variation=variation).to(
            model.device
        )
    from_nothing = add_noise and denoising_strength == 1 and walk.forgets
    start = noise * walk.start_scale if from_nothing else clean + noise * walk.start_scale

    mask = None if noise_mask is None else mask_for_latents(noise_mask, clean)
    denoise: Denoiser = build_denoiser(
        model,
        positive,
        negative,
        guidance_scale,
        timestep_of=model.noise_schedule.fractional_timestep if walk.as_diffusers else None,
        inpaint_start=None if mask is None else InpaintStart(mask, latents),
        asks_negative=find_sampler(sampler).asks_negative,
    )
    if mask is not None:
        held = noise
        if find_sampler(sampler).masks_with_next_seed and noise_rule == "batch" and not walk.as_diffusers:
            held = draw_start_noise(clean.shape, next_seed(seed)).to(model.device)
        denoise = hold_outside_mask(denoise, mask, clean, held, from_second_call=walk.as_diffusers)
    reached = walk_to_end(model, walk.run, denoise, start, walk.total, on_step)
    result = (reached / walk.final_scale / model.scaling_factor).to(latents.device)
    if mask is not None and not return_with_leftover_noise:
        result = torch.where((mask == 0).to(latents.device), latents.float(), result)
    return result


def walk_to_end(
    model: Model, run: RunWalk, denoise: Denoiser, start: Tensor, total: int, on_step: OnSampleStep
) -> Tensor:
    """Run a walk, tell of its steps, and put running out of memory into words.

    Raises: OutOfMemory, and whatever the walk raises.
    """
    reached = 0

    def tell(step: int, denoised: Tensor) -> None:
        nonlocal reached
        reached = step + 1
        on_step(reached, total, denoised / model.scaling_factor)

    try:
        with torch.no_grad():
            return run(denoise, start, tell)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"The {model.device.type} device ran out of memory at step {reached + 1} of {total}, with a batch of "
            f"{len(start)} at {start.shape[-1] * 8}x{start.shape[-2] * 8}. Try a smaller batch or a smaller picture."
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """CUDA has an exception for it; the CPU and MPS only words."""
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(word in str(error) for word in words)


def check_request(
    model: Model,
    latents: Tensor,
    seed: int,
    steps: int,
    guidance_scale: float,
    denoising_strength: float,
    first: int,
    last: int,
) -> None:
    check_seed(seed)
    check_guidance_scale(guidance_scale)
    if not 1 <= steps <= MAX_STEPS:
        raise InvalidRequest(f"num_inference_steps is {steps}; it must lie in 1..{MAX_STEPS}.")
    if not 0 <= denoising_strength <= 1:
        raise InvalidRequest(
            f"denoising_strength is {denoising_strength}; it must lie in 0..1: 0 keeps the picture, 1 makes a new one."
        )
    if first < 0 or last < 0:
        raise InvalidRequest(f"start_at_step {first} and end_at_step {last} count steps; they must be 0 or more.")
    if latents.ndim != 4 or latents.shape[1] != model.latent_channels:
        raise InvalidRequest(
            f"Latents of shape {list(latents.shape)} do not fit {model.name or 'the model'}, which wants "
            f"(batch, {model.latent_channels}, height/8, width/8). Take a VAE of the same family of models."
        )


def plan_walk(
    sampler: str,
    schedule: str,
    noise_schedule: NoiseSchedule,
    steps: int,
    denoising_strength: float,
    first: int,
    last: int,
    *,
    keep_leftover: bool,
    seed: int,
    noise_rule: NoiseRule,
    batch_index: Sequence[int] | None,
) -> Walk | None:
    """The walk that is asked for, or None if no step is left to make.

    first, last: the part of the steps to make; last may lie beyond the end.
    """
    drop_penultimate = find_sampler(sampler).drop_penultimate
    run = partial(_run_sampler, sampler, seed, noise_rule, batch_index)
    if schedule in DIFFUSERS_SCHEDULES:
        return plan_diffusers_walk(
            sampler, schedule, noise_schedule, steps, denoising_strength, first, last, keep_leftover, run
        )
    if denoising_strength == 0:
        build_sigmas(schedule, noise_schedule, steps)  # a wrong name is told even where nothing is to do
        return None
    sigmas = build_partial_sigmas(
        schedule, noise_schedule, steps, denoising_strength, drop_penultimate=drop_penultimate
    )
    sigmas = cut_end(sigmas, last, keep_leftover)[first:]
    # A list longer than the training's names some level twice, and a step of no width divides by zero in some samplers.
    sigmas = torch.unique_consecutive(sigmas)
    if len(sigmas) < 2:
        return None
    return Walk(run=partial(run, sigmas), total=len(sigmas) - 1, start_scale=start_scale(noise_schedule, sigmas))


def start_scale(noise_schedule: NoiseSchedule, sigmas: Tensor) -> float:
    """What unit noise is multiplied with before a walk down these sigmas: at the top there is nothing but noise."""
    start = float(sigmas[0])
    is_full = start > noise_schedule.sigma_max or math.isclose(start, noise_schedule.sigma_max, rel_tol=1e-5)
    return full_scale(start) if is_full else start


def plan_diffusers_walk(
    sampler: str,
    schedule: str,
    noise_schedule: NoiseSchedule,
    steps: int,
    denoising_strength: float,
    first: int,
    last: int,
    keep_leftover: bool,
    run: Callable[[Tensor, Denoiser, Tensor, OnStep], Tensor],
) -> Walk | None:
    """As `plan_walk`, by the rules of diffusers' schedulers and pipelines."""
    whole = build_sigmas(schedule, noise_schedule, steps)
    first = max(first, steps - int(steps * denoising_strength))
    keeps_variance = sampler in ("ddim", "pndm", "plms")  # their schedulers' latents have variance 1 at every sigma
    if keeps_variance and not noise_schedule.set_alpha_to_one:
        whole[-1] = noise_schedule.sigma_min  # and end at the first trained level
    sigmas = cut_end(whole, last, keep_leftover)
    if first >= len(sigmas) - 1:
        return None
    begins, total = sigmas[first], len(sigmas) - 1 - first
    walk_run: RunWalk = partial(run, sigmas[first:])
    if sampler in ("pndm", "plms"):
        calls = pndm_calls(len(sigmas) - 1)[first:]
        begins, total = sigmas[calls[0]], len(calls)
        walk_run = partial(_run_from, sample_pndm_as_diffusers, sigmas, first)
    elif sampler == "lms":
        walk_run = partial(_run_from, sample_lms_as_diffusers, sigmas, first)
    start = float(begins)
    is_full = first == 0 and (keeps_variance or schedule == "diffusers_leading")
    cuts_short = last < len(whole) - 1
    return Walk(
        run=walk_run,
        total=total,
        start_scale=full_scale(start) if is_full else start,
        final_scale=full_scale(float(sigmas[-1])) if keeps_variance and not cuts_short else 1.0,
        as_diffusers=True,
        forgets=first == 0,
    )


def cut_end(sigmas: Tensor, last: int, keep_leftover: bool) -> Tensor:
    """The sigmas of the steps before `last`; where noise must not be left over, the last of them goes to 0."""
    if last >= len(sigmas) - 1:
        return sigmas
    sigmas = sigmas[: last + 1].clone()
    if not keep_leftover:
        sigmas[-1] = 0
    return sigmas


def _run_sampler(
    sampler: str,
    seed: int,
    noise_rule: NoiseRule,
    batch_index: Sequence[int] | None,
    sigmas: Tensor,
    denoise: Denoiser,
    latents: Tensor,
    on_step: OnStep,
) -> Tensor:
    return run_sampler(
        sampler, denoise, latents, sigmas, seed=seed, noise_rule=noise_rule, batch_index=batch_index, on_step=on_step
    )


def _run_from(
    sample: Callable[..., Tensor], sigmas: Tensor, first: int, denoise: Denoiser, latents: Tensor, on_step: OnStep
) -> Tensor:
    return sample(denoise, latents, sigmas, on_step, first_step=first)
