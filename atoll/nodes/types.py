"""What travels on the links between Atoll's nodes, under ComfyUI's names.

The types are written as texts, because a node's declaration must be readable without loading torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypedDict

from atoll.graph.node import Socket

if TYPE_CHECKING:
    from torch import Tensor

    from atoll.diffusion.conditioning import Conditioning
    from atoll.diffusion.custom_sampling import Guider as DiffusionGuider
    from atoll.diffusion.custom_sampling import StartNoise
    from atoll.diffusion.inpaint import CropBox
    from atoll.diffusion.model import Model as DiffusionModel
    from atoll.diffusion.noise import Variation
    from atoll.diffusion.samplers import Sampler as DiffusionSampler
    from atoll.diffusion.text import TextEncoder
    from atoll.diffusion.vae import Vae as AutoEncoder


class LatentBatch(TypedDict, total=False):
    """
    samples: (batch, channels, height/8, width/8), in the VAE's own scale.
    noise_mask: (1 or batch, 1, any height, any width), 1 = change.
    batch_index: for each sample, which picture of a batch's noise it takes.
    variation: where it is there, each picture has a seed of its own, as in A1111 (`atoll/diffusion/noise.py`).
    """

    samples: Tensor
    noise_mask: Tensor
    batch_index: list[int]
    variation: Variation


Image = Annotated["Tensor", Socket("IMAGE")]  # (batch, height, width, channels), 0..1
Mask = Annotated["Tensor", Socket("MASK")]  # (batch, height, width), 0..1, 1 = change
Latents = Annotated[LatentBatch, Socket("LATENT")]
Conditionings = Annotated["list[Conditioning]", Socket("CONDITIONING")]
Model = Annotated["DiffusionModel", Socket("MODEL")]
Clip = Annotated["TextEncoder", Socket("CLIP")]
Vae = Annotated["AutoEncoder", Socket("VAE")]
Sigmas = Annotated["Tensor", Socket("SIGMAS")]  # (steps + 1,), float32 on the CPU
Sampler = Annotated["DiffusionSampler", Socket("SAMPLER")]
Noise = Annotated["StartNoise", Socket("NOISE")]
Guider = Annotated["DiffusionGuider", Socket("GUIDER")]
Region = Annotated["CropBox", Socket("ATOLL_REGION")]
