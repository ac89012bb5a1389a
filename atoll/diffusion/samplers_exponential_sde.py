"""Stochastic exponential solvers that draw fresh noise of their own at each step. Arguments as elsewhere."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from atoll.diffusion.denoiser import Denoiser, DrawNoise, OnStep, ignore_step

INTEGRATION_POINTS = 200


def sample_seeds_2(
    denoise: Denoiser, latents: Tensor, sigmas: Tensor, draw_noise: DrawNoise, on_step: OnStep = ignore_step
) -> Tensor:
    """Stochastic exponential solver of second order; two calls of the network in each step but the last.

    Source: Gonzalez et al. 2023, arXiv:2305.14267, SEEDS-2 in the form that predicts clean latents.
    """
    return _sample_seeds(denoise, latents, sigmas, draw_noise, on_step, shares=(1 / 2,))


def sample_seeds_3(
    denoise: Denoiser, latents: Tensor, sigmas: Tensor, draw_noise: DrawNoise, on_step: OnStep = ignore_step
) -> Tensor:
    """As `sample_seeds_2` of third order, with three calls."""
    return _sample_seeds(denoise, latents, sigmas, draw_noise, on_step, shares=(1 / 3, 2 / 3))


def _sample_seeds(
    denoise: Denoiser,
    latents: Tensor,
    sigmas: Tensor,
    draw_noise: DrawNoise,
    on_step: OnStep,
    shares: tuple[float, ...],
) -> Tensor:
    """shares: where within a step, in log sigma, the network is asked again."""
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(latents, sigma)
        on_step(step, denoised)
        if sigma_next == 0:
            latents = denoised
            continue
        width = float((sigma / sigma_next).log())
        levels = [sigma, *(sigma * math.exp(-share * width) for share in shares), sigma_next]
        noises = [draw_noise(level, later) for level, later in pairwise(levels)]
        places = (0.0, *shares, 1.0)
        arrived, bend, asked_at = latents, torch.zeros_like(latents), 0.0
        for number, share in enumerate(places[1:], start=1):
            # Fresh noise of each part so far, faded by what has been walked since.
            fresh = torch.zeros_like(latents)
            for part in range(number):
                fade = math.exp(-(share - places[part + 1]) * width)
                fresh = fresh + noises[part] * (
                    fade * math.sqrt(-math.expm1(-2 * (places[part + 1] - places[part]) * width))
                )
            wide = 2 * share * width  # fresh noise doubles the width
            taken = -math.expm1(-wide)
            arrived = levels[number] / sigma * math.exp(-share * width) * latents + taken * denoised
            if asked_at:
                drawn_out = share / asked_at * (1 - taken / wide) if len(shares) > 1 else taken / (2 * asked_at)
                arrived = arrived + drawn_out * bend
            arrived = arrived + levels[number] * fresh
            if share < 1:
                bend, asked_at = denoise(arrived, levels[number]) - denoised, share
        latents = arrived
    return latents


def sample_er_sde(
    denoise: Denoiser, latents: Tensor, sigmas: Tensor, draw_noise: DrawNoise, on_step: OnStep = ignore_step
) -> Tensor:
    """Extended reverse-time SDE solver of third order from the last three estimates.

    Source: Cui et al. 2023, arXiv:2309.06169, algorithm 3 with its "ER SDE 5" noise scale.
    """
    levels = [float(sigma) for sigma in sigmas]
    before: Tensor | None = None
    slope_before: Tensor | None = None
    for step, (sigma, sigma_next) in enumerate(pairwise(levels)):
        denoised = denoise(latents, sigmas[step])
        on_step(step, denoised)
        if sigma_next == 0:
            latents = denoised
            continue
        kept = _noise_scale(sigma_next) / _noise_scale(sigma)
        latents = kept * latents + (1 - kept) * denoised
        if before is not None:
            width = sigma_next - sigma
            spacing = -width / INTEGRATION_POINTS
            points = [sigma_next + index * spacing for index in range(INTEGRATION_POINTS)]
            integral = sum(1 / _noise_scale(point) for point in points) * spacing
            slope = (denoised - before) / (sigma - levels[step - 1])
            latents = latents + (width + integral * _noise_scale(sigma_next)) * slope
            if slope_before is not None:
                integral = sum((point - sigma) / _noise_scale(point) for point in points) * spacing
                bend = (slope - slope_before) / ((sigma - levels[step - 2]) / 2)
                latents = latents + (width**2 / 2 + integral * _noise_scale(sigma_next)) * bend
            slope_before = slope
        spread = math.sqrt(max(sigma_next**2 - (sigma * kept) ** 2, 0.0))
        latents = latents + draw_noise(sigmas[step], sigmas[step + 1]) * spread
        before = denoised
    return latents


def _noise_scale(sigma: float) -> float:
    return sigma * (math.exp(sigma**0.3) + 10.0)
