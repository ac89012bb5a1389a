"""What a sampler is given: plain functions, so that it knows neither network nor guidance nor who listens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(latents, sigma of no dimension) -> clean latents. Conditioning and guidance_scale are bound inside."""


@dataclass
class TwoSidedDenoiser:
    """A denoiser that remembers what the negative prompt alone would have drawn in the last call.

    ask: (latents, sigma) -> (clean latents, those of the negative prompt alone or None without guidance).
    """

    ask: Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
    negative: Tensor | None = None

    def __call__(self, latents: Tensor, sigma: Tensor) -> Tensor:
        denoised, self.negative = self.ask(latents, sigma)
        return denoised


def negative_of(denoise: Denoiser, denoised: Tensor) -> Tensor:
    """What the negative prompt alone would have drawn in the last call; without guidance the estimate itself."""
    negative = denoise.negative if isinstance(denoise, TwoSidedDenoiser) else None
    return denoised if negative is None else negative


DrawNoise = Callable[[Tensor, Tensor], Tensor]
"""(sigma, sigma_next) -> unit noise for the way between them, shaped like the latents."""

OnStep = Callable[[int, Tensor], None]
"""Told (step, denoised) once in every step. May raise JobCancelled."""


def ignore_step(step: int, denoised: Tensor) -> None:
    """For a caller who does not want to hear."""
