"""SA-Solver: Adams' method, predicting and correcting, on an SDE whose noise is fresh only between two noise levels.

Source: Xue et al. 2023, arXiv:2309.05019, algorithm 1; predictor of order 3, corrector of order 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from atoll.diffusion.denoiser import Denoiser, DrawNoise, OnStep, ignore_step

PREDICTOR_ORDER, CORRECTOR_ORDER = 3, 4
# Noise is fresh from 20 % to 80 % of the way of a Stable Diffusion model.
FRESH_FROM, FRESH_TO = 5.0924, 0.5712  # sigmas


def adams_weights(nodes: Sequence[float], start: float, end: float, tau: float) -> list[float]:
    """How much each estimate counts in the step from start to end, all in lambda = -log sigma.

    The estimates are taken as a polynomial through their nodes, weighed by the SDE's own exponential.
    """
    rate, width = 1 + tau**2, end - start
    moments = [-math.expm1(-rate * width)]
    for power in range(1, len(nodes)):
        moments.append(-((-width) ** power) * math.exp(-rate * width) - power / rate * moments[-1])
    places = np.vander([node - end for node in nodes], len(nodes), increasing=True).T
    return [float(weight) for weight in np.linalg.solve(places, np.array(moments))]


def sample_sa_solver(
    denoise: Denoiser, latents: Tensor, sigmas: Tensor, draw_noise: DrawNoise, on_step: OnStep = ignore_step
) -> Tensor:
    """One call of the network in each step."""
    return _sample(denoise, latents, sigmas, draw_noise, on_step, asks_again=False)


def sample_sa_solver_pece(
    denoise: Denoiser, latents: Tensor, sigmas: Tensor, draw_noise: DrawNoise, on_step: OnStep = ignore_step
) -> Tensor:
    """Asks the network again about what was corrected: two calls in each step but the first."""
    return _sample(denoise, latents, sigmas, draw_noise, on_step, asks_again=True)


def _sample(
    denoise: Denoiser, latents: Tensor, sigmas: Tensor, draw_noise: DrawNoise, on_step: OnStep, *, asks_again: bool
) -> Tensor:
    steps = len(sigmas) - 1
    levels = [float(sigma) for sigma in sigmas]
    places = [-math.log(level) if level > 0 else math.inf for level in levels]
    ends_at_zero = levels[-1] == 0
    estimates: list[Tensor] = []
    predicted, noise, tau = latents, torch.zeros_like(latents), 0.0
    for step in range(steps):
        denoised = denoise(predicted, sigmas[step])
        on_step(step, denoised)
        estimates = [*estimates, denoised][-CORRECTOR_ORDER:]
        order, corrections = min(PREDICTOR_ORDER, len(estimates)), min(CORRECTOR_ORDER, len(estimates))
        if step == 0 or (levels[step + 1] == 0 and not asks_again):
            corrections = 0
        if ends_at_zero:  # lower orders near the end, which is steadier
            order, corrections = min(order, steps - 1 - step), min(corrections, steps - step)
        if corrections == 0:
            latents = predicted
        else:
            nodes = places[step - corrections + 1 : step + 1]
            latents = _moved(latents, estimates, nodes, places[step - 1], places[step], tau) + noise
            if asks_again:
                denoised = denoise(latents, sigmas[step])
                estimates[-1] = denoised
        if levels[step + 1] == 0:
            predicted = denoised
            continue
        tau = 1.0 if FRESH_TO <= levels[step + 1] <= FRESH_FROM else 0.0
        nodes = places[step - order + 1 : step + 1]
        predicted = _moved(latents, estimates, nodes, places[step], places[step + 1], tau)
        noise = torch.zeros_like(latents)
        if tau > 0:
            width = places[step + 1] - places[step]
            spread = levels[step + 1] * math.sqrt(-math.expm1(-2 * tau**2 * width))
            noise = draw_noise(sigmas[step], sigmas[step + 1]) * spread
        predicted = predicted + noise
    return predicted


def _moved(
    latents: Tensor, estimates: Sequence[Tensor], nodes: Sequence[float], start: float, end: float, tau: float
) -> Tensor:
    """Latents at `start` carried to `end`, both in lambda, by the newest of the estimates, one for each node."""
    moved = latents * math.exp(-(1 + tau**2) * (end - start))
    for estimate, weight in zip(estimates[-len(nodes) :], adams_weights(nodes, start, end, tau), strict=True):
        moved = moved + estimate * weight
    return moved
