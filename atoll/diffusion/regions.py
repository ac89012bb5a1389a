"""Where in the picture each prompt speaks, in latents: rectangles, and maps of how much each weighs.

The rules are ComfyUI's: the network is shown the rectangle alone; a rectangle without a mask fades out over its last
8 latents towards the rest of the picture; and a rectangle on one side of guidance gets a partner on the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from atoll.diffusion.conditioning import Conditioning
from atoll.errors import InvalidRequest

FADE = 8  # latents over which a rectangle fades out
LEAST_SIDE = 8  # latents of a rectangle around a mask


@dataclass(frozen=True)
class Box:
    """A rectangle in latents."""

    height: int
    width: int
    top: int
    left: int

    def cut(self, values: Tensor) -> Tensor:
        """That part of the last two axes, not copied."""
        return values[..., self.top : self.top + self.height, self.left : self.left + self.width]

    def holds(self, other: Box) -> bool:
        return (
            other.top >= self.top
            and other.left >= self.left
            and self.top + self.height >= other.top + other.height
            and self.left + self.width >= other.left + other.width
        )


@dataclass(frozen=True)
class Placed:
    """A conditioning in a picture of known size. box: None is the whole. mask: (1 or batch, height, width) or None."""

    conditioning: Conditioning
    box: Box | None
    mask: Tensor | None

    @property
    def shape(self) -> tuple[int, int] | None:
        """What the network is shown; None is the whole."""
        return None if self.box is None else (self.box.height, self.box.width)

    def cut(self, values: Tensor) -> Tensor:
        return values if self.box is None else self.box.cut(values)

    def weights(self, seen: Tensor) -> Tensor:
        """(1 or batch, 1, height, width) of the rectangle: how much each latent of it counts. seen: what is shown."""
        strength = self.conditioning.strength
        if self.mask is not None:
            mask = self.cut(self.mask.to(seen.device)) * self.conditioning.mask_strength
            if len(mask) not in (1, len(seen)):
                mask = mask.repeat(-(-len(seen) // len(mask)), 1, 1)[: len(seen)]
            return mask.unsqueeze(1) * strength
        return torch.full((1, 1, *seen.shape[-2:]), strength, device=seen.device)

    def faded(self, weights: Tensor, height: int, width: int) -> Tensor:
        """The weights of a rectangle in a picture of that size, fading out where it does not touch the border."""
        if self.box is None or self.mask is not None:
            return weights
        weights = weights.clone()
        sides = ((2, self.box.top, self.box.height, height), (3, self.box.left, self.box.width, width))
        for axis, start, length, whole in sides:
            reach = min(FADE, length // 4)
            ramp = (torch.arange(reach, device=weights.device) + 1) / max(reach, 1)
            ramp = ramp.reshape(-1, 1) if axis == 2 else ramp
            if start != 0:
                weights.narrow(axis, 0, reach).mul_(ramp)
            if start + length < whole:
                weights.narrow(axis, length - reach, reach).mul_(ramp.flip(0 if axis == 2 else -1))
        return weights


def place(conditioning: Conditioning, height: int, width: int) -> Placed:
    """Where a conditioning lies in latents of height x width. Raises: InvalidRequest if that is outside of them."""
    mask = conditioning.mask
    if mask is not None:
        mask = mask.reshape(-1, *mask.shape[-2:]).float()
        if mask.shape[-2:] != (height, width):
            mask = functional.interpolate(mask.unsqueeze(1), size=(height, width), mode="bilinear").squeeze(1)
    area = conditioning.area
    box = None
    if conditioning.mask_sets_area and mask is not None:
        box = box_around(mask)
    elif area is not None:
        if area.in_shares:
            sizes = max(1, round(area.height * height)), max(1, round(area.width * width))
            box = Box(*sizes, round(area.top * height), round(area.left * width))
        else:
            box = Box(int(area.height), int(area.width), int(area.top), int(area.left))
    if box is not None:
        if box.top >= height or box.left >= width:
            raise InvalidRequest(
                f"A prompt's area begins at {box.left * 8}, {box.top * 8} pixels, but the picture is only "
                f"{width * 8}x{height * 8}. Move the area into the picture."
            )
        box = replace(box, height=min(box.height, height - box.top), width=min(box.width, width - box.left))
    return Placed(conditioning, box, mask)


def box_around(mask: Tensor) -> Box:
    """The rectangle around all that is masked in a batch, at least 8 x 8."""
    touched = (mask != 0).any(dim=0)
    rows, columns = touched.any(dim=1).nonzero().flatten(), touched.any(dim=0).nonzero().flatten()
    if len(rows) == 0:
        return Box(LEAST_SIDE, LEAST_SIDE, 0, 0)
    top, left = int(rows[0]), int(columns[0])
    return Box(max(LEAST_SIDE, int(rows[-1]) - top + 1), max(LEAST_SIDE, int(columns[-1]) - left + 1), top, left)


def with_partners(own: Sequence[Placed], others: Sequence[Placed]) -> list[Placed]:
    """`own`, and for each rectangle among `others` that it has no equal of, its best fit there: what is said of the
    smallest rectangle around, at that rectangle's place. So guidance compares like with like.
    """
    result = list(own)
    for other in others:
        if other.box is None:
            continue
        best: Placed | None = None
        for candidate in result:
            if candidate.box is None:
                best = best or candidate
            elif candidate.box.holds(other.box) and (best is None or best.box is None or _is_smaller(candidate, best)):
                best = candidate
        if best is not None and best.box != other.box:
            said = replace(
                other.conditioning,
                embeds=best.conditioning.embeds,
                pooled=best.conditioning.pooled,
                size=best.conditioning.size,
                inpaint_mask=best.conditioning.inpaint_mask,
                masked_latents=best.conditioning.masked_latents,
            )
            result.append(Placed(said, other.box, other.mask))
    return result


def _is_smaller(placed: Placed, than: Placed) -> bool:
    if placed.box is None or than.box is None:
        return False
    return placed.box.height * placed.box.width < than.box.height * than.box.width
