"""The forward process: clean latents, noise and a timestep in; noisy latents and what the network shall say out."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

PredictionType = Literal["epsilon", "v_prediction"]


def build_alphas_cumprod(steps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012) -> Tensor:
    """(steps,) share of the picture's variance left at each timestep, by Stable Diffusion's "scaled linear" betas."""
    betas = torch.linspace(beta_start**0.5, beta_end**0.5, steps, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


def add_noise(latents: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """sqrt(a) latents + sqrt(1 - a) noise, a picked by each sample's timestep.

    Args:
        latents, noise: (batch, channels, height, width). timesteps: (batch,) integers.
    Source: Ho et al. 2020, arXiv:2006.11239, equation 4.
    """
    alpha = alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    return alpha.sqrt() * latents + (1 - alpha).sqrt() * noise


def prediction_target(
    latents: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor, prediction_type: PredictionType
) -> Tensor:
    """What the network shall predict: the noise, or v = sqrt(a) noise - sqrt(1 - a) latents.

    Source of v: Salimans and Ho 2022, arXiv:2202.00512, appendix D.
    """
    if prediction_type == "epsilon":
        return noise
    alpha = alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    return alpha.sqrt() * noise - (1 - alpha).sqrt() * latents


def draw_timesteps(count: int, steps: int, generator: torch.Generator) -> Tensor:
    """(count,) timesteps, one from each of `count` equal parts of the range: every batch sees all noise levels."""
    offsets = torch.rand(count, generator=generator)
    return ((torch.arange(count) + offsets) * steps / count).long().clamp(max=steps - 1)
