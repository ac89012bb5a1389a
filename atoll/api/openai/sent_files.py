"""Pictures and masks that come as files of a form: kept as inputs, under the hash of what they hold."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

from PIL import Image

from atoll.api.faults import FaultyRequest, RequestFault
from atoll.api.services import StudioServices
from atoll.artifacts.pictures import load_picture

FOLDER = "openai"  # below the inputs, so that they don't crowd the list of uploads


@dataclass(frozen=True)
class SentImage:
    """name: of the input. size: (width, height). has_holes: a part of it is transparent, and so to be painted."""

    name: str
    size: tuple[int, int]
    has_holes: bool


def keep_image(services: StudioServices, content: bytes) -> SentImage:
    """Raises: InvalidRequest for what is no picture; StorageFull."""
    picture = load_picture(content, name="image")
    holes = False
    if "A" in picture.getbands() or "transparency" in picture.info:
        lowest, _ = picture.convert("RGBA").getchannel("A").getextrema()
        holes = int(lowest) < 255  # type: ignore[arg-type]
    return SentImage(_keep(services, picture), picture.size, holes)


def keep_mask(services: StudioServices, content: bytes, size: tuple[int, int]) -> str:
    """The input's name: white where the sent one is transparent. Raises: FaultyRequest, InvalidRequest, StorageFull."""
    picture = load_picture(content, name="mask")
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        words = (
            "mask has no transparent part. What is transparent in it is painted anew: send a PNG with an alpha channel."
        )
        raise FaultyRequest([RequestFault("mask", "no_alpha", words)])
    if picture.size != size:
        words = (
            f"mask is {picture.width}x{picture.height}, but image is {size[0]}x{size[1]}. Send one of the same size."
        )
        raise FaultyRequest([RequestFault("mask", "mask_shape", words)])
    alpha = picture.convert("RGBA").getchannel("A")
    return _keep(services, alpha.point([255 - value for value in range(256)]).convert("RGB"))


def _keep(services: StudioServices, picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    content = file.getvalue()
    return services.save_input(f"{FOLDER}/{hashlib.sha256(content).hexdigest()[:24]}.png", io.BytesIO(content))
