"""/view and /upload: pictures out, and pictures and masks in."""

from __future__ import annotations

import io
import json
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Response, UploadFile
from fastapi.responses import FileResponse
from PIL import Image, PngImagePlugin

from atoll.api.comfy.artifact_names import find_artifact, split_place
from atoll.api.comfy.reply import GET, ComfyRoute, Json, is_yes
from atoll.api.request_scope import Services
from atoll.api.services import StudioServices
from atoll.artifacts.pictures import load_picture
from atoll.errors import InvalidRequest, NotFound

router = APIRouter(route_class=ComfyRoute)

PLACES = ("output", "input", "temp")
PREVIEW_FORMATS = {"webp": "image/webp", "jpeg": "image/jpeg"}
PREVIEW_QUALITY = 90
CHANNELS = ("rgba", "rgb", "a")


@router.api_route("/view", methods=GET)
def view(
    services: Services,
    filename: str = "",
    type: str = "output",
    subfolder: str = "",
    preview: str = "",
    channel: str = "rgba",
) -> Response:
    """A picture's file; with `preview=webp;90` a smaller one; with `channel` its colours or opacity alone, as PNG."""
    path, media_type = picture_file(services, filename, type, subfolder)
    if channel not in CHANNELS:
        raise InvalidRequest(f"channel {channel!r:.80} is not known. Known: {', '.join(CHANNELS)}.")
    if preview:
        format_, _, quality = preview.partition(";")
        format_ = format_ if format_ in PREVIEW_FORMATS else "webp"
        return _encoded(_channel(load_picture(path, name=filename), channel), format_, _quality(quality))
    if channel != "rgba":
        return _encoded(_channel(load_picture(path, name=filename), channel), "png", PREVIEW_QUALITY)
    return FileResponse(
        path,
        media_type=media_type,
        filename=PurePosixPath(filename.replace("\\", "/")).name,
        content_disposition_type="inline",
        headers={"x-content-type-options": "nosniff"},
    )


def picture_file(services: StudioServices, filename: str, place: str, subfolder: str) -> tuple[Path, str | None]:
    """(path, media type if it is known) of a picture as ComfyUI names it. Raises: NotFound, InvalidRequest."""
    name, place = split_place(filename, place)
    if not name:
        raise InvalidRequest("filename is missing. GET /history names the pictures that there are.")
    if place not in PLACES:
        raise InvalidRequest(f"type {place!r:.80} is not known. Known: {', '.join(PLACES)}.")
    if place == "input":
        return services.input_path(_joined(subfolder, name)), None
    try:
        artifact = find_artifact(services, name, place).artifact
    except NotFound:
        if place != "temp":
            raise
        return services.input_path(_joined(subfolder, name)), None  # uploaded as "temp": see `upload_image`
    return services.artifact_files.path(artifact.sha256), artifact.media_type


@router.post("/upload/image")
def upload_image(
    services: Services,
    image: Annotated[UploadFile | None, File()] = None,
    subfolder: Annotated[str, Form()] = "",
    overwrite: Annotated[str, Form()] = "",
) -> Json:
    """Keep a picture. Equal content keeps its name; another of the same name gets a number.

    It is always kept as an input, whatever `type` was sent, since outputs are what jobs leave; the answer says so.
    """
    file = _uploaded(image)
    name = services.save_input(
        _joined(subfolder, file.filename or "picture.png"), file.file, overwrite=is_yes(overwrite)
    )
    return Json(_reply(name))


@router.post("/upload/mask")
def upload_mask(
    services: Services,
    image: Annotated[UploadFile | None, File()] = None,
    original_ref: Annotated[str, Form()] = "",
    subfolder: Annotated[str, Form()] = "",
    overwrite: Annotated[str, Form()] = "",
) -> Json:
    """Keep a copy of the picture `original_ref` with the opacity of the one that was sent."""
    file = _uploaded(image)
    path, _ = picture_file(services, *_reference(original_ref))
    mask = load_picture(file.file.read(), name=file.filename or "The mask").convert("RGBA")
    original = load_picture(path, name="The picture of original_ref")
    if mask.size != original.size:
        raise InvalidRequest(
            f"The mask is {mask.width}x{mask.height}, the picture of original_ref {original.width}x{original.height}. "
            "Send a mask of the picture's size."
        )
    masked = original.convert("RGBA")
    masked.putalpha(mask.getchannel("A"))
    said = PngImagePlugin.PngInfo()
    for keyword, text in original.info.items():
        if isinstance(keyword, str) and isinstance(text, str):
            said.add_text(keyword, text)
    content = io.BytesIO()
    masked.save(content, "PNG", compress_level=1, pnginfo=said)
    content.seek(0)
    name = PurePosixPath(file.filename or "mask.png").with_suffix(".png").as_posix()
    kept = services.save_input(_joined(subfolder, name), content, overwrite=is_yes(overwrite))
    return Json(_reply(kept))


def _uploaded(image: UploadFile | None) -> UploadFile:
    if image is None:
        raise InvalidRequest("image is missing: a picture as multipart form data.")
    return image


def _reference(text: str) -> tuple[str, str, str]:
    """(filename, place, subfolder) of an original_ref. Raises: InvalidRequest."""
    try:
        reference: Any = json.loads(text)
    except (ValueError, RecursionError):
        reference = None
    if not isinstance(reference, dict) or not isinstance(reference.get("filename"), str):
        raise InvalidRequest('original_ref must be JSON such as {"filename": "cat.png", "type": "input"}.')
    place, subfolder = reference.get("type") or "output", reference.get("subfolder") or ""
    return reference["filename"], str(place), str(subfolder)


def _joined(subfolder: str, name: str) -> str:
    return f"{subfolder.strip('/')}/{name}" if subfolder.strip("/") else name


def _reply(name: str) -> dict[str, str]:
    folder = PurePosixPath(name).parent.as_posix()
    return {"name": PurePosixPath(name).name, "subfolder": "" if folder == "." else folder, "type": "input"}


def _channel(image: Image.Image, channel: str) -> Image.Image:
    """The picture without its opacity ("rgb"), or black with its opacity alone ("a")."""
    if channel == "rgb":
        return image.convert("RGB")
    if channel == "a":
        alone = Image.new("RGBA", image.size)
        alone.putalpha(image.convert("RGBA").getchannel("A"))
        return alone
    return image


def _encoded(image: Image.Image, format_: str, quality: int) -> Response:
    if format_ == "jpeg" or image.mode not in ("RGB", "RGBA"):
        image = image.convert("RGB" if format_ == "jpeg" else "RGBA")
    file = io.BytesIO()
    image.save(file, format_.upper(), quality=quality)
    return Response(file.getvalue(), media_type=f"image/{format_}", headers={"x-content-type-options": "nosniff"})


def _quality(text: str) -> int:
    return min(100, max(1, int(text))) if text.strip().isdecimal() else PREVIEW_QUALITY
