"""What the network is told to draw."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """One encoded prompt. A list of them is mixed by guidance, each weighing its `strength`.

    embeds: (1, tokens, dim), tokens a multiple of 77.
    pooled: (1, dim) of the text encoder that has a projection (SDXL), else None.
    inpaint_mask: (1 or batch, 1, any height, any width), 1 = change; only for inpainting U-Nets (9 channels).
    masked_latents: (1 or batch, channels, height/8, width/8), unscaled latents of the picture without its masked part.
    """

    embeds: Tensor
    pooled: Tensor | None = None
    strength: float = 1.0
    inpaint_mask: Tensor | None = None
    masked_latents: Tensor | None = None

    def zeroed(self) -> Conditioning:
        """The same with nothing said: all embeddings zero."""
        pooled = None if self.pooled is None else torch.zeros_like(self.pooled)
        return replace(self, embeds=torch.zeros_like(self.embeds), pooled=pooled)
