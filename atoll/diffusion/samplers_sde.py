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
    denoise: Denoiser,
    latents: Tensor,
    sigmas: Tensor,
    draw_noise: DrawNoise,
    on_step: OnStep = ignore_step,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    r: float = 0.5,
) -> Tensor:
    """Stochastic DPM-Solver++ in single steps; two calls of the network in each step but the last.

    Args:
        eta: how much of the noise is fresh. s_noise: what that is multiplied with.
        r: where within a step, in log sigma, the second call is made.

    Source: k-diffusion's reading of Lu et al. 2022, arXiv:2211.01095.
    """
    second = 1 / (2 * r)  # the second estimate's weight; with r = 1/2 the first has none
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(latents, sigma)
        on_step(step, denoised)
        if sigma_next == 0:
            latents = latents + slope_of(latents, sigma, denoised) * (sigma_next - sigma)
            continue
        middle = log_midpoint(sigma, sigma_next) if r == 0.5 else sigma * (sigma_next / sigma) ** r
        sigma_down, sigma_up = split_ancestral_step(sigma, middle, eta)
        half_way = hold_estimate(denoised, latents, sigma_down / sigma)
        half_way = half_way + draw_noise(sigma, middle) * (s_noise * sigma_up)
        denoised = (
            (1 - second) * denoised + second * denoise(half_way, middle) if r != 0.5 else denoise(half_way, middle)
        )
        sigma_down, sigma_up = split_ancestral_step(sigma, sigma_next, eta)
        latents = hold_estimate(denoised, latents, sigma_down / sigma)
        latents = latents + draw_noise(sigma, sigma_next) * (s_noise * sigma_up)
    return latents


def sample_dpmpp_2m_sde(
    denoise: Denoiser,
    latents: Tensor,
    sigmas: Tensor,
    draw_noise: DrawNoise,
    on_step: OnStep = ignore_step,
    *,
    heun: bool = False,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Tensor:
    """Stochastic DPM-Solver++ of second order from the last two estimates. eta, s_noise: as in `sample_dpmpp_sde`.

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
        wide = (1 + eta) * width  # fresh noise widens the step
        taken = -torch.expm1(-wide)  # the share of the estimate in it
        latents = torch.exp(-wide) * latents + taken * denoised
        if previous is not None and width_before is not None:
            correction = 1 - taken / wide if heun else taken / 2
            latents = latents + correction * (denoised - previous) * (width / width_before)
        if eta > 0:
            fresh = (-torch.expm1(-2 * eta * width)).sqrt()
            latents = latents + draw_noise(sigma, sigma_next) * (s_noise * sigma_next * fresh)
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
