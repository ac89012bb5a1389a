"""Pictures inside of a JSON body, as base64 or a data URI: kept as inputs, under the hash of what they hold."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io

from PIL import Image

from atoll.api.services import StudioServices
from atoll.artifacts.input_files import MAX_UPLOAD_BYTES
from atoll.artifacts.pictures import load_picture
from atoll.errors import InvalidRequest

FOLDER = "a1111"  # below the inputs, so that they don't crowd the list of uploads
MASK_THRESHOLD = 128  # A1111's mask_round: brighter is masked


def decode_picture(text: str, field: str) -> bytes:
    """The bytes of a picture file. Raises: InvalidRequest."""
    if text.startswith(("http://", "https://")):
        raise InvalidRequest(
            f"{field} is an address; nothing is fetched from elsewhere. Send the picture itself in base64."
        )
    coded = text.partition(",")[2] if text.startswith("data:") else text
    if len(coded) > MAX_UPLOAD_BYTES * 4 // 3 + 4:
        raise InvalidRequest(f"{field} is bigger than {MAX_UPLOAD_BYTES // 2**20} MiB. Scale it down.")
    try:
        content = base64.b64decode("".join(coded.split()), validate=False)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(
            f"{field} is not base64: {error}. Send the bytes of a PNG or JPEG file in base64."
        ) from error
    if not content:
        raise InvalidRequest(f"{field} is empty. Send the bytes of a PNG or JPEG file in base64.")
    return content


def open_picture(text: str, field: str) -> Image.Image:
    """Raises: InvalidRequest."""
    return load_picture(decode_picture(text, field), name=field)


def keep_picture(services: StudioServices, text: str, field: str) -> str:
    """The input's name. What is transparent becomes white, as A1111 has it. Raises: InvalidRequest, StorageFull."""
    picture = open_picture(text, field)
    if "A" in picture.getbands() or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return _keep(services, picture.convert("RGB"))


def keep_mask(services: StudioServices, text: str, *, rounded: bool) -> str:
    """The input's name: a grey picture, white where to paint. An alpha channel that says something is the mask.

    Raises: InvalidRequest, StorageFull.
    """
    picture = open_picture(text, "mask")
    alpha = picture.getchannel("A") if "A" in picture.getbands() else None
    grey = alpha if alpha is not None and alpha.getextrema() != (255, 255) else picture.convert("L")
    if rounded:
        grey = grey.point([255 if value > MASK_THRESHOLD else 0 for value in range(256)])
    return _keep(services, grey.convert("RGB"))


def _keep(services: StudioServices, picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    content = file.getvalue()
    name = f"{FOLDER}/{hashlib.sha256(content).hexdigest()[:24]}.png"
    return services.save_input(name, io.BytesIO(content))
