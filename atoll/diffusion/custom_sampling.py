"""The denoising loop in pieces, each chosen by itself: noise, guidance, sampler and sigmas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from atoll.diffusion.conditioning import Conditioning
from atoll.diffusion.denoiser import Denoiser, OnStep, TwoSidedDenoiser
from atoll.diffusion.guidance import InpaintStart, build_denoiser, build_estimate, check_guidance_scale, checked
from atoll.diffusion.inpaint import hold_outside_mask, mask_for_latents
from atoll.diffusion.model import Model
from atoll.diffusion.noise import NoiseRule, Variation, draw_start_noise, next_seed
from atoll.diffusion.sample import OnSampleStep, check_request, ignore_sample_step, start_scale, walk_to_end
from atoll.diffusion.samplers import Sampler
from atoll.diffusion.sigmas import MAX_STEPS
from atoll.errors import InvalidRequest


@dataclass(frozen=True)
class StartNoise:
    """A seed, of the start noise and of what a sampler draws on its way; disabled, the start gets no noise."""

    seed: int = 0
    disabled: bool = False


class Guider(Protocol):
    """A model with all that it is told."""

    @property
    def model(self) -> Model: ...

    def denoiser(self, inpaint_start: InpaintStart | None, *, asks_negative: bool = False) -> Denoiser: ...


@dataclass(frozen=True)
class CfgGuider:
    """The usual guidance. Without a negative there is none, whatever guidance_scale is."""

    model: Model
    positive: Sequence[Conditioning]
    negative: Sequence[Conditioning] = ()
    guidance_scale: float = 1.0

    def denoiser(self, inpaint_start: InpaintStart | None, *, asks_negative: bool = False) -> Denoiser:
        return build_denoiser(
            self.model,
            self.positive,
            self.negative,
            self.guidance_scale,
            inpaint_start=inpaint_start,
            asks_negative=asks_negative,
        )


@dataclass(frozen=True)
class DualCfgGuider:
    """From the negative towards a second prompt, and from there towards the first.

    scale: from second to first. middle_scale: from negative to second; nested, from negative to the guided first.
    """

    model: Model
    first: Sequence[Conditioning]
    second: Sequence[Conditioning]
    negative: Sequence[Conditioning]
    scale: float
    middle_scale: float
    nested: bool = False

    def denoiser(self, inpaint_start: InpaintStart | None, *, asks_negative: bool = False) -> Denoiser:
        check_guidance_scale(self.scale)
        check_guidance_scale(self.middle_scale)
        groups = [self.first, self.negative, self.second]
        estimate = build_estimate(self.model, groups, inpaint_start=inpaint_start)

        def ask(latents: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor | None]:
            first, negative, second = estimate(latents, sigma)
            if self.nested:
                guided = second + (first - second) * self.scale
                denoised = negative + (guided - negative) * self.middle_scale
            else:
                denoised = negative + (second - negative) * self.middle_scale + (first - second) * self.scale
            return checked(self.model, denoised, sigma), negative

        return TwoSidedDenoiser(ask)


def sample_custom(
    guider: Guider,
    sampler: Sampler,
    sigmas: Tensor,
    latents: Tensor,
    *,
    noise: StartNoise,
    noise_mask: Tensor | None = None,
    batch_index: Sequence[int] | None = None,
    variation: Variation | None = None,
    on_step: OnSampleStep = ignore_sample_step,
) -> tuple[Tensor, Tensor]:
    """Walk latents down any sigmas.

    Args:
        sigmas: (steps + 1,) on the CPU; they need not end at 0, and with fewer than two nothing is done.
        latents, noise_mask, batch_index, variation, on_step: as for `sample_latents`; a variation gives each picture a
            seed of its own.

    Returns: (latents at the last sigma, the last estimate of the clean latents), unscaled.
    Raises: as `sample_latents`.
    """
    model = guider.model
    check_request(model, latents, noise.seed, max(1, min(len(sigmas) - 1, MAX_STEPS)), 1.0, 1.0, 0, 0)
    if len(sigmas) - 1 > MAX_STEPS:
        raise InvalidRequest(f"There are {len(sigmas) - 1} steps in these sigmas; at most {MAX_STEPS} can be made.")
    if len(sigmas) == 0:
        return latents, latents
    rule: NoiseRule = "batch" if variation is None else "per_image"
    clean = latents.to(model.device, torch.float32) * model.scaling_factor
    unit = torch.zeros_like(clean)
    if not noise.disabled:
        drawn = draw_start_noise(clean.shape, noise.seed, rule=rule, batch_index=batch_index, variation=variation)
        unit = drawn.to(model.device)
    start = clean + unit * start_scale(model.noise_schedule, sigmas)
    mask = None if noise_mask is None else mask_for_latents(noise_mask, clean)
    inpaint_start = None if mask is None else InpaintStart(mask, latents)
    denoise = guider.denoiser(inpaint_start, asks_negative=sampler.asks_negative)
    if mask is not None:
        held = unit
        if sampler.masks_with_next_seed and rule == "batch":
            held = draw_start_noise(clean.shape, next_seed(noise.seed)).to(model.device)
        denoise = hold_outside_mask(denoise, mask, clean, held)
    last = start / model.scaling_factor
    walk_index = [0] * len(latents) if variation is not None and variation.strength > 0 else batch_index

    def keep(step: int, total: int, denoised: Tensor) -> None:
        nonlocal last
        last = denoised
        on_step(step, total, denoised)

    def run(denoise: Denoiser, start: Tensor, tell: OnStep) -> Tensor:
        return sampler.walk(
            denoise, start, sigmas, seed=noise.seed, noise_rule=rule, batch_index=walk_index, on_step=tell
        )

    reached = walk_to_end(model, run, denoise, start, max(len(sigmas) - 1, 1), keep)
    return (reached / model.scaling_factor).to(latents.device), last.to(latents.device)
