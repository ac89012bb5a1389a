"""Sigmas made without a network's schedule, or cut and turned: what custom sampling puts together."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from atoll.diffusion.sigmas import (
    MAX_WHOLE_STEPS,
    SCHEDULES,
    BuildSchedule,
    NoiseSchedule,
    build_sigmas,
    with_final_zero,
)
from atoll.errors import InvalidRequest

TURBO_TIMESTEPS = 10  # an SD Turbo network knows timesteps 99, 199 ... 999
FLIPPED_START = 0.0001  # in place of 0, where the noise begins


def sigmas_for_strength(
    schedule: str | BuildSchedule, noise_schedule: NoiseSchedule, steps: int, denoising_strength: float
) -> Tensor:
    """The end of a longer list, so that `steps` steps remain; none for strength 0. schedule: a name or a function."""
    if denoising_strength <= 0:
        return torch.zeros(0)
    whole = steps if denoising_strength >= 1 else int(steps / denoising_strength)
    if isinstance(schedule, str):
        build_sigmas(schedule, noise_schedule, steps)  # judges the name
        schedule = SCHEDULES[schedule]
    if whole > MAX_WHOLE_STEPS:
        raise InvalidRequest(f"{steps} steps at strength {denoising_strength:g} need a list of {whole}. Take fewer.")
    return schedule(noise_schedule, whole)[-(steps + 1) :]


def karras_between(steps: int, sigma_max: float, sigma_min: float, rho: float) -> Tensor:
    """Source: Karras et al. 2022, arXiv:2206.00364, equation 5."""
    if rho == 0:
        raise InvalidRequest("rho is 0, which makes no list of sigmas. It is usually 7; above 0 in any case.")
    top, bottom = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return with_final_zero((top + torch.linspace(0, 1, steps) * (bottom - top)) ** rho)


def polyexponential_between(steps: int, sigma_max: float, sigma_min: float, rho: float = 1.0) -> Tensor:
    """Evenly spaced in log sigma; with rho 1 exactly, above 1 denser at the low end."""
    if sigma_min <= 0 or sigma_max <= 0:
        raise InvalidRequest(
            f"sigma_min {sigma_min:g} and sigma_max {sigma_max:g} must both be above 0 for a schedule in log sigma."
        )
    low, high = math.log(sigma_min), math.log(sigma_max)
    return with_final_zero((torch.linspace(1, 0, steps) ** rho * (high - low) + low).exp())


def vp_sigmas(steps: int, beta_d: float, beta_min: float, epsilon: float) -> Tensor:
    """The variance-preserving SDE's own levels, times evenly spaced from 1 to epsilon.

    Source: Song et al. 2021, arXiv:2011.13456, as in table 1 of Karras et al. 2022, arXiv:2206.00364.
    """
    times = torch.linspace(1, epsilon, steps)
    return with_final_zero(torch.expm1(beta_d * times**2 / 2 + beta_min * times).clamp(min=0).sqrt())


def turbo_sigmas(noise_schedule: NoiseSchedule, steps: int, denoising_strength: float) -> Tensor:
    """For networks distilled to ten timesteps. Source: Sauer et al. 2023, arXiv:2311.17042, section 3.2."""
    begin = TURBO_TIMESTEPS - int(TURBO_TIMESTEPS * denoising_strength)
    timesteps = (torch.arange(TURBO_TIMESTEPS, 0, -1) * 100 - 1)[begin : begin + steps]
    return with_final_zero(noise_schedule.sigma_at(noise_schedule.position_of(timesteps)))


def split_at_strength(sigmas: Tensor, denoising_strength: float) -> tuple[Tensor, Tensor]:
    """(the steps before, the last share of the steps), rounded to whole steps."""
    kept = round(max(len(sigmas) - 1, 0) * denoising_strength)
    return sigmas[: len(sigmas) - kept if kept else 0], sigmas[-(kept + 1) :]


def flip_sigmas(sigmas: Tensor) -> Tensor:
    """The way back, from the picture to the noise."""
    flipped = sigmas.flip(0)
    if len(flipped) and flipped[0] == 0:
        flipped[0] = FLIPPED_START
    return flipped
