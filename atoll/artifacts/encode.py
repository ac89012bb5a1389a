"""Finished pictures in another file format, with the text that they carry."""

from __future__ import annotations

import io

from PIL import ExifTags, Image

FORMATS = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP"}
MEDIA_TYPES = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp"}
_COMMENT = b"UNICODE\0"  # says how the rest is coded; Exif 2.3, section 4.6.5


def reencode(content: bytes, format: str, *, quality: int = 80) -> bytes:
    """A finished PNG as `format`: "png" (as it is), "jpg", "jpeg" or "webp".

    The text `parameters` travels in the EXIF field UserComment, where A1111 writes and looks for it.
    """
    if format == "png":
        return content
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        exif = Image.Exif()
        text = getattr(picture, "text", {}).get("parameters")
        if text:
            exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = _COMMENT + text.encode("utf-16-be")
        file = io.BytesIO()
        flat = picture if format == "webp" else picture.convert("RGB")
        flat.save(file, FORMATS[format], quality=quality, exif=exif)
    return file.getvalue()


def read_user_comment(picture: Image.Image) -> str:
    """The text of the EXIF field UserComment; "" where there is none."""
    comment = picture.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment, b"")
    if isinstance(comment, str):
        return comment
    if comment.startswith(_COMMENT):
        coded = comment.removeprefix(_COMMENT)
        # Exif leaves the order of bytes open: English text shows it by where its zeros are.
        return coded.decode("utf-16-le" if coded[1:2] == b"\0" else "utf-16-be", "replace").strip("\0")
    return comment[8:].decode("ascii", "replace").strip("\0") if comment.startswith(b"ASCII") else ""
