"""Samplers that solve the reverse-time SDE, in the half log signal-to-noise ratio lambda = -log sigma.

Arguments as in `samplers_singlestep.py`. draw_noise must give increments of one Brownian motion.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from atoll.diffusion.denoiser import Denoiser, DrawNoise, OnStep, ignore_step
from atoll.diffusion.samplers_singlestep import hold_estimate, log_midpoint, slope_of, split_ancestral_step


def sample_dpmpp_sde(
    denoise: Denoiser, latents: Tensor, sigmas: Tensor, draw_noise: DrawNoise, on_step: OnStep = ignore_step
) -> Tensor:
    """Stochastic DPM-Solver++ in single steps; two calls of the network in each step but the last.

    Source: k-diffusion's reading of Lu et al. 2022, arXiv:2211.01095, with r = 1/2 and ancestral noise (eta = 1).
    """
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(latents, sigma)
        on_step(step, denoised)
        if sigma_next == 0:
            latents = latents + slope_of(latents, sigma, denoised) * (sigma_next - sigma)
            continue
        middle = log_midpoint(sigma, sigma_next)
        sigma_down, sigma_up = split_ancestral_step(sigma, middle)
        half_way = hold_estimate(denoised, latents, sigma_down / sigma) + draw_noise(sigma, middle) * sigma_up
        # With r = 1/2 the first estimate's weight 1 - 1/(2r) is none.
        denoised = denoise(half_way, middle)
        sigma_down, sigma_up = split_ancestral_step(sigma, sigma_next)
        latents = hold_estimate(denoised, latents, sigma_down / sigma) + draw_noise(sigma, sigma_next) * sigma_up
    return latents


def sample_dpmpp_2m_sde(
    denoise: Denoiser,
    latents: Tensor,
    sigmas: Tensor,
    draw_noise: DrawNoise,
    on_step: OnStep = ignore_step,
    *,
    heun: bool = False,
) -> Tensor:
    """Stochastic DPM-Solver++ of second order from the last two estimates.

    Source: Lu et al. 2022, arXiv:2211.01095, SDE-DPM-Solver++(2M); the midpoint form, or with `heun` the exact
        integral of the straight line through both estimates.
    """
    previous, width_before = None, None
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(latents, sigma)
        on_step(step, denoised)
        if sigma_next == 0:
            latents = denoised
            continue
        width = (sigma / sigma_next).log()
        taken = -torch.expm1(-2 * width)  # the share of the estimate in the step; eta = 1 doubles the width
        latents = torch.exp(-2 * width) * latents + taken * denoised
        if previous is not None and width_before is not None:
            correction = 1 - taken / (2 * width) if heun else taken / 2
            latents = latents + correction * (denoised - previous) * (width / width_before)
        latents = latents + draw_noise(sigma, sigma_next) * sigma_next * taken.sqrt()
        previous, width_before = denoised, width
    return latents


def sample_dpmpp_2m_sde_heun(
    denoise: Denoiser, latents: Tensor, sigmas: Tensor, draw_noise: DrawNoise, on_step: OnStep = ignore_step
) -> Tensor:
    return sample_dpmpp_2m_sde(denoise, latents, sigmas, draw_noise, on_step, heun=True)


def sample_dpmpp_3m_sde(
    denoise: Denoiser, latents: Tensor, sigmas: Tensor, draw_noise: DrawNoise, on_step: OnStep = ignore_step
) -> Tensor:
    """Stochastic DPM-Solver++ of third order from the last three estimates.

    Source: k-diffusion's extension of Lu et al. 2022, arXiv:2211.01095.
    """
    estimates: list[Tensor] = []  # newest first
    widths: list[Tensor] = []
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(latents, sigma)
        on_step(step, denoised)
        if sigma_next == 0:
            latents = denoised
            continue
        width = (sigma / sigma_next).log()
        doubled = 2 * width  # eta = 1
        taken = -torch.expm1(-doubled)
        latents = torch.exp(-doubled) * latents + taken * denoised
        phi_2 = 1 - taken / doubled
        if len(estimates) == 1:
            latents = latents + phi_2 * (denoised - estimates[0]) * (width / widths[0])
        elif len(estimates) == 2:
            ratio_0, ratio_1 = widths[0] / width, widths[1] / width
            slope_0 = (denoised - estimates[0]) / ratio_0
            slope_1 = (estimates[0] - estimates[1]) / ratio_1
            bend = (slope_0 - slope_1) / (ratio_0 + ratio_1)
            phi_3 = phi_2 / doubled - 0.5
            latents = latents + phi_2 * (slope_0 + bend * ratio_0) - phi_3 * bend
        latents = latents + draw_noise(sigma, sigma_next) * sigma_next * taken.sqrt()
        estimates, widths = [denoised, *estimates][:2], [width, *widths][:2]
    return latents
