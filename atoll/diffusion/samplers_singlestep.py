"""Samplers whose every step starts from nothing but the latents.

Common arguments of all samplers:
    denoise, latents, sigmas, on_step: see `denoiser.py`; latents are clean latents + sigmas[0] * unit noise, float32;
        sigmas (num_inference_steps + 1,) strictly falling, usually to 0, on the CPU wherever the latents are: so
        no step waits for the device to learn a number.
    draw_noise: only for those that add noise on their way.
Returns: latents at sigmas[-1], same shape and device.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from atoll.diffusion.denoiser import Denoiser, DrawNoise, OnStep, ignore_step


def slope_of(latents: Tensor, sigma: Tensor, denoised: Tensor) -> Tensor:
    """d latents / d sigma of the probability-flow ODE; it is the predicted noise."""
    return (latents - denoised) / sigma


def hold_estimate(denoised: Tensor, latents: Tensor, share: Tensor) -> Tensor:
    """The exact way of the ODE while its estimate stays the same; share is sigma_next / sigma."""
    return denoised + (latents - denoised) * share


def split_ancestral_step(sigma: Tensor, sigma_next: Tensor, eta: float = 1.0) -> tuple[Tensor, Tensor]:
    """Where to go without noise, and how much noise then leads up to sigma_next. eta: 0 is no noise at all.

    Returns: (sigma_down, sigma_up) with sigma_down^2 + sigma_up^2 = sigma_next^2.
    """
    if eta == 0:
        return sigma_next, torch.zeros_like(sigma_next)
    sigma_up = (eta * (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2).sqrt()).minimum(sigma_next)
    return (sigma_next**2 - sigma_up**2).sqrt(), sigma_up


def log_midpoint(sigma: Tensor, sigma_next: Tensor) -> Tensor:
    return (sigma * sigma_next).sqrt()


def sample_euler(denoise: Denoiser, latents: Tensor, sigmas: Tensor, on_step: OnStep = ignore_step) -> Tensor:
    """Follow the probability-flow ODE in first-order steps. DDIM without noise is the same walk.

    Source: Karras et al. 2022, arXiv:2206.00364, algorithm 1 without its second-order correction.
    """
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(latents, sigma)
        on_step(step, denoised)
        latents = latents + slope_of(latents, sigma, denoised) * (sigma_next - sigma)
    return latents


def sample_euler_ancestral(
    denoise: Denoiser,
    latents: Tensor,
    sigmas: Tensor,
    draw_noise: DrawNoise,
    on_step: OnStep = ignore_step,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Tensor:
    """Euler steps that go lower than asked and come back up with fresh noise.

    eta: how much lower, 0 is not at all. s_noise: what the noise is multiplied with.
    """
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(latents, sigma)
        on_step(step, denoised)
        sigma_down, sigma_up = split_ancestral_step(sigma, sigma_next, eta)
        latents = latents + slope_of(latents, sigma, denoised) * (sigma_down - sigma)
        if sigma_next > 0 and eta > 0:
            latents = latents + draw_noise(sigma, sigma_next) * (s_noise * sigma_up)
    return latents


def sample_heun(denoise: Denoiser, latents: Tensor, sigmas: Tensor, on_step: OnStep = ignore_step) -> Tensor:
    """Second order by the mean of the slopes at both ends; two calls of the network in each step but the last.

    Source: Karras et al. 2022, arXiv:2206.00364, algorithm 1.
    """
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(latents, sigma)
        on_step(step, denoised)
        slope = slope_of(latents, sigma, denoised)
        arrived = latents + slope * (sigma_next - sigma)
        if sigma_next > 0:
            slope = (slope + slope_of(arrived, sigma_next, denoise(arrived, sigma_next))) / 2
            arrived = latents + slope * (sigma_next - sigma)
        latents = arrived
    return latents


def sample_dpm_2(denoise: Denoiser, latents: Tensor, sigmas: Tensor, on_step: OnStep = ignore_step) -> Tensor:
    """Second order by the slope at the geometric middle of the step.

    Source: DPM-Solver-2 in the notation of Karras et al. 2022, arXiv:2206.00364.
    """
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(latents, sigma)
        on_step(step, denoised)
        slope = slope_of(latents, sigma, denoised)
        if sigma_next > 0:
            middle = log_midpoint(sigma, sigma_next)
            half_way = latents + slope * (middle - sigma)
            slope = slope_of(half_way, middle, denoise(half_way, middle))
        latents = latents + slope * (sigma_next - sigma)
    return latents


def sample_dpm_2_ancestral(
    denoise: Denoiser, latents: Tensor, sigmas: Tensor, draw_noise: DrawNoise, on_step: OnStep = ignore_step
) -> Tensor:
    """`sample_dpm_2` with ancestral noise."""
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(latents, sigma)
        on_step(step, denoised)
        slope = slope_of(latents, sigma, denoised)
        sigma_down, sigma_up = split_ancestral_step(sigma, sigma_next)
        if sigma_down > 0:
            middle = log_midpoint(sigma, sigma_down)
            half_way = latents + slope * (middle - sigma)
            slope = slope_of(half_way, middle, denoise(half_way, middle))
        latents = latents + slope * (sigma_down - sigma)
        if sigma_next > 0:
            latents = latents + draw_noise(sigma, sigma_next) * sigma_up
    return latents


def sample_dpmpp_2s_ancestral(
    denoise: Denoiser, latents: Tensor, sigmas: Tensor, draw_noise: DrawNoise, on_step: OnStep = ignore_step
) -> Tensor:
    """Single-step DPM-Solver++ of second order with ancestral noise.

    Source: Lu et al. 2022, arXiv:2211.01095, algorithm 1 with r = 1/2.
    """
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(latents, sigma)
        on_step(step, denoised)
        sigma_down, sigma_up = split_ancestral_step(sigma, sigma_next)
        if sigma_down > 0:
            middle = log_midpoint(sigma, sigma_down)
            half_way = hold_estimate(denoised, latents, middle / sigma)
            denoised = denoise(half_way, middle)
        latents = hold_estimate(denoised, latents, sigma_down / sigma)
        if sigma_next > 0:
            latents = latents + draw_noise(sigma, sigma_next) * sigma_up
    return latents


def sample_ddpm(
    denoise: Denoiser, latents: Tensor, sigmas: Tensor, draw_noise: DrawNoise, on_step: OnStep = ignore_step
) -> Tensor:
    """The reverse Markov chain itself, between any two noise levels.

    Source: Ho et al. 2020, arXiv:2006.11239, algorithm 2.
    """
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(latents, sigma)
        on_step(step, denoised)
        alphas_cumprod, alphas_cumprod_next = 1 / (1 + sigma**2), 1 / (1 + sigma_next**2)
        alpha = alphas_cumprod / alphas_cumprod_next
        predicted_noise = slope_of(latents, sigma, denoised)
        latents = latents * alphas_cumprod.sqrt()
        latents = (latents - predicted_noise * (1 - alpha) / (1 - alphas_cumprod).sqrt()) / alpha.sqrt()
        if sigma_next > 0:
            variance = (1 - alpha) * (1 - alphas_cumprod_next) / (1 - alphas_cumprod)
            latents = latents + draw_noise(sigma, sigma_next) * variance.sqrt()
        latents = latents / alphas_cumprod_next.sqrt()
    return latents


def sample_lcm(
    denoise: Denoiser, latents: Tensor, sigmas: Tensor, draw_noise: DrawNoise, on_step: OnStep = ignore_step
) -> Tensor:
    """Jump to the clean latents and noise them again, one level lower: for consistency-distilled networks.

    Source: Luo et al. 2023, arXiv:2310.04378, algorithm 3.
    """
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        latents = denoise(latents, sigma)
        on_step(step, latents)
        if sigma_next > 0:
            latents = latents + draw_noise(sigma, sigma_next) * sigma_next
    return latents


def sample_heunpp2(denoise: Denoiser, latents: Tensor, sigmas: Tensor, on_step: OnStep = ignore_step) -> Tensor:
    """Heun with a look two steps ahead: slopes weigh by their sigmas over the first one. Up to three calls in a step.

    Source: Heun++ as in Carzit's sd-webui-samplers-scheduler.
    """
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(latents, sigma)
        on_step(step, denoised)
        slope = slope_of(latents, sigma, denoised)
        width = sigma_next - sigma
        ahead = sigmas[step + 1 : step + 3]  # one of them is the end in the last step but one
        slopes, arrived = [slope], latents
        if sigma_next != sigmas[-1]:
            place = sigma
            for level in ahead if ahead[-1] != sigmas[-1] else ahead[:1]:
                arrived = arrived + slopes[-1] * (level - place)
                slopes.append(slope_of(arrived, level, denoise(arrived, level)))
                place = level
        shares = [level / (len(slopes) * sigmas[0]) for level in ahead[: len(slopes) - 1]]
        slope = slope * (1 - sum(shares)) if shares else slope
        for share, later in zip(shares, slopes[1:], strict=True):
            slope = slope + share * later
        latents = latents + slope * width
    return latents


def sample_gradient_estimation(
    denoise: Denoiser, latents: Tensor, sigmas: Tensor, on_step: OnStep = ignore_step
) -> Tensor:
    """Euler steps whose slope is drawn out from the one before: gradient descent with momentum.

    Source: Permenter & Yuan 2023, arXiv:2306.04848, algorithm 2 with gamma = 2.
    """
    before: Tensor | None = None
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(latents, sigma)
        on_step(step, denoised)
        if sigma_next == 0:
            latents = denoised
            continue
        slope = slope_of(latents, sigma, denoised)
        drawn_out = slope if before is None else 2 * slope - before
        latents = latents + drawn_out * (sigma_next - sigma)
        before = slope
    return latents
