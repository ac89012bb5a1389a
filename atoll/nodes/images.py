"""Pictures: in, out, and changed in size and shape."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal

from atoll.artifacts.pictures import load_frames, rgb_and_alpha
from atoll.errors import InvalidRequest
from atoll.graph.node import NodeContext, OneFile, OneOf, Range, Text, Tooltip, node
from atoll.nodes.infotext import infotext_of
from atoll.nodes.latents import MAX_SIDE
from atoll.nodes.resize import CROPS, PICTURE_METHODS, resize
from atoll.nodes.types import Image, Mask

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

NO_MASK_SIDE = 64  # pixels; the size of the empty mask of a picture without transparency
HIDDEN = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}

ScaledSide = Annotated[int, Range(0, MAX_SIDE, step=1)]
Border = Annotated[int, Range(0, MAX_SIDE, step=8)]
InputPicture = Annotated[str, OneFile("inputs", image_upload=True)]
PictureMethod = Annotated[str, OneOf(PICTURE_METHODS)]


def _digest_of_picture(context: NodeContext, fields: Mapping[str, Any]) -> str:
    return context.inputs.digest(fields["image"])


@node("LoadImage", title="Load Image", category="image", fingerprint=_digest_of_picture)
def load_image(context: NodeContext, *, image: InputPicture) -> tuple[Image, Mask]:
    """An uploaded picture. The mask marks what is transparent in it."""
    import torch  # not at the top: the server must not load it

    pictures, masks = [], []
    for frame in load_frames(context.inputs.read(image), name=image):
        colours, alpha = rgb_and_alpha(frame)
        pictures.append(torch.from_numpy(colours.copy()).float() / 255)
        masks.append(_transparency(alpha))
    return torch.stack(pictures), torch.stack(masks)


@node("LoadImageMask", title="Load Image (as Mask)", category="mask", fingerprint=_digest_of_picture)
def load_mask(
    context: NodeContext,
    *,
    image: InputPicture,
    channel: Annotated[str, OneOf(("alpha", "red", "green", "blue"))],
) -> Mask:
    """One channel of an uploaded picture as a mask; of alpha, what is transparent is marked."""
    import torch  # not at the top: the server must not load it

    colours, alpha = rgb_and_alpha(load_frames(context.inputs.read(image), name=image)[0])
    if channel == "alpha":
        return _transparency(alpha)[None]
    return torch.from_numpy(colours[:, :, ("red", "green", "blue").index(channel)].copy())[None].float() / 255


OUTPUT_LIST = {"route": "/internal/files/output", "refresh_button": True, "control_after_refresh": "first"}


def _digest_of_output(context: NodeContext, fields: Mapping[str, Any]) -> str:
    return context.inputs.digest(_as_output(fields["image"]))


def _as_output(name: str) -> str:
    return name if name.endswith("]") else f"{name} [output]"


@node(
    "LoadImageOutput",
    title="Load Image (from Outputs)",
    category="image",
    experimental=True,
    fingerprint=_digest_of_output,
)
def load_finished_image(
    context: NodeContext,
    *,
    image: Annotated[str, OneFile("inputs", image_upload=True, folder="output", remote=OUTPUT_LIST)],
) -> tuple[Image, Mask]:
    """A finished picture, by a name that ends in ` [output]`. The mask marks what is transparent in it."""
    return load_image(context, image=_as_output(image))


def _transparency(alpha: NDArray[np.uint8] | None) -> Tensor:
    import torch  # not at the top: the server must not load it

    if alpha is None:
        return torch.zeros(NO_MASK_SIDE, NO_MASK_SIDE)
    return 1 - torch.from_numpy(alpha.copy()).float() / 255


def _inside_outputs(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    prefix = fields["filename_prefix"]
    if isinstance(prefix, str):
        path = PurePosixPath(prefix.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in prefix:
            yield "filename_prefix", f"{prefix!r:.100} leads out of the folder for results. Name a place inside it."


@node("SaveImage", title="Save Image", category="image", is_output=True, hidden=HIDDEN, check=_inside_outputs)
def save_images(
    images: Annotated[Image, Tooltip("The pictures to keep.")],
    context: NodeContext,
    *,
    filename_prefix: Annotated[str, Text(max_length=200)] = "ComfyUI",
) -> None:
    """Keep pictures. Each says in itself how it was made."""
    _hand_over(images, context, filename_prefix, "output")


@node("PreviewImage", title="Preview Image", category="image", is_output=True, hidden=HIDDEN)
def preview_images(images: Image, context: NodeContext) -> None:
    """Show pictures without keeping them for long."""
    _hand_over(images, context, "preview", "temp")


def _hand_over(images: Tensor, context: NodeContext, prefix: str, kind: Literal["output", "temp"]) -> None:
    batch, height, width, _ = images.shape
    metadata = {keyword: json.dumps(value) for keyword, value in context.extra.items()}
    metadata["prompt"] = json.dumps(context.graph.to_api())
    # Cut off, not rounded, as ComfyUI does; what came in as bytes still leaves as the same bytes.
    pixels = (images.float().cpu().clamp(0, 1) * 255).byte().numpy()
    for index in range(batch):
        text = infotext_of(context.graph, context.node_id, size=(width, height), index=index, batch_size=batch)
        context.save_image(
            pixels[index],
            filename_prefix=_filled_in(prefix, width=width, height=height, batch_num=index),
            kind=kind,
            node_id=context.node_id,
            index=index,
            metadata={**metadata, "parameters": text} if text else metadata,
        )


def _filled_in(prefix: str, **values: int) -> str:
    """ComfyUI's placeholders, such as %year% and %width%."""
    now = time.localtime()
    times = {"year": f"{now.tm_year}", "month": f"{now.tm_mon:02}", "day": f"{now.tm_mday:02}"}
    times |= {"hour": f"{now.tm_hour:02}", "minute": f"{now.tm_min:02}", "second": f"{now.tm_sec:02}"}
    for name, value in {**times, **values}.items():
        prefix = prefix.replace(f"%{name}%", str(value))
    return prefix


@node("ImageScale", title="Upscale Image", category="image/upscaling")
def scale_image(
    image: Image,
    *,
    upscale_method: PictureMethod,
    width: ScaledSide = 512,
    height: ScaledSide = 512,
    crop: Annotated[str, OneOf(CROPS)],
) -> Image:
    """A picture to another size. 0 keeps the aspect; 0 twice changes nothing."""
    if width == 0 and height == 0:
        return image
    old_height, old_width = image.shape[1:3]
    width = width or max(1, round(old_width * height / old_height))
    height = height or max(1, round(old_height * width / old_width))
    return _resized(image, width, height, upscale_method, crop)


@node("ImageScaleBy", title="Upscale Image By", category="image/upscaling")
def scale_image_by(
    image: Image, *, upscale_method: PictureMethod, scale_by: Annotated[float, Range(0.01, 8.0, step=0.01)] = 1.0
) -> Image:
    """A picture to a multiple of its size."""
    height, width = (max(1, round(side * scale_by)) for side in image.shape[1:3])
    return _resized(image, width, height, upscale_method, "disabled")


def _resized(image: Tensor, width: int, height: int, method: str, crop: str) -> Tensor:
    return resize(image.movedim(-1, 1), width, height, method, crop).movedim(1, -1)


@node("ImageInvert", title="Invert Image", category="image")
def invert_image(image: Image) -> Image:
    """The negative of a picture."""
    return 1 - image


@node("MaskToImage", title="Convert Mask to Image", category="mask")
def mask_to_image(mask: Mask) -> Image:
    """A mask as a grey picture, so that nodes for pictures can change it."""
    return mask.reshape(-1, *mask.shape[-2:], 1).expand(-1, -1, -1, 3)


@node("ImageToMask", title="Convert Image to Mask", category="mask")
def image_to_mask(image: Image, *, channel: Annotated[str, OneOf(("red", "green", "blue", "alpha"))]) -> Mask:
    """One channel of a picture as a mask."""
    channels = {"red": 0, "green": 1, "blue": 2, "alpha": 3}
    if channels[channel] >= image.shape[-1]:
        raise InvalidRequest(f'The picture has no channel "{channel}"; it has {image.shape[-1]} channels.')
    return image[..., channels[channel]]


@node("ImagePadForOutpaint", title="Pad Image for Outpainting", category="image")
def pad_for_outpainting(
    image: Image,
    *,
    left: Border = 0,
    top: Border = 0,
    right: Border = 0,
    bottom: Border = 0,
    feathering: Annotated[int, Range(0, MAX_SIDE, step=1)] = 40,
) -> tuple[Image, Mask]:
    """Grey borders around a picture, and a mask of them that fades into the picture over `feathering` pixels."""
    import torch  # not at the top: the server must not load it

    batch, height, width, channels = image.shape
    inside = (slice(top, top + height), slice(left, left + width))
    padded = torch.full((batch, top + height + bottom, left + width + right, channels), 0.5)
    padded[:, *inside] = image
    mask = torch.ones(1, *padded.shape[1:3])
    mask[:, *inside] = 0
    if 0 < feathering * 2 < min(height, width):
        rows, columns = torch.arange(height)[:, None], torch.arange(width)[None, :]
        # Pixels to the nearest side that was padded; the others do not fade.
        distance = torch.full((height, width), float(max(height, width)))
        for is_padded, along in (
            (top, rows),
            (bottom, height - rows),
            (left, columns),
            (right, width - columns),
        ):
            if is_padded:
                distance = torch.minimum(distance, along.float())
        mask[:, *inside] = ((feathering - distance) / feathering).clamp(min=0) ** 2
    return padded, mask
