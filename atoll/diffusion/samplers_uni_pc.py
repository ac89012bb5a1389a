"""UniPC: a predictor and a corrector of the same order that share every call of the network.

Source: Zhao et al. 2023, arXiv:2302.04867, in its multistep, data-predicting form (UniPC-p, B1 and B2).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from atoll.diffusion.denoiser import Denoiser, OnStep, ignore_step
from atoll.diffusion.samplers_singlestep import hold_estimate

# The solver lives in log sigma, which has no 0: this is where it stops instead.
LAST_SIGMA = 0.001


def rounded_as_variance_preserving(sigmas: Tensor) -> Tensor:
    """Sigmas after a trip through 1 - 1 / (1 + sigma^2) in float32.

    The reference solves in that scale, where 0.001 becomes 1/1024: a difference that can be seen in its results.
    """
    alphas_cumprod = 1.0 / (1.0 + sigmas.float() ** 2)
    return ((1.0 - alphas_cumprod) / alphas_cumprod).sqrt()


def solve_weights(ratios: list[float], width: float, order: int, variant: str) -> tuple[list[float], list[float]]:
    """The weights that make the solver exact to its order.

    Args:
        ratios: where the older estimates lie, in steps from the newest; negative.
        width: of the step, in -log sigma; positive.

    Returns: (weights of the older estimates for the predictor, the same and the new one's for the corrector), both
        already times B(h).
    """
    h = -width
    scale = h if variant == "bh1" else math.expm1(h)
    points = torch.tensor([*ratios, 1.0], dtype=torch.float64)
    moments = []
    phi, factorial = math.expm1(h) / h - 1, 1.0
    for power in range(1, order + 1):
        moments.append(phi * factorial / scale)
        factorial *= power + 1
        phi = phi / h - 1 / factorial
    target = torch.tensor(moments, dtype=torch.float64)
    vandermonde = torch.stack([points**power for power in range(order)])
    # Orders 2 and 1 take one half, the limit of the exact weight for small steps.
    if order == 1:
        predictor = torch.zeros(0, dtype=torch.float64)
        corrector = torch.tensor([0.5], dtype=torch.float64)
    else:
        corrector = torch.linalg.solve(vandermonde, target)
        predictor = torch.tensor([0.5], dtype=torch.float64)
        if order > 2:
            predictor = torch.linalg.solve(vandermonde[:-1, :-1], target[:-1])
    return (predictor * scale).tolist(), (corrector * scale).tolist()


def sample_uni_pc(
    denoise: Denoiser, latents: Tensor, sigmas: Tensor, on_step: OnStep = ignore_step, *, variant: str = "bh1"
) -> Tensor:
    """UniPC of order 3, lower while there are few estimates and in the last steps.

    Arguments as in `samplers_singlestep.py`; variant "bh1" or "bh2".
    """
    if sigmas[-1] == 0:
        sigmas = torch.cat([sigmas[:-1], sigmas.new_tensor([LAST_SIGMA])])
    solved = rounded_as_variance_preserving(sigmas)
    levels = [-math.log(float(sigma)) for sigma in solved]
    steps = len(sigmas) - 1
    highest = max(1, min(3, steps - 1))
    newest = denoise(latents, sigmas[0])
    on_step(0, newest)
    estimates = [newest]  # newest first
    for arrival in range(1, steps + 1):
        order = min(highest, arrival, steps + 1 - arrival)
        width = levels[arrival] - levels[arrival - 1]
        ratios = [(levels[arrival - 1 - back] - levels[arrival - 1]) / width for back in range(1, order)]
        predictor, corrector = solve_weights(ratios, width, order, variant)
        base = hold_estimate(estimates[0], latents, solved[arrival] / solved[arrival - 1])
        slopes = [(estimates[back] - estimates[0]) / ratios[back - 1] for back in range(1, order)]
        latents = base
        for weight, slope in zip(predictor, slopes, strict=True):
            latents = latents - weight * slope
        if arrival == steps:
            break
        newest = denoise(latents, sigmas[arrival])
        on_step(arrival, newest)
        latents = base - corrector[-1] * (newest - estimates[0])
        for weight, slope in zip(corrector, slopes, strict=False):
            latents = latents - weight * slope
        estimates = [newest, *estimates][:highest]
    return latents


def sample_uni_pc_bh2(denoise: Denoiser, latents: Tensor, sigmas: Tensor, on_step: OnStep = ignore_step) -> Tensor:
    return sample_uni_pc(denoise, latents, sigmas, on_step, variant="bh2")
