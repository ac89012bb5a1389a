"""Masks: made, changed and put together. A mask is (batch, height, width), 1 = change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from atoll.graph.node import OneOf, Range, node
from atoll.nodes.latents import MAX_SIDE
from atoll.nodes.types import Image, Mask

if TYPE_CHECKING:
    from torch import Tensor

Colour = Annotated[int, Range(0, 0xFFFFFF, step=1, display="color")]  # 0xRRGGBB
Size = Annotated[int, Range(1, MAX_SIDE, step=1)]
Place = Annotated[int, Range(0, MAX_SIDE, step=1)]
OPERATIONS = ("multiply", "add", "subtract", "and", "or", "xor")


@node("ImageColorToMask", title="ImageColorToMask", category="mask")
def mask_of_colour(image: Image, *, color: Colour = 0) -> Mask:
    """What is exactly of one colour in a picture."""
    import torch  # not at the top: the server must not load it

    pixels = (image.clamp(0, 1) * 255).round().to(torch.int)
    packed = (pixels[..., 0] << 16) + (pixels[..., 1] << 8) + pixels[..., 2]
    return (packed == color).float()


@node("SolidMask", title="SolidMask", category="mask")
def solid_mask(
    *, value: Annotated[float, Range(0.0, 1.0, step=0.01)] = 1.0, width: Size = 512, height: Size = 512
) -> Mask:
    """A mask that is the same everywhere."""
    import torch  # not at the top: the server must not load it

    return torch.full((1, height, width), value)


@node("InvertMask", title="InvertMask", category="mask")
def invert_mask(mask: Mask) -> Mask:
    """The rest of the picture."""
    return 1.0 - mask


@node("GrowMask", title="GrowMask", category="mask")
def grow_mask(
    mask: Mask, *, expand: Annotated[int, Range(-MAX_SIDE, MAX_SIDE, step=1)] = 0, tapered_corners: bool = True
) -> Mask:
    """A mask widened by so many pixels, or narrowed by as many below 0.

    With tapered corners it grows upwards and sideways only, pixel by pixel, so that corners stay cut.
    """
    import torch  # not at the top: the server must not load it
    from torch.nn import functional as F

    planes = mask.reshape(-1, 1, *mask.shape[-2:]).clone()
    sign = 1 if expand >= 0 else -1
    for _ in range(min(abs(expand), max(mask.shape[-2:]))):
        grown = planes * sign
        # The greatest of each pixel and its neighbours; beyond the border the nearest pixel is repeated.
        if tapered_corners:
            padded = F.pad(grown, (1, 1, 1, 1), mode="replicate")
            neighbours = [padded[..., 1:-1, 1:-1], padded[..., :-2, 1:-1], padded[..., 2:, 1:-1]]
            neighbours += [padded[..., 1:-1, :-2], padded[..., 1:-1, 2:]]
            grown = torch.stack(neighbours).amax(dim=0)
        else:
            grown = F.max_pool2d(grown, kernel_size=3, stride=1, padding=1)
        planes = grown * sign
    return planes[:, 0]


@node("FeatherMask", title="FeatherMask", category="mask")
def feather_mask(mask: Mask, *, left: Place = 0, top: Place = 0, right: Place = 0, bottom: Place = 0) -> Mask:
    """Let a mask fade out towards the borders of the picture, over so many pixels each.

    As in ComfyUI, the faintest row of the right and the bottom ramp lies on the opposite border.
    """
    faded = mask.reshape(-1, *mask.shape[-2:]).clone()
    height, width = faded.shape[-2:]
    for reach, length, axis, from_end in (
        (left, width, 2, False),
        (right, width, 2, True),
        (top, height, 1, False),
        (bottom, height, 1, True),
    ):
        reach = min(reach, length)
        for pixel in range(reach):
            place = (length - pixel) % length if from_end else pixel
            faded.select(axis, place).mul_((pixel + 1.0) / reach)
    return faded


@node("MaskComposite", title="MaskComposite", category="mask")
def composite_masks(
    destination: Mask, source: Mask, *, x: Place = 0, y: Place = 0, operation: Annotated[str, OneOf(OPERATIONS)]
) -> Mask:
    """A mask laid on another with its left upper corner at x, y. "and", "or" and "xor" round both to 0 and 1."""

    result = destination.reshape(-1, *destination.shape[-2:]).clone()
    source = source.reshape(-1, *source.shape[-2:])
    source = source[:, : max(result.shape[1] - y, 0), : max(result.shape[2] - x, 0)]
    if source.numel() == 0:
        return result
    below = result[:, y : y + source.shape[1], x : x + source.shape[2]]
    below.copy_(_combined(below, source.to(below), operation))
    return result.clamp(0.0, 1.0)


def _combined(below: Tensor, above: Tensor, operation: str) -> Tensor:
    if operation == "multiply":
        return below * above
    if operation == "add":
        return below + above
    if operation == "subtract":
        return below - above
    first, second = below.round().bool(), above.round().bool()
    return {"and": first & second, "or": first | second, "xor": first ^ second}[operation].float()


@node("CropMask", title="CropMask", category="mask")
def crop_mask(mask: Mask, *, x: Place = 0, y: Place = 0, width: Size = 512, height: Size = 512) -> Mask:
    """A rectangle cut out of a mask."""
    return mask.reshape(-1, *mask.shape[-2:])[:, y : y + height, x : x + width]
