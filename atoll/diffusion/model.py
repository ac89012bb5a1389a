"""The network that denoises, with what it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor

from atoll.diffusion.conditioning import Conditioning
from atoll.diffusion.preview import PreviewMap
from atoll.diffusion.sigmas import NoiseSchedule

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

CPU = torch.device("cpu")
Base = Literal["sd1", "sd2", "sdxl"]
REFINER_NUMBERS, REFINER_POOLED = 5, 1280


@dataclass(frozen=True)
class Estimates:
    """What is known when guidance decides, in the network's scale.

    latents, sigma: what the network was shown, noised.
    denoised: clean latents as each group of prompts would have them: positive, negative, then a guide's own.
    """

    latents: Tensor
    sigma: Tensor
    guidance_scale: float
    denoised: Sequence[Tensor]


@dataclass(frozen=True)
class Guide:
    """Another rule of guidance in place of the usual one.

    combine: estimates -> clean latents. told: prompts that it wants an estimate of beside positive and negative.
    """

    combine: Callable[[Estimates], Tensor]
    told: tuple[tuple[Conditioning, ...], ...] = ()


class Correction(Protocol):
    """Something done to the guided answer, which may ask the network again."""

    def corrected(
        self, unet: UNet2DConditionModel, known: Estimates, ask: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """known: with the guided answer as third. ask: (latents, sigma) -> clean latents by the negative prompt."""


class Patch(Protocol):
    """Something done to a network for the length of a call; nothing of it stays."""

    def applied(
        self, unet: UNet2DConditionModel, sigma: float, size: tuple[int, int]
    ) -> AbstractContextManager[object]:
        """size: (height, width) of the latents that are drawn."""


@dataclass(frozen=True)
class Model:
    """A U-Net on its device, and the noise it knows.

    scaling_factor: the network sees VAE latents times this.
    base: the family, which decides what else the network is told (SDXL: pooled text and picture size).
    preview_map: how its latents look without the VAE.
    guide, corrections, patches: what nodes changed about how it is asked; the weights are shared with the original.
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
    guide: Guide | None = None
    corrections: tuple[Correction, ...] = ()
    patches: tuple[Patch, ...] = ()

    @property
    def in_channels(self) -> int:
        return int(self.unet.config.in_channels)

    @property
    def is_inpainting(self) -> bool:
        """Told, besides the latents, a mask and the latents of the picture without its masked part."""
        return self.in_channels == 2 * self.latent_channels + 1

    @property
    def is_refiner(self) -> bool:
        """SDXL's second model, which is told five numbers beside the prompt, not six."""
        config = self.unet.config
        if getattr(config, "addition_embed_type", None) != "text_time":
            return False
        told = int(config.projection_class_embeddings_input_dim)
        return told - REFINER_NUMBERS * int(config.addition_time_embed_dim) == REFINER_POOLED
