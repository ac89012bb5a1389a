"""CFG++: the noise that is added back on the way down is what the negative prompt sees, not the guided mixture.

So small guidance scales (1 to 2.5) do what big ones do elsewhere. Without guidance each is its plain kin. Arguments as
in `samplers_singlestep.py`; the denoiser says what the negative prompt alone would have drawn (`denoiser.py`).

Source: Chung et al. 2024, arXiv:2406.08070, carried over to each sampler.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from atoll.diffusion.denoiser import Denoiser, DrawNoise, OnStep, ignore_step, negative_of
from atoll.diffusion.samplers_singlestep import log_midpoint, slope_of, split_ancestral_step


def sample_euler_cfg_pp(denoise: Denoiser, latents: Tensor, sigmas: Tensor, on_step: OnStep = ignore_step) -> Tensor:
    return sample_euler_ancestral_cfg_pp(denoise, latents, sigmas, None, on_step)


def sample_euler_ancestral_cfg_pp(
    denoise: Denoiser, latents: Tensor, sigmas: Tensor, draw_noise: DrawNoise | None, on_step: OnStep = ignore_step
) -> Tensor:
    """With draw_noise, ancestral."""
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(latents, sigma)
        on_step(step, denoised)
        slope = slope_of(latents, sigma, negative_of(denoise, denoised))
        sigma_down, sigma_up = split_ancestral_step(sigma, sigma_next, 0.0 if draw_noise is None else 1.0)
        latents = denoised + slope * sigma_down
        if draw_noise is not None and sigma_next > 0:
            latents = latents + draw_noise(sigma, sigma_next) * sigma_up
    return latents


def sample_dpmpp_2s_ancestral_cfg_pp(
    denoise: Denoiser, latents: Tensor, sigmas: Tensor, draw_noise: DrawNoise, on_step: OnStep = ignore_step
) -> Tensor:
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(latents, sigma)
        on_step(step, denoised)
        sigma_down, sigma_up = split_ancestral_step(sigma, sigma_next)
        if sigma_down > 0:
            middle = log_midpoint(sigma, sigma_down)
            shifted = latents + denoised - negative_of(denoise, denoised)
            half_way = shifted * (middle / sigma) + denoised * (1 - middle / sigma)
            later = denoise(half_way, middle)
            shifted = (
                latents if negative_of(denoise, later) is later else latents + denoised - negative_of(denoise, later)
            )
            latents = shifted * (sigma_down / sigma) + later * (1 - sigma_down / sigma)
        else:
            latents = denoised + slope_of(latents, sigma, negative_of(denoise, denoised)) * sigma_down
        if sigma_next > 0:
            latents = latents + draw_noise(sigma, sigma_next) * sigma_up
    return latents


def sample_dpmpp_2m_cfg_pp(denoise: Denoiser, latents: Tensor, sigmas: Tensor, on_step: OnStep = ignore_step) -> Tensor:
    before: Tensor | None = None
    width_before: Tensor | None = None
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(latents, sigma)
        on_step(step, denoised)
        negative = negative_of(denoise, denoised)
        kept = sigma_next / sigma
        width = -kept.log()  # in log sigma; endless in the step to 0
        moved = denoised + (latents - negative) * kept
        if before is not None and width_before is not None and sigma_next > 0:
            moved = moved + (1 - kept) * (denoised - before) * (width / width_before) / 2
        latents, before, width_before = moved, negative, width
    return latents


def sample_res_multistep_cfg_pp(
    denoise: Denoiser, latents: Tensor, sigmas: Tensor, on_step: OnStep = ignore_step
) -> Tensor:
    return sample_res_multistep_ancestral_cfg_pp(denoise, latents, sigmas, None, on_step)


def sample_res_multistep_ancestral_cfg_pp(
    denoise: Denoiser, latents: Tensor, sigmas: Tensor, draw_noise: DrawNoise | None, on_step: OnStep = ignore_step
) -> Tensor:
    """With draw_noise, ancestral."""
    before, sigma_before, came_down = None, None, None
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(latents, sigma)
        on_step(step, denoised)
        negative = negative_of(denoise, denoised)
        sigma_down, sigma_up = split_ancestral_step(sigma, sigma_next, 0.0 if draw_noise is None else 1.0)
        if before is None or sigma_before is None or came_down is None or sigma_down == 0:
            latents = denoised + slope_of(latents, sigma, negative) * sigma_down
        else:
            width = (sigma / sigma_down).log()
            behind = (came_down / sigma_before).log() / width  # where the previous estimate lies; negative
            phi_1 = -torch.expm1(-width) / width
            phi_2 = (1 - phi_1) / width
            shifted = latents + denoised - negative
            mixed = (phi_1 - phi_2 / behind) * negative + phi_2 / behind * before
            latents = torch.exp(-width) * shifted + width * mixed
        if draw_noise is not None and sigma_next > 0:
            latents = latents + draw_noise(sigma, sigma_next) * sigma_up
        before, sigma_before, came_down = negative, sigma, sigma_down
    return latents


def sample_gradient_estimation_cfg_pp(
    denoise: Denoiser, latents: Tensor, sigmas: Tensor, on_step: OnStep = ignore_step
) -> Tensor:
    before: Tensor | None = None
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(latents, sigma)
        on_step(step, denoised)
        if sigma_next == 0:
            latents = denoised
            continue
        slope = slope_of(latents, sigma, negative_of(denoise, denoised))
        latents = denoised + slope * sigma_next
        if before is not None:
            latents = latents + (slope - before) * (sigma_next - sigma)
        before = slope
    return latents
