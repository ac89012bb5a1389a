"""Masks: what may change in a picture, in pixels and in latents.

A mask is (batch, height, width) or (batch, 1, height, width), 1 = change, 0 = keep, and may be soft between.
An image is (batch, channels, height, width) in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from atoll.diffusion.denoiser import Denoiser, TwoSidedDenoiser
from atoll.errors import InvalidRequest


def as_planes(mask: Tensor) -> Tensor:
    """(height, width), (batch, height, width) or (batch, 1, height, width) -> (batch, 1, height, width)."""
    return mask.reshape(-1, 1, *mask.shape[-2:]).float()


# ---- pixels --------------------------------------------------------------------------------------------------------


def check_mask_size(mask: Tensor, image: Tensor) -> None:
    """Raises: InvalidRequest, if the mask is not of the image's size."""
    if mask.shape[-2:] != image.shape[-2:]:
        raise InvalidRequest(
            f"The mask is {mask.shape[-1]}x{mask.shape[-2]}, but the image is {image.shape[-1]}x{image.shape[-2]}. "
            "Paint the mask on the image itself, or scale one to the other."
        )


def blur_mask(mask: Tensor, radius: float) -> Tensor:
    """Soften a mask's edge by a Gaussian.

    Args:
        mask: (batch, height, width).
        radius: the Gaussian's standard deviation in pixels; 0 leaves the mask as it is.
    """
    if radius < 0:
        raise InvalidRequest(f"The mask's blur is {radius:g} pixels; it must be 0 or more.")
    if radius == 0:
        return mask
    reach = max(1, round(3 * radius))
    distance = torch.arange(-reach, reach + 1, dtype=torch.float32, device=mask.device)
    kernel = torch.exp(-0.5 * (distance / radius) ** 2)
    kernel = kernel / kernel.sum()
    planes = as_planes(mask)
    planes = functional.conv2d(functional.pad(planes, (reach, reach, 0, 0), "replicate"), kernel.view(1, 1, 1, -1))
    planes = functional.conv2d(functional.pad(planes, (0, 0, reach, reach), "replicate"), kernel.view(1, 1, -1, 1))
    return planes.reshape(mask.shape).clamp(0, 1).to(mask.dtype)


@dataclass(frozen=True)
class CropBox:
    """A rectangle of a picture, in its pixels."""

    left: int
    top: int
    width: int
    height: int

    def cut(self, tensor: Tensor) -> Tensor:
        """That part of an image or a mask (the last two axes), not copied."""
        return tensor[..., self.top : self.top + self.height, self.left : self.left + self.width]


def find_crop_box(mask: Tensor, padding: int, width: int, height: int) -> CropBox:
    """Where to look closer when only the masked part is to be made anew.

    The box around all that is not 0 in the mask, `padding` pixels wider on each side, then widened on one axis to the
    aspect of what will be made (width x height), moved and at last cut to stay inside the picture: A1111's rule.

    Args:
        mask: (batch, height, width); one box for the whole batch.

    Raises: InvalidRequest, if nothing is masked.
    """
    planes = as_planes(mask)
    full_height, full_width = planes.shape[-2:]
    touched = (planes > 0).any(dim=0)[0]
    rows, columns = touched.any(dim=1).nonzero().flatten(), touched.any(dim=0).nonzero().flatten()
    if len(rows) == 0:
        raise InvalidRequest("The mask is empty: nothing in it asks for a change. Paint over what should change.")
    left, right = max(int(columns[0]) - padding, 0), min(int(columns[-1]) + 1 + padding, full_width)
    top, bottom = max(int(rows[0]) - padding, 0), min(int(rows[-1]) + 1 + padding, full_height)
    if (right - left) * height > (bottom - top) * width:
        top, bottom = widen(top, bottom, (right - left) * height // width, full_height)
    else:
        left, right = widen(left, right, (bottom - top) * width // height, full_width)
    return CropBox(left, top, right - left, bottom - top)


def widen(start: int, end: int, wanted: int, limit: int) -> tuple[int, int]:
    """Grow start..end evenly to `wanted`, then push it back inside 0..limit."""
    missing = max(wanted - (end - start), 0)
    start, end = start - missing // 2, end + missing - missing // 2
    if end > limit:
        start, end = start - (end - limit), limit
    if start < 0:
        start, end = 0, min(end - start, limit)
    return start, end


def paste_back(image: Tensor, patch: Tensor, mask: Tensor, box: CropBox) -> Tensor:
    """Put a patch back where it was cut out, through the mask. Where that is 0 the image keeps its very numbers.

    Args:
        image: (batch, channels, height, width), the whole picture.
        patch: (batch, channels, any height, any width), what was made of the box; scaled to it.
        mask: (batch, height, width), of the whole picture. Image and mask may also be one for all patches.
    """
    check_mask_size(mask, image)
    if patch.shape[-2:] != (box.height, box.width):
        shrinks = patch.shape[-2] > box.height or patch.shape[-1] > box.width
        patch = functional.interpolate(patch, size=(box.height, box.width), mode="bicubic", antialias=shrinks)
        patch = patch.clamp(0, 1)
    soft = box.cut(as_planes(mask)).to(patch)
    result = image.expand(len(patch), *image.shape[1:]).clone()
    below = box.cut(result)
    below.copy_(torch.where(soft > 0, below * (1 - soft) + patch * soft, below))
    return result


# ---- latents -------------------------------------------------------------------------------------------------------


def mask_for_latents(mask: Tensor, latents: Tensor) -> Tensor:
    """A mask of any size -> (batch, 1, height, width) of the latents, on their device; softened by the shrinking."""
    planes = as_planes(mask).to(latents.device)
    if planes.shape[-2:] != latents.shape[-2:]:
        planes = functional.interpolate(planes, size=latents.shape[-2:], mode="bilinear")
    if len(planes) not in (1, len(latents)):
        planes = planes.repeat(-(-len(latents) // len(planes)), 1, 1, 1)[: len(latents)]
    return planes.clamp(0, 1)


def hold_outside_mask(
    denoise: Denoiser, mask: Tensor, latents: Tensor, noise: Tensor, *, from_second_call: bool = False
) -> Denoiser:
    """Let a denoiser change only what is masked.

    At each call the network sees, outside the mask, the given latents with the start's own noise at that sigma; and
    its answer there is replaced by the latents. ComfyUI's rule; a soft mask blends both.

    Args:
        mask: (1 or batch, 1, height, width).
        latents, noise: clean latents as the network sees them, and the unit noise of the start.
        from_second_call: show the network its start untouched at the first call, as diffusers does.
    """
    calls = 0

    def ask(noised: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor | None]:
        nonlocal calls
        calls += 1
        seen = noised
        if not (from_second_call and calls == 1):
            seen = noised * mask + (latents + noise * sigma) * (1 - mask)
        denoised = denoise(seen, sigma)
        negative = denoise.negative if isinstance(denoise, TwoSidedDenoiser) else None
        return denoised * mask + latents * (1 - mask), negative

    return TwoSidedDenoiser(ask)
