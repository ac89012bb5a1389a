"""Small previews of finished pictures, made when first asked for."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from atoll.artifacts.files import ArtifactFiles, write_durably
from atoll.artifacts.pictures import load_picture

SIDE = 256  # pixels, of the longer side


def make_thumbnail(image: Image.Image, side: int = SIDE, quality: int = 85) -> bytes:
    """A JPEG of at most `side` x `side`; what is transparent becomes white."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    if "A" in small.getbands() or "transparency" in small.info:
        small = small.convert("RGBA")
        small = Image.alpha_composite(Image.new("RGBA", small.size, "white"), small)
    file = io.BytesIO()
    small.convert("RGB").save(file, "JPEG", quality=quality)
    return file.getvalue()


def thumbnail_of(files: ArtifactFiles, sha256: str) -> Path:
    """The thumbnail's file. Raises: NotFound if there is no such artifact."""
    path = files.thumbnail_path(sha256)
    if not path.is_file():
        write_durably(path, make_thumbnail(load_picture(files.path(sha256), name=sha256)))
    return path
