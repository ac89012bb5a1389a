"""DPM-Solver on the probability-flow ODE, in lambda = -log sigma: with steps planned by count, or by an error bound.

Both end at the lowest sigma above 0, as k-diffusion and ComfyUI have them. Arguments as in `samplers_singlestep.py`.

Source: Lu et al. 2022, arXiv:2206.00927; step sizes after k-diffusion (MIT).
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from atoll.diffusion.denoiser import Denoiser, OnStep, ignore_step

RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 0.05, 0.0078
FIRST_STEP = 0.05  # in lambda
LEAST_GROWTH = 0.81  # a step that wants to be shortened by more than this is made again
ORDER = 3
NEAR_END = 1e-5  # in lambda


class _Step:
    """One step of DPM-Solver from `start` to `end`, in lambda; what the network answers on the way is kept."""

    def __init__(self, denoise: Denoiser, latents: Tensor, start: float, end: float) -> None:
        self.denoise, self.latents, self.start, self.width = denoise, latents, start, end - start
        self.end_sigma = math.exp(-end)
        self.noises: dict[float, Tensor] = {}
        sigma = torch.tensor(math.exp(-start), dtype=torch.float32)
        self.denoised = denoise(latents, sigma)
        self.noise = (latents - self.denoised) / sigma

    def _noise_at(self, share: float, latents: Tensor) -> Tensor:
        if share not in self.noises:
            sigma = torch.tensor(math.exp(-(self.start + share * self.width)), dtype=torch.float32)
            self.noises[share] = (latents - self.denoise(latents, sigma)) / sigma
        return self.noises[share]

    def first(self, share: float = 1.0) -> Tensor:
        """Where the first noise alone leads, after that share of the step."""
        sigma = math.exp(-(self.start + share * self.width))
        return self.latents - sigma * math.expm1(share * self.width) * self.noise

    def second(self, share: float = 1 / 2) -> Tensor:
        bend = self._noise_at(share, self.first(share)) - self.noise
        grown = math.expm1(self.width)
        return self.latents - self.end_sigma * grown * (self.noise + bend / (2 * share))

    def third(self, share: float = 1 / 3, later: float = 2 / 3) -> Tensor:
        bend = self._noise_at(share, self.first(share)) - self.noise
        width = later * self.width
        sigma = math.exp(-(self.start + width))
        curve = math.expm1(width) / width - 1
        bend = self._noise_at(later, self.first(later) - sigma * (later / share) * curve * bend) - self.noise
        curve = math.expm1(self.width) / self.width - 1
        return self.latents - self.end_sigma * (math.expm1(self.width) * self.noise + curve / later * bend)


def _ends(sigmas: Tensor) -> tuple[float, float]:
    """(first, last) lambda of a walk; the last is that of the lowest sigma above 0."""
    last = sigmas[-1] if sigmas[-1] > 0 else sigmas[-2]
    return -math.log(float(sigmas[0])), -math.log(float(last))


def sample_dpm_fast(denoise: Denoiser, latents: Tensor, sigmas: Tensor, on_step: OnStep = ignore_step) -> Tensor:
    """As many calls of the network as there are steps, in steps of third order and a last one of what is left.

    Steps are even in lambda; of the sigmas only the ends and the count matter.
    """
    start, end = _ends(sigmas)
    calls = len(sigmas) - 1
    count = calls // 3 + 1
    orders = [3] * (count - 2) + [2, 1] if calls % 3 == 0 else [3] * (count - 1) + [calls % 3]
    for step, ((now, then), order) in enumerate(
        zip(pairwise(torch.linspace(start, end, count + 1, dtype=torch.float64).tolist()), orders, strict=True)
    ):
        solver = _Step(denoise, latents, now, then)
        on_step(step, solver.denoised)
        latents = (solver.first, solver.second, solver.third)[order - 1]()
    return latents


def sample_dpm_adaptive(denoise: Denoiser, latents: Tensor, sigmas: Tensor, on_step: OnStep = ignore_step) -> Tensor:
    """Steps as long as second and third order agree; the schedule and the number of steps do not matter.

    on_step is told no more than there are sigmas: the last number repeats.
    """
    position, end = _ends(sigmas)
    width, before, step = FIRST_STEP, latents, 0
    while position < end - NEAR_END:
        then = min(end, position + width)
        solver = _Step(denoise, latents, position, then)
        on_step(min(step, len(sigmas) - 2), solver.denoised)
        step += 1
        low, high = solver.second(1 / 3), solver.third()
        allowed = (RELATIVE_TOLERANCE * torch.maximum(low.abs(), before.abs())).clamp(min=ABSOLUTE_TOLERANCE)
        error = float(((low - high) / allowed).norm()) / math.sqrt(latents.numel())
        growth = 1 + math.atan((1 / (error + 1e-8)) ** (1 / ORDER) - 1)
        if growth >= LEAST_GROWTH:
            before, latents, position = low, high, then
        width *= growth
    return latents
