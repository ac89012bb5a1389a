"""What stands in the masked part of a picture before it is drawn anew, and fitting pictures and latents to a size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from atoll.graph.node import OneOf, Range, Tooltip, node
from atoll.nodes.inpaint import mask_for
from atoll.nodes.latents import MAX_SEED, MAX_SIDE, VAE_STRIDE
from atoll.nodes.resize import resize
from atoll.nodes.types import Image, Latents, Mask, Model

if TYPE_CHECKING:
    from torch import Tensor

PixelSide = Annotated[int, Range(8, MAX_SIDE, step=8)]
UPSCALE_METHODS = ("bilinear", "bicubic", "nearest", "nearest-exact")


@node("AtollFillMasked", title="Fill the Masked Part", category="image/inpaint")
def fill_masked(image: Image, mask: Mask) -> Image:
    """Fill what is masked with the colours around it, softer the farther they are away."""
    keep = 1 - mask_for(image, mask)[:, None]
    pixels = image.movedim(-1, 1)
    return (pixels * keep + _surroundings(pixels, keep) * (1 - keep)).movedim(1, -1)


def _surroundings(pixels: Tensor, keep: Tensor) -> Tensor:
    """(batch, channels, height, width) without holes: each is filled from the next coarser level that has something.

    Source: the pull and the push of Gortler et al. 1996, "The Lumigraph", section 3.4.
    """
    import torch  # not at the top: the server must not load it
    from torch.nn import functional

    weight = keep.clamp(0, 1)
    height, width = pixels.shape[-2:]
    if max(height, width) == 1:
        return pixels
    known = torch.cat([pixels * weight, weight.expand(len(pixels), -1, -1, -1)], dim=1)
    pulled = functional.avg_pool2d(known, 2, ceil_mode=True)
    coarse_weight = pulled[:, -1:]
    coarse = pulled[:, :-1] / coarse_weight.clamp(min=1e-6)
    filled = _surroundings(coarse, (coarse_weight * 4).clamp(max=1))
    pushed = functional.interpolate(filled, size=(height, width), mode="bilinear")
    return pixels * weight + pushed * (1 - weight)


@node("AtollMaskedLatents", title="Blank the Masked Latents", category="latent/inpaint")
def blank_masked_latents(
    samples: Latents,
    mask: Mask,
    model: Annotated[Model, Tooltip("Whose noise it is: its latents have a scale of their own.")],
    *,
    content: Annotated[str, OneOf(("nothing", "noise")), Tooltip("What the masked part begins with.")],
    seed: Annotated[int, Range(0, MAX_SEED), Tooltip("Of the noise; picture i of a batch has seed + i.")] = 0,
) -> Latents:
    """Put nothing, or noise, in the place of the masked part of latents."""
    from atoll.diffusion.inpaint import mask_for_latents  # loads torch, which the server must not
    from atoll.diffusion.noise import draw_start_noise

    latents = samples["samples"]
    share = mask_for_latents(mask, latents)
    changed = samples.copy()
    changed["samples"] = latents * (1 - share)
    if content == "noise":
        noise = draw_start_noise(latents.shape, seed, rule="per_image", batch_index=samples.get("batch_index"))
        changed["samples"] = changed["samples"] + noise.to(latents) / model.scaling_factor * share
    return changed


@node("AtollResizeAndFill", title="Resize and Fill", category="image/upscaling")
def resize_and_fill(image: Image, *, width: PixelSide = 512, height: PixelSide = 512) -> Image:
    """A whole picture inside another size; what is left over is filled by drawing out its borders."""
    from torch.nn import functional  # loads torch, which the server must not

    old_height, old_width = image.shape[1:3]
    scale = min(width / old_width, height / old_height)
    inner_width, inner_height = (
        min(max(1, round(old_width * scale)), width),
        min(max(1, round(old_height * scale)), height),
    )
    fitted = resize(image.movedim(-1, 1), inner_width, inner_height, "lanczos")
    left, top = (width - inner_width) // 2, (height - inner_height) // 2
    borders = (left, width - inner_width - left, top, height - inner_height - top)
    return functional.pad(fitted, borders, mode="replicate").movedim(1, -1)


@node("AtollUpscaleLatent", title="Upscale Latent (A1111)", category="latent")
def upscale_latent(
    samples: Latents,
    *,
    upscale_method: Annotated[str, OneOf(UPSCALE_METHODS)],
    antialias: bool = False,
    width: PixelSide = 1024,
    height: PixelSide = 1024,
) -> Latents:
    """Latents to another size, given in pixels; of another aspect, the middle of it. A1111's modes of the hires fix."""
    from torch.nn import functional  # loads torch, which the server must not

    latents = samples["samples"]
    old_height, old_width = latents.shape[-2:]
    new_height, new_width = height // VAE_STRIDE, width // VAE_STRIDE
    # A1111 covers the wanted size first and then cuts off what is over.
    if old_width * new_height < old_height * new_width:
        size = (max(new_height, new_width * old_height // old_width), new_width)
    else:
        size = (new_height, max(new_width, new_height * old_width // old_height))
    smooth = antialias and not upscale_method.startswith("nearest")
    scaled = functional.interpolate(latents, size=size, mode=upscale_method, antialias=smooth)
    top, left = (size[0] - new_height) // 2, (size[1] - new_width) // 2
    changed = samples.copy()
    changed["samples"] = scaled[..., top : top + new_height, left : left + new_width]
    return changed
