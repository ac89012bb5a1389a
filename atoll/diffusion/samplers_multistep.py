"""Samplers that get their order from the steps already made: one call of the network in each step.

Arguments as in `samplers_singlestep.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from numpy.polynomial import Polynomial
from torch import Tensor

from atoll.diffusion.denoiser import Denoiser, DrawNoise, OnStep, ignore_step
from atoll.diffusion.samplers_singlestep import hold_estimate, slope_of, split_ancestral_step

# Adams and Bashforth's weights for evenly spaced steps, newest slope first.
ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def weighted_sum(weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    total = weights[0] * slopes[0]
    for weight, slope in zip(weights[1:], slopes[1:], strict=False):
        total = total + weight * slope
    return total


def linear_multistep_weights(nodes: Sequence[float], start: float, end: float) -> list[float]:
    """Integrals over start..end of the Lagrange polynomials of the nodes: exact weights for uneven steps."""
    weights = []
    for own, node in enumerate(nodes):
        others = [other for index, other in enumerate(nodes) if index != own]
        basis = Polynomial.fromroots(others) if others else Polynomial([1.0])
        integral = basis.integ()
        weights.append(float((integral(end) - integral(start)) / basis(node)))
    return weights


def sample_lms(
    denoise: Denoiser, latents: Tensor, sigmas: Tensor, on_step: OnStep = ignore_step, *, order: int = 4
) -> Tensor:
    """Linear multistep of that order on the probability-flow ODE, exact for the uneven steps in sigma."""
    levels = [float(sigma) for sigma in sigmas]
    slopes: list[Tensor] = []  # newest first
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(latents, sigma)
        on_step(step, denoised)
        if sigma_next == 0:
            latents = denoised
            continue
        slopes = [slope_of(latents, sigma, denoised), *slopes][:order]
        nodes = [levels[step - back] for back in range(len(slopes))]
        latents = latents + weighted_sum(linear_multistep_weights(nodes, levels[step], levels[step + 1]), slopes)
    return latents


def sample_ipndm(denoise: Denoiser, latents: Tensor, sigmas: Tensor, on_step: OnStep = ignore_step) -> Tensor:
    """Improved PNDM: Adams-Bashforth of order 4 as if the steps were even, growing from order 1.

    Source: Zhang & Chen 2022, arXiv:2204.13902, section 3.
    """
    slopes: list[Tensor] = []  # newest first
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(latents, sigma)
        on_step(step, denoised)
        if sigma_next == 0:
            latents = denoised
            continue
        slopes = [slope_of(latents, sigma, denoised), *slopes][:4]
        latents = latents + weighted_sum(ADAMS_BASHFORTH[len(slopes) - 1], slopes) * (sigma_next - sigma)
    return latents


def sample_pndm(denoise: Denoiser, latents: Tensor, sigmas: Tensor, on_step: OnStep = ignore_step) -> Tensor:
    """Pseudo linear multistep (PLMS): as ipndm, but the first step is made with the mean of the slopes at both ends.

    One call of the network more than there are steps.
    Source: Liu et al. 2022, arXiv:2202.09778, as latent-diffusion and diffusers (`skip_prk_steps`) use it.
    """
    slopes: list[Tensor] = []  # newest first
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(latents, sigma)
        on_step(step, denoised)
        slopes = [slope_of(latents, sigma, denoised), *slopes][:4]
        slope = weighted_sum(ADAMS_BASHFORTH[len(slopes) - 1], slopes)
        if step == 0 and sigma_next > 0:
            arrived = latents + slope * (sigma_next - sigma)
            slope = (slope + slope_of(arrived, sigma_next, denoise(arrived, sigma_next))) / 2
        latents = latents + slope * (sigma_next - sigma)
    return latents


def deis_weights(levels: Sequence[float], step: int, order: int, points: int = 10_000) -> list[float]:
    """Weights of the newest `order` slopes for the step from levels[step] to levels[step + 1].

    The slope is taken as a polynomial in the time of a variance-preserving SDE, which spreads the sigmas evenly
    enough; its integral over sigma is summed over `points` points, ends included, as the reference does.

    Source: Zhang & Chen 2022, arXiv:2204.13902, equation 15, with the SDE of Karras et al. 2022, table 1.
    """
    # The SDE whose sigma is 0.002 at time 0.001 and 80 at time 1.
    epsilon = 1e-3
    log_low, log_high = math.log1p(0.002**2), math.log1p(80.0**2)
    beta_range = 2 * (log_low / epsilon - log_high) / (epsilon - 1)
    beta_min = log_high - beta_range / 2

    def time_of(sigma: float) -> float:
        return (math.sqrt(beta_min**2 + 2 * beta_range * math.log1p(sigma**2)) - beta_min) / beta_range

    nodes = [time_of(levels[step - back]) for back in range(order)]
    end = time_of(levels[step + 1])
    times = torch.linspace(nodes[0], end, points, dtype=torch.float64)
    log_variance = times**2 * beta_range / 2 + times * beta_min  # log(1 + sigma^2)
    # d sigma / d time, from sigma^2 = exp(log_variance) - 1
    integrand = (times * beta_range + beta_min) * log_variance.exp() / (2 * torch.expm1(log_variance).sqrt())
    weights = []
    for own, node in enumerate(nodes):
        basis = torch.ones_like(times)
        for index, other in enumerate(nodes):
            if index != own:
                basis = basis * (times - other) / (node - other)
        weights.append(float((integrand * basis).sum() * (end - nodes[0]) / points))
    return weights


def sample_deis(denoise: Denoiser, latents: Tensor, sigmas: Tensor, on_step: OnStep = ignore_step) -> Tensor:
    """Diffusion exponential integrator of order 3.

    Source: Zhang & Chen 2022, arXiv:2204.13902, tAB-DEIS.
    """
    levels = [float(sigma) for sigma in sigmas]
    slopes: list[Tensor] = []  # newest first
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(latents, sigma)
        on_step(step, denoised)
        slopes = [slope_of(latents, sigma, denoised), *slopes][:3]
        if sigma_next == 0 or len(slopes) == 1:
            latents = latents + slopes[0] * (sigma_next - sigma)
        else:
            latents = latents + weighted_sum(deis_weights(levels, step, len(slopes)), slopes)
    return latents


def sample_dpmpp_2m(denoise: Denoiser, latents: Tensor, sigmas: Tensor, on_step: OnStep = ignore_step) -> Tensor:
    """DPM-Solver++ of second order from the last two estimates.

    Source: Lu et al. 2022, arXiv:2211.01095, algorithm 2.
    """
    previous, width_before = None, None
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(latents, sigma)
        on_step(step, denoised)
        width = (sigma / sigma_next).log()  # in log sigma; endless in the step to 0
        estimate = denoised
        if previous is not None and width_before is not None and sigma_next > 0:
            estimate = denoised + (denoised - previous) * (width / width_before) / 2
        latents = hold_estimate(estimate, latents, sigma_next / sigma)
        previous, width_before = denoised, width
    return latents


def sample_res_multistep(denoise: Denoiser, latents: Tensor, sigmas: Tensor, on_step: OnStep = ignore_step) -> Tensor:
    """Refined exponential solver of second order from the last two estimates.

    Source: Zhang et al. 2023, arXiv:2308.02157, with phi functions kept exact.
    """
    return sample_res_multistep_ancestral(denoise, latents, sigmas, None, on_step)


def sample_res_multistep_ancestral(
    denoise: Denoiser, latents: Tensor, sigmas: Tensor, draw_noise: DrawNoise | None, on_step: OnStep = ignore_step
) -> Tensor:
    """`sample_res_multistep`; given draw_noise, with ancestral noise."""
    previous, sigma_previous, sigma_came_down = None, None, None
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(latents, sigma)
        on_step(step, denoised)
        sigma_down, sigma_up = sigma_next, torch.zeros_like(sigma)
        if draw_noise is not None:
            sigma_down, sigma_up = split_ancestral_step(sigma, sigma_next)
        if previous is None or sigma_previous is None or sigma_came_down is None or sigma_down == 0:
            latents = hold_estimate(denoised, latents, sigma_down / sigma)
        else:
            width = (sigma / sigma_down).log()
            behind = (sigma_came_down / sigma_previous).log() / width  # where the previous estimate lies; negative
            phi_1 = -torch.expm1(-width) / width
            phi_2 = (1 - phi_1) / width
            latents = torch.exp(-width) * latents + width * (
                (phi_1 - phi_2 / behind) * denoised + phi_2 / behind * previous
            )
        if draw_noise is not None and sigma_next > 0:
            latents = latents + draw_noise(sigma, sigma_next) * sigma_up
        previous, sigma_previous, sigma_came_down = denoised, sigma, sigma_down
    return latents
