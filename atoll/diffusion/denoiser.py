"""What a sampler is given: plain functions, so that it knows neither network nor guidance nor who listens."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(latents, sigma of no dimension) -> clean latents. Conditioning and guidance_scale are bound inside."""

DrawNoise = Callable[[Tensor, Tensor], Tensor]
"""(sigma, sigma_next) -> unit noise for the way between them, shaped like the latents."""

OnStep = Callable[[int, Tensor], None]
"""Told (step, denoised) once in every step. May raise JobCancelled."""


def ignore_step(step: int, denoised: Tensor) -> None:
    """For a caller who does not want to hear."""
