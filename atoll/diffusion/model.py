"""The network that denoises, with what it was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from atoll.diffusion.preview import PreviewMap
from atoll.diffusion.sigmas import NoiseSchedule

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

CPU = torch.device("cpu")
Base = Literal["sd1", "sd2", "sdxl"]


@dataclass(frozen=True)
class Model:
    """A U-Net on its device, and the noise it knows.

    scaling_factor: the network sees VAE latents times this.
    base: the family, which decides what else the network is told (SDXL: pooled text and picture size).
    preview_map: how its latents look without the VAE.
    """

    unet: UNet2DConditionModel
    noise_schedule: NoiseSchedule
    scaling_factor: float = 0.18215
    latent_channels: int = 4
    base: Base = "sd1"
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32
    name: str = ""
    preview_map: PreviewMap | None = None

    @property
    def in_channels(self) -> int:
        return int(self.unet.config.in_channels)

    @property
    def is_inpainting(self) -> bool:
        """Told, besides the latents, a mask and the latents of the picture without its masked part."""
        return self.in_channels == 2 * self.latent_channels + 1
