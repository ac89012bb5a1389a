"""A1111's `parameters` text as a request: the best that can be made of a picture that carries no graph."""

from __future__ import annotations

from typing import Any

from atoll.api.image_request import ImageRequest, parse_image_request
from atoll.artifacts.infotext import parse_infotext

# A1111's name -> ours, where the value is taken as it stands.
_FIELDS = {
    "Steps": "num_inference_steps",
    "Sampler": "sampler",
    "CFG scale": "guidance_scale",
    "Seed": "seed",
    "Model": "model",
    "VAE": "vae",
    "Clip skip": "clip_skip",
}


def request_from_infotext(text: str) -> ImageRequest:
    """The txt2img request that the text tells of.

    A1111 draws its noise on the GPU by default and weighs prompts differently, so the picture is alike, not the same.
    What came from a start image can't be told from a text and is left out.

    Raises: FaultyRequest where the text asks for what is not possible here.
    """
    told = parse_infotext(text)
    values: dict[str, Any] = {"prompt": told.prompt, "negative_prompt": told.negative_prompt}
    values |= {ours: told.parameters[theirs] for theirs, ours in _FIELDS.items() if theirs in told.parameters}
    schedule = told.parameters.get("Schedule type", "Automatic")
    if schedule != "Automatic":
        values["scheduler"] = schedule
    width, _, height = told.parameters.get("Size", "").partition("x")
    if width.isdecimal() and height.isdecimal():
        values |= {"width": int(width), "height": int(height)}
    return parse_image_request(values)
