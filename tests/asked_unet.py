"""A tiny U-Net that remembers what it was asked, and something to ask it."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from tiny_models import build_tiny_parts
from torch import Tensor

from atoll.diffusion.conditioning import Conditioning
from atoll.diffusion.guidance import build_denoiser
from atoll.diffusion.model import Model
from atoll.diffusion.sigmas import NoiseSchedule

SD1 = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


build_parts = cache(build_tiny_parts)


class RecordedUnet(torch.nn.Module):
    """Answers like the network it wraps and keeps what it was asked."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet, self.config, self.asked = unet, unet.config, []

    def forward(self, inputs: Tensor, timestep: Tensor, **told: Any) -> Any:
        self.asked.append({"inputs": inputs, "timestep": timestep, **told})
        return self.unet(inputs, timestep, **told)


def build_model(**options: Any) -> Model:
    unet = RecordedUnet(copy.deepcopy(build_parts(**options)["unet"]))
    prediction_type = options.get("prediction_type", "epsilon")
    return Model(unet, NoiseSchedule.from_config(SD1 | {"prediction_type": prediction_type}), name="tiny")


def tell(seed: int, tokens: int = 77, **extras: Any) -> Conditioning:
    return Conditioning(torch.randn(1, tokens, 32, generator=torch.Generator().manual_seed(seed)), **extras)


def some_latents(batch: int = 2) -> Tensor:
    return torch.randn(batch, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 5


SIGMA = torch.tensor(4.0)


def ask(model: Model, *arguments: Any, **options: Any) -> Tensor:
    with torch.no_grad():
        return build_denoiser(model, *arguments, **options)(some_latents(), SIGMA)
