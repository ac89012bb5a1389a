"""Pictures blended, blurred, sharpened, cut and put together, as ComfyUI's nodes of these names do it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, cast

from atoll.graph.node import OneOf, Range, node
from atoll.nodes.latents import MAX_SIDE
from atoll.nodes.masks import Colour
from atoll.nodes.resize import PICTURE_METHODS, resize
from atoll.nodes.types import Image, Mask

if TYPE_CHECKING:
    from torch import Tensor

BLEND_MODES = ("normal", "multiply", "screen", "overlay", "soft_light", "difference")
COMPOSITE_MODES = (
    "ADD", "CLEAR", "DARKEN", "DST", "DST_ATOP", "DST_IN", "DST_OUT", "DST_OVER", "LIGHTEN", "MULTIPLY", "OVERLAY",
    "SCREEN", "SRC", "SRC_ATOP", "SRC_IN", "SRC_OUT", "SRC_OVER", "XOR",
)  # fmt: skip
MEGAPIXEL = 1024 * 1024

PictureMethod = Annotated[str, OneOf(PICTURE_METHODS)]
Size = Annotated[int, Range(1, MAX_SIDE, step=1)]
Place = Annotated[int, Range(0, MAX_SIDE, step=1)]
BlurRadius = Annotated[int, Range(1, 31, step=1)]


@node(
    "ImageScaleToTotalPixels",
    title="Scale Image to Total Pixels",
    untitled=True,
    schema="v3",
    category="image/upscaling",
)
def scale_to_total_pixels(
    image: Image,
    *,
    upscale_method: PictureMethod,
    megapixels: Annotated[float, Range(0.01, 16.0, step=0.01)] = 1.0,
) -> Image:
    """A picture to a number of pixels, its aspect kept. A megapixel is 1024 x 1024."""
    height, width = image.shape[1:3]
    factor = math.sqrt(int(megapixels * MEGAPIXEL) / (width * height))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return resize(image.movedim(-1, 1), *size, upscale_method).movedim(1, -1)


@node("ImageBatch", title="Batch Images", category="image")
def batch_images(image1: Image, image2: Image) -> Image:
    """Pictures as one batch; the second's are brought to the first's size and cut to its aspect."""
    import torch  # not at the top: the server must not load it

    channels = max(image1.shape[-1], image2.shape[-1])
    image1, image2 = (_with_channels(image, channels) for image in (image1, image2))
    height, width = image1.shape[1:3]
    return torch.cat([image1, resize(image2.movedim(-1, 1), width, height, "bilinear", "center").movedim(1, -1)])


def _with_channels(image: Tensor, channels: int) -> Tensor:
    """Opacity added, where it is missing."""
    from torch.nn import functional as F  # not at the top: the server must not load it

    return F.pad(image, (0, channels - image.shape[-1]), value=1.0)


@node("EmptyImage", title="EmptyImage", category="image")
def empty_image(
    *,
    width: Size = 512,
    height: Size = 512,
    batch_size: Annotated[int, Range(1, 4096)] = 1,
    color: Colour = 0,
) -> Image:
    """Pictures of one colour."""
    import torch  # not at the top: the server must not load it

    colour = torch.tensor([color >> 16 & 0xFF, color >> 8 & 0xFF, color & 0xFF]) / 255
    return colour.expand(batch_size, height, width, 3).clone()


@node("ImageCrop", title="Image Crop", category="image/transform")
def crop_image(image: Image, *, width: Size = 512, height: Size = 512, x: Place = 0, y: Place = 0) -> Image:
    """A rectangle cut out of a picture; what lies outside of it is moved to its border."""
    x, y = min(x, image.shape[2] - 1), min(y, image.shape[1] - 1)
    return image[:, y : y + height, x : x + width]


@node("ImageBlend", title="Blend Images", untitled=True, schema="v3", category="image/postprocessing")
def blend_images(
    image1: Image,
    image2: Image,
    *,
    blend_factor: Annotated[float, Range(0.0, 1.0, step=0.01)] = 0.5,
    blend_mode: Annotated[str, OneOf(BLEND_MODES)],
) -> Image:
    """One picture laid over another in a way that painting programs have, mixed in by a factor."""
    image1, image2 = _same_channels(image1, image2)
    if image1.shape != image2.shape:
        height, width = image1.shape[1:3]
        image2 = resize(image2.movedim(-1, 1), width, height, "bicubic", "center").movedim(1, -1)
    blended = image1 * (1 - blend_factor) + _blended(image1, image2, blend_mode) * blend_factor
    return blended.clamp(0, 1)


def _same_channels(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    channels = min(first.shape[-1], second.shape[-1])
    return first[..., :channels], second[..., :channels]


def _blended(first: Tensor, second: Tensor, mode: str) -> Tensor:
    import torch  # not at the top: the server must not load it

    if mode == "multiply":
        return first * second
    if mode == "screen":
        return 1 - (1 - first) * (1 - second)
    if mode == "overlay":
        return torch.where(first <= 0.5, 2 * first * second, 1 - 2 * (1 - first) * (1 - second))
    if mode == "soft_light":
        # The lightening half of the W3C's compositing specification, section 10.1.
        lightened = torch.where(first <= 0.25, ((16 * first - 12) * first + 4) * first, first.clamp(min=0).sqrt())
        darker = first - (1 - 2 * second) * first * (1 - first)
        return torch.where(second <= 0.5, darker, first + (2 * second - 1) * (lightened - first))
    if mode == "difference":
        return first - second
    return second


@node("ImageBlur", title="Blur Image", untitled=True, schema="v3", category="image/postprocessing")
def blur_image(
    image: Image, *, blur_radius: BlurRadius = 1, sigma: Annotated[float, Range(0.1, 10.0, step=0.1)] = 1.0
) -> Image:
    """A picture softened by a Gaussian. `blur_radius` is how far it reaches, in pixels."""
    return _convolved(image, gaussian_kernel(blur_radius, sigma))


@node("ImageSharpen", title="Sharpen Image", untitled=True, schema="v3", category="image/postprocessing")
def sharpen_image(
    image: Image,
    *,
    sharpen_radius: BlurRadius = 1,
    sigma: Annotated[float, Range(0.1, 10.0, step=0.01)] = 1.0,
    alpha: Annotated[float, Range(0.0, 5.0, step=0.01)] = 1.0,
) -> Image:
    """Each pixel moved away from the mean of its surroundings (unsharp masking); `alpha` is how far."""
    kernel = gaussian_kernel(sharpen_radius, sigma) * -(alpha * 10)
    middle = sharpen_radius
    kernel[middle, middle] = kernel[middle, middle] - kernel.sum() + 1.0
    return _convolved(image, kernel).clamp(0, 1)


def gaussian_kernel(radius: int, sigma: float) -> Tensor:
    """(2 * radius + 1, 2 * radius + 1), of sum 1. sigma counts in half widths of the kernel: it spans -1..1."""
    import torch  # not at the top: the server must not load it

    along = torch.linspace(-1, 1, 2 * radius + 1)
    kernel = torch.exp(-(along[:, None] ** 2 + along[None, :] ** 2) / (2 * sigma**2))
    return kernel / kernel.sum()


def _convolved(image: Tensor, kernel: Tensor) -> Tensor:
    """Each channel by itself, the picture mirrored beyond its border."""
    from torch.nn import functional as F  # not at the top: the server must not load it

    channels, radius = image.shape[-1], len(kernel) // 2
    # A mirror shows at most the picture itself: narrower pictures than the kernel repeat their border.
    mode = "reflect" if radius < min(image.shape[1:3]) else "replicate"
    padded = F.pad(image.movedim(-1, 1), (radius,) * 4, mode=mode)
    weights = kernel.to(image).expand(channels, 1, *kernel.shape)
    return F.conv2d(padded, weights, groups=channels).movedim(1, -1)


@node("Canny", title="Find Edges (Canny)", untitled=True, schema="v3", category="image/preprocessors")
def find_edges(
    image: Image,
    *,
    low_threshold: Annotated[float, Range(0.01, 0.99, step=0.01)] = 0.4,
    high_threshold: Annotated[float, Range(0.01, 0.99, step=0.01)] = 0.8,
) -> Image:
    """White lines where a picture's brightness changes. Weak ones below `low_threshold` go, and so do those up to
    `high_threshold` that no strong one leads to.
    """
    from atoll.diffusion.edges import find_canny_edges  # loads torch, which the server must not

    edges = find_canny_edges(image[..., :3].movedim(-1, 1), low_threshold, high_threshold)
    return edges.movedim(1, -1).expand(-1, -1, -1, 3).clone()


@node("SplitImageWithAlpha", title="Split Image with Alpha", schema="v3", category="mask/compositing")
def split_alpha(image: Image) -> tuple[Image, Mask]:
    """Colours, and as mask what is transparent."""
    import torch  # not at the top: the server must not load it

    opacity = image[..., 3] if image.shape[-1] > 3 else torch.ones(image.shape[:3])
    return image[..., :3], 1.0 - opacity


@node("JoinImageWithAlpha", title="Join Image with Alpha", schema="v3", category="mask/compositing")
def join_alpha(image: Image, alpha: Mask) -> Image:
    """A picture that is transparent where the mask is."""
    import torch  # not at the top: the server must not load it

    batch = min(len(image), len(alpha))
    mask = resize(alpha.reshape(-1, 1, *alpha.shape[-2:]), image.shape[2], image.shape[1], "bilinear")[:batch]
    return torch.cat([image[:batch, ..., :3], 1.0 - mask.movedim(1, -1)], dim=-1)


@node("PorterDuffImageComposite", title="Porter-Duff Image Composite", schema="v3", category="mask/compositing")
def composite_images(
    source: Image,
    source_alpha: Mask,
    destination: Image,
    destination_alpha: Mask,
    *,
    mode: Annotated[str, OneOf(COMPOSITE_MODES)] = "DST",
) -> tuple[Image, Mask]:
    """Two pictures with transparency put together by one of the classic rules. The masks mark what is transparent.

    Source: Porter & Duff 1984, "Compositing digital images"; the W3C's compositing specification.
    """
    import torch  # not at the top: the server must not load it

    batch = min(map(len, (source, source_alpha, destination, destination_alpha)))
    height, width = destination.shape[1:3]
    above = resize(source[:batch, ..., :3].movedim(-1, 1), width, height, "bicubic", "center").movedim(1, -1)
    below = destination[:batch, ..., :3]
    opacities = []
    for mask in (source_alpha, destination_alpha):
        planes = mask[:batch].reshape(-1, 1, *mask.shape[-2:])
        opacities.append(1.0 - resize(planes, width, height, "bicubic", "center").movedim(1, -1))
    colours, opacity = _composite(above, opacities[0], below, opacities[1], mode)
    shown = torch.where(opacity > 1e-5, colours / torch.where(opacity > 1e-5, opacity, 1.0), 0.0)
    return shown.clamp(0, 1), 1.0 - opacity[..., 0].clamp(0, 1)


def _composite(source: Tensor, above: Tensor, destination: Tensor, below: Tensor, mode: str) -> tuple[Tensor, Tensor]:
    """(colours times opacity, opacity). above and below: the opacities, (batch, height, width, 1)."""
    import torch  # not at the top: the server must not load it

    front, back = source * above, destination * below  # colours times opacity
    nothing, union = torch.zeros_like(below), above + below - above * below
    outside = (1 - below) * front + (1 - above) * back
    rules: dict[str, tuple[Tensor, Tensor]] = {
        "ADD": ((front + back).clamp(max=1), (above + below).clamp(max=1)),
        "CLEAR": (torch.zeros_like(back), nothing),
        "DARKEN": (outside + torch.minimum(front, back), union),
        "DST": (back, below),
        "DST_ATOP": (above * back + (1 - below) * front, above),
        "DST_IN": (back * above, above * below),
        "DST_OUT": ((1 - above) * back, (1 - above) * below),
        "DST_OVER": (back + (1 - below) * front, union),
        "LIGHTEN": (outside + torch.maximum(front, back), union),
        "MULTIPLY": (front * back, above * below),
        "OVERLAY": (
            torch.where(2 * back < below, 2 * front * back, above * below - 2 * (below - front) * (above - back)),
            union,
        ),
        "SCREEN": (front + back - front * back, union),
        "SRC": (front, above),
        "SRC_ATOP": (below * front + (1 - above) * back, below),
        "SRC_IN": (front * below, above * below),
        "SRC_OUT": ((1 - below) * front, (1 - below) * above),
        "SRC_OVER": (front + (1 - above) * back, union),
        "XOR": (outside, (1 - below) * above + (1 - above) * below),
    }
    return rules[mode]


@node("RebatchImages", title="Rebatch Images", schema="v3", category="image/batch", takes_lists=True, gives_lists=True)
def rebatch_images(images: Image, *, batch_size: Annotated[int, Range(1, 4096)] = 1) -> Image:
    """Pictures as a list of batches of that size; later nodes take one batch after the other."""
    import torch  # not at the top: the server must not load it

    sizes, batches = cast(list[int], batch_size), cast("list[Tensor]", images)  # as it takes lists
    groups: list[list[Tensor]] = []
    for picture in (picture for batch in batches for picture in batch.split(1)):
        if groups and len(groups[-1]) < sizes[0] and groups[-1][0].shape == picture.shape:
            groups[-1].append(picture)
        else:
            groups.append([picture])
    return cast("Tensor", [torch.cat(group) for group in groups])
