"""POST png-info and interrogate: what a picture says of itself, and what a model would say of it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from atoll.api.a1111.requests import ImageBody
from atoll.api.a1111.scope import A1111Route, From, Refused
from atoll.api.a1111.sent_pictures import decode_picture, open_picture
from atoll.artifacts.encode import read_user_comment
from atoll.artifacts.infotext import parse_infotext
from atoll.artifacts.png import read_png_text
from atoll.errors import NotPossibleYet

router = APIRouter(route_class=A1111Route)


@router.post("/sdapi/v1/png-info")
def png_info(caller: From, body: ImageBody) -> dict[str, Any]:
    """How the picture was made, as text, as its parts, and all texts that the file carries."""
    if not body.image:
        raise Refused("Image not found: send a picture in base64.", 404)
    picture = open_picture(body.image, "image")
    items: dict[str, str] = {}
    if picture.format == "PNG":
        items = read_png_text(decode_picture(body.image, "image"))
    elif comment := read_user_comment(picture):
        items = {"parameters": comment}
    text = items.pop("parameters", "")
    return {"info": text, "items": items, "parameters": parameters_of(text) if text else {}}


def parameters_of(text: str) -> dict[str, Any]:
    """The parts of such a text by A1111's names; a size is two of them, "Size-1" and "Size-2"."""
    told = parse_infotext(text)
    parts: dict[str, Any] = {"Prompt": told.prompt, "Negative prompt": told.negative_prompt}
    for name, value in told.parameters.items():
        width, by, height = value.partition("x")
        if by and width.isdecimal() and height.isdecimal():
            parts |= {f"{name}-1": width, f"{name}-2": height}
        else:
            parts[name] = value
    parts.setdefault("Clip skip", "1")
    return parts


@router.post("/sdapi/v1/interrogate")
def interrogate(caller: From, body: ImageBody) -> None:
    if not body.image:
        raise Refused("Image not found: send a picture in base64.", 404)
    raise NotPossibleYet(f'interrogate: Atoll has no model that describes pictures ("{body.model[:40]}") yet.')
