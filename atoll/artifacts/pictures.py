"""Opening picture files that anybody may have sent: few formats, bounded sizes, and words for what is wrong."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

from atoll.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Others (EPS, PDF, ...) start foreign programs or are of no use here.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
MAX_PIXELS = 9_000 * 9_000  # of one picture, and of all frames together: 972 MB as float RGB


def load_frames(source: Path | bytes, *, name: str) -> list[Image.Image]:
    """The fully decoded frames of a picture file, upright (EXIF rotation applied); a still picture has one.

    Frames whose size differs from the first's are left out.

    Args:
        name: what the picture is called in messages.
    Raises: NotFound; InvalidRequest for what is no picture, damaged, of another format or too big.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is stricter
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
                _refuse_giants(image, name)
                frames = [ImageOps.exif_transpose(frame.copy()) for frame in ImageSequence.Iterator(image)]
                frames[0].format = image.format  # which a copy forgets
    except FileNotFoundError as error:
        raise NotFound(f'There is no picture "{name}".') from error
    except Image.DecompressionBombError as error:
        raise InvalidRequest(f"{name} has too many pixels; at most {MAX_PIXELS:,} are allowed.") from error
    except UnidentifiedImageError as error:
        raise InvalidRequest(f"{name} is not a picture in a known format. Known: {', '.join(FORMATS)}.") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, MemoryError) as error:
        raise InvalidRequest(f"{name} is damaged or incomplete and cannot be read: {error}. Send it again.") from error
    return [frame for frame in frames if frame.size == frames[0].size]


def load_picture(source: Path | bytes, *, name: str) -> Image.Image:
    """The first frame; see `load_frames`."""
    return load_frames(source, name=name)[0]


def rgb_and_alpha(image: Image.Image) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """(height, width, 3) colours and (height, width) opacity, None where the picture has none."""
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip rather than scale
        grey = np.asarray(image.convert("I"), dtype=np.int64)
        image = Image.fromarray((np.clip(grey, 0, 65_535) // 257).astype(np.uint8), "L")
    alpha = None
    if "A" in image.getbands() or "transparency" in image.info:
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    return np.asarray(image.convert("RGB")), alpha


def _refuse_giants(image: Image.Image, name: str) -> None:
    frames = getattr(image, "n_frames", 1)
    if image.width * image.height * frames > MAX_PIXELS:
        times = f" x {frames} frames" if frames > 1 else ""
        raise InvalidRequest(
            f"{name} is {image.width} x {image.height}{times}; at most {MAX_PIXELS:,} pixels are taken. Scale it down."
        )
