"""Changing a part of a picture."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Annotated

from atoll.graph.node import Range, Tooltip, node
from atoll.nodes.latents import MAX_SIDE, cut_to_stride, encode_pixels
from atoll.nodes.resize import resize
from atoll.nodes.types import Conditionings, Image, LatentBatch, Latents, Mask, Region, Vae

if TYPE_CHECKING:
    from torch import Tensor


@node("VAEEncodeForInpaint", title="VAE Encode (for Inpainting)", category="latent/inpaint")
def encode_for_inpainting(
    pixels: Image, vae: Vae, mask: Mask, *, grow_mask_by: Annotated[int, Range(0, 64, step=1)] = 6
) -> Latents:
    """Latents of a picture whose masked part is grey, with the mask grown, for drawing that part quite anew."""
    import torch  # not at the top: the server must not load it
    from torch.nn import functional as F

    pixels, mask = _fitted(pixels, mask)
    grown = mask.round()
    if grow_mask_by > 0:
        kernel = torch.ones(1, 1, grow_mask_by, grow_mask_by)
        padding = math.ceil((grow_mask_by - 1) / 2)
        # An even kernel has no middle, so the result is a row and a column too big.
        grown = F.conv2d(grown, kernel, padding=padding).clamp(0, 1)[..., : mask.shape[-2], : mask.shape[-1]]
    return {"samples": encode_pixels(vae, _greyed(pixels, mask)), "noise_mask": grown.round()}


@node(
    "InpaintModelConditioning",
    title="InpaintModelConditioning",
    category="conditioning/inpaint",
    output_names=("positive", "negative", "latent"),
)
def condition_on_masked_picture(
    positive: Conditionings, negative: Conditionings, vae: Vae, pixels: Image, mask: Mask, *, noise_mask: bool = True
) -> tuple[Conditionings, Conditionings, Latents]:
    """Tell an inpainting model (9 channels) which part to change and what lies around it."""
    pixels, mask = _fitted(pixels, mask)
    masked_latents = encode_pixels(vae, _greyed(pixels, mask))
    latents: LatentBatch = {"samples": encode_pixels(vae, pixels)}
    if noise_mask:
        latents["noise_mask"] = mask
    told = [
        [dataclasses.replace(item, inpaint_mask=mask, masked_latents=masked_latents) for item in conditionings]
        for conditionings in (positive, negative)
    ]
    return told[0], told[1], latents


@node("AtollBlurMask", title="Blur Mask", category="mask")
def blur_mask(
    mask: Mask,
    *,
    radius: Annotated[int, Range(0, 256), Tooltip("Standard deviation of the blur, in pixels.")] = 4,
) -> Mask:
    """Soften the border of a mask, so that old and new run into each other."""
    from atoll.diffusion.inpaint import blur_mask  # loads torch, which the server must not

    return blur_mask(mask, radius)


@node("AtollCropToMask", title="Crop to Mask", category="image/inpaint", output_names=("image", "mask", "region"))
def crop_to_mask(
    image: Image,
    mask: Mask,
    *,
    width: Annotated[int, Range(16, MAX_SIDE, step=8), Tooltip("Of the part, when it is worked on.")] = 512,
    height: Annotated[int, Range(16, MAX_SIDE, step=8), Tooltip("Of the part, when it is worked on.")] = 512,
    padding: Annotated[int, Range(0, MAX_SIDE), Tooltip("Pixels of surroundings to show.")] = 32,
) -> tuple[Image, Mask, Region]:
    """Cut out the masked part with some surroundings and bring it to a size of its own ("only masked").

    "Paste Back" puts the result where it belongs. Raises: InvalidRequest if the mask marks nothing.
    """
    from atoll.diffusion.inpaint import find_crop_box  # loads torch, which the server must not

    mask = mask_for(image, mask)
    region = find_crop_box(mask, padding, width, height)
    part = resize(region.cut(image.movedim(-1, 1)), width, height, "lanczos").movedim(1, -1)
    part_mask = resize(region.cut(mask)[:, None], width, height, "bilinear")[:, 0]
    return part, part_mask, region


@node("AtollPasteBack", title="Paste Back", category="image/inpaint", optional=("region",))
def paste_back(image: Image, painted: Image, mask: Mask, region: Region | None = None) -> Image:
    """Put a painted part, or without a region a whole painted picture, back over the picture that it was made from.

    Where the mask is 0 the picture stays exactly as it was, where it is 1 the new one shows, between they mix.
    """
    from atoll.diffusion.inpaint import CropBox, paste_back  # loads torch, which the server must not

    box = region or CropBox(0, 0, image.shape[2], image.shape[1])
    patches = _repeated(painted, max(len(image), len(painted))).movedim(-1, 1)
    images = _repeated(image, len(patches)).movedim(-1, 1)
    masks = _repeated(mask_for(image, mask), len(patches))
    return paste_back(images, patches, masks, box).movedim(1, -1)


def mask_for(image: Tensor, mask: Tensor) -> Tensor:
    """The masks at the picture's size, (batch, height, width)."""
    return resize(mask.reshape(-1, 1, *mask.shape[-2:]), image.shape[2], image.shape[1], "bilinear")[:, 0]


def _repeated(values: Tensor, batch: int) -> Tensor:
    """A batch of `batch`, cycling through what is there."""
    from torch import arange  # not at the top: the server must not load it

    return values if len(values) == batch else values[arange(batch) % len(values)]


def _fitted(pixels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels and (batch, 1, height, width) mask of one size, a multiple of 8."""
    return cut_to_stride(pixels), cut_to_stride(mask_for(pixels, mask)[:, None], height_dim=2)


def _greyed(pixels: Tensor, mask: Tensor) -> Tensor:
    kept = 1 - mask.round().movedim(1, -1)
    return (pixels - 0.5) * kept + 0.5
