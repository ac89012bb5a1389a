"""What the network is told to draw, where in the picture, and during which part of the steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from atoll.errors import InvalidRequest


@dataclass(frozen=True)
class Area:
    """A rectangle of the latents. in_shares: the four are parts of the whole, 0..1, else latents."""

    height: float
    width: float
    top: float
    left: float
    in_shares: bool = False


@dataclass(frozen=True)
class PictureSize:
    """What SDXL is told of the picture beside the prompt, in pixels; None is what is being made.

    target_height, target_width: None is height and width. aesthetic_score: only for SDXL's refiner.
    """

    height: int | None = None
    width: int | None = None
    crop_top: int = 0
    crop_left: int = 0
    target_height: int | None = None
    target_width: int | None = None
    aesthetic_score: float | None = None


@dataclass(frozen=True)
class Conditioning:
    """One encoded prompt. A list of them is mixed by guidance, each weighing its `strength` wherever it says something.

    embeds: (1, tokens, dim), tokens a multiple of 77.
    pooled: (1, dim) of the text encoder that has a projection (SDXL), else None.
    inpaint_mask: (1 or batch, 1, any height, any width), 1 = change; only for inpainting U-Nets (9 channels).
    masked_latents: (1 or batch, channels, height/8, width/8), unscaled latents of the picture without its masked part.
    area: where it speaks; the network is shown that part alone.
    mask: (1 or batch, any height, any width), where it speaks, times mask_strength; the network sees the whole picture,
        or with mask_sets_area the rectangle around what is masked.
    start_percent, end_percent: during which part of the way from noise to picture it speaks, 0..1.
    size: for SDXL.
    """

    embeds: Tensor
    pooled: Tensor | None = None
    strength: float = 1.0
    inpaint_mask: Tensor | None = None
    masked_latents: Tensor | None = None
    area: Area | None = None
    mask: Tensor | None = None
    mask_strength: float = 1.0
    mask_sets_area: bool = False
    start_percent: float = 0.0
    end_percent: float = 1.0
    size: PictureSize = PictureSize()

    def zeroed(self) -> Conditioning:
        """The same with nothing said: all embeddings zero."""
        pooled = None if self.pooled is None else torch.zeros_like(self.pooled)
        return replace(self, embeds=torch.zeros_like(self.embeds), pooled=pooled)

    def followed_by(self, other: Conditioning) -> Conditioning:
        """Both texts one behind the other, as if written in one prompt; everything else stays this one's.

        Raises: InvalidRequest if they come from text encoders of different families.
        """
        check_same_width(self, other)
        return replace(self, embeds=torch.cat([self.embeds, other.embeds], dim=1))

    def mixed_with(self, other: Conditioning, share: float) -> Conditioning:
        """`share` of this one's embeddings, the rest of the other's, which is cut or filled up to this one's length.

        Raises: InvalidRequest if they come from text encoders of different families.
        """
        check_same_width(self, other)
        tokens = self.embeds.shape[1]
        embeds = torch.zeros_like(self.embeds)
        embeds[:, : other.embeds.shape[1]] = other.embeds[:, :tokens]
        pooled = self.pooled
        if other.pooled is not None:
            own = other.pooled if pooled is None else pooled
            pooled = own * share + other.pooled * (1 - share)
        return replace(self, embeds=self.embeds * share + embeds * (1 - share), pooled=pooled)


def check_same_width(first: Conditioning, second: Conditioning) -> None:
    widths = first.embeds.shape[-1], second.embeds.shape[-1]
    if widths[0] != widths[1]:
        raise InvalidRequest(
            f"Two prompts were encoded to vectors of {widths[0]} and of {widths[1]} numbers, so they cannot be joined. "
            "Encode both with the text encoder of one model."
        )
