"""Prompts to conditioning, and what can be done to it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

from atoll.graph.node import OneOf, Range, Text, Tooltip, node
from atoll.nodes.latents import MAX_SIDE
from atoll.nodes.types import Clip, Conditionings, Mask

if TYPE_CHECKING:
    from atoll.diffusion.conditioning import Conditioning

LongText = Annotated[str, Text(multiline=True, dynamic_prompts=True)]
PictureSide = Annotated[int, Range(0, MAX_SIDE)]
AreaSide = Annotated[int, Range(64, MAX_SIDE, step=8)]
AreaPlace = Annotated[int, Range(0, MAX_SIDE, step=8)]
Strength = Annotated[float, Range(0.0, 10.0, step=0.01)]

EMPHASES = ("comfy", "a1111")


@node("CLIPTextEncode", title="CLIP Text Encode (Prompt)", category="conditioning", version=2, order=("text", "clip"))
def encode_text(
    clip: Annotated[Clip, Tooltip("The text encoder.")],
    *,
    text: Annotated[
        str, Text(multiline=True, dynamic_prompts=True), Tooltip("The prompt. (word:1.2) weighs more, (word:0.8) less.")
    ],
) -> Conditionings:
    """Encode a prompt of any length, read as ComfyUI reads it."""
    from atoll.diffusion.text import encode_prompt  # loads torch, which the server must not

    return [encode_prompt(clip, text, syntax="comfy", emphasis="comfy")]


@node("AtollTextEncode", title="Text Encode (A1111 Grammar)", category="conditioning", optional=("emphasis",))
def encode_a1111_text(
    clip: Annotated[Clip, Tooltip("The text encoder.")],
    *,
    text: Annotated[
        str,
        Text(multiline=True, dynamic_prompts=True),
        Tooltip("The prompt. (word:1.2) weighs more, [word] less, BREAK begins a new chunk of 77 tokens."),
    ],
    emphasis: Annotated[str, OneOf(EMPHASES), Tooltip("What a weight does: as in ComfyUI, or as in A1111.")] = "comfy",
) -> Conditionings:
    """Encode a prompt of any length, read as A1111 reads it."""
    from atoll.diffusion.text import encode_prompt  # loads torch, which the server must not

    return [encode_prompt(clip, text, syntax="a1111", emphasis="a1111" if emphasis == "a1111" else "comfy")]


# Not cached: the result holds the encoder's weights, which the shelf of models counts already.
@node("CLIPSetLastLayer", title="CLIP Set Last Layer", category="conditioning", cached=False)
def set_last_clip_layer(clip: Clip, *, stop_at_clip_layer: Annotated[int, Range(-24, -1, step=1)] = -1) -> Clip:
    """Take the text encoder's output before its end: -2 is what is elsewhere called clip skip 2."""
    return clip.with_clip_skip(-stop_at_clip_layer)


@node("CLIPTextEncodeSDXL", title="Text Encode for SDXL", untitled=True, schema="v3", category="advanced/conditioning")
def encode_sdxl_text(
    clip: Clip,
    *,
    width: PictureSide = 1024,
    height: PictureSide = 1024,
    crop_w: PictureSide = 0,
    crop_h: PictureSide = 0,
    target_width: PictureSide = 1024,
    target_height: PictureSide = 1024,
    text_g: LongText,
    text_l: LongText,
) -> Conditionings:
    """A prompt for each of SDXL's two text encoders, and the size of picture that the model is to think of."""
    from atoll.diffusion.conditioning import PictureSize  # loads torch, which the server must not
    from atoll.diffusion.text import encode_two_prompts

    size = PictureSize(height, width, crop_h, crop_w, target_height, target_width)
    return [dataclasses.replace(encode_two_prompts(clip, text_l, text_g), size=size)]


@node(
    "CLIPTextEncodeSDXLRefiner",
    title="Text Encode for SDXL's Refiner",
    untitled=True,
    schema="v3",
    category="advanced/conditioning",
    order=("ascore", "width", "height", "text", "clip"),
)
def encode_refiner_text(
    clip: Clip,
    *,
    ascore: Annotated[float, Range(0.0, 1000.0, step=0.01)] = 6.0,
    width: PictureSide = 1024,
    height: PictureSide = 1024,
    text: LongText,
) -> Conditionings:
    """A prompt for SDXL's second model, with how beautiful the picture is to be, 1 to 10."""
    from atoll.diffusion.conditioning import PictureSize  # loads torch, which the server must not
    from atoll.diffusion.text import encode_prompt

    size = PictureSize(height, width, aesthetic_score=ascore)
    return [dataclasses.replace(encode_prompt(clip, text, syntax="comfy"), size=size)]


@node("ConditioningCombine", title="Conditioning (Combine)", category="conditioning")
def combine(conditioning_1: Conditionings, conditioning_2: Conditionings) -> Conditionings:
    """Two prompts at once: the network draws both, and its answers are averaged."""
    return [*conditioning_1, *conditioning_2]


@node("ConditioningConcat", title="Conditioning (Concat)", category="conditioning")
def concatenate(conditioning_to: Conditionings, conditioning_from: Conditionings) -> Conditionings:
    """Two prompts one behind the other, as chunks of one. Of several, the first of `conditioning_from` is taken."""
    return [conditioning.followed_by(conditioning_from[0]) for conditioning in conditioning_to]


@node("ConditioningAverage", title="ConditioningAverage", category="conditioning")
def average(
    conditioning_to: Conditionings,
    conditioning_from: Conditionings,
    *,
    conditioning_to_strength: Annotated[float, Range(0.0, 1.0, step=0.01)] = 1.0,
) -> Conditionings:
    """A prompt between two. Of several, the first of `conditioning_from` is taken."""
    return [conditioning.mixed_with(conditioning_from[0], conditioning_to_strength) for conditioning in conditioning_to]


@node("ConditioningSetArea", title="Conditioning (Set Area)", category="conditioning")
def set_area(
    conditioning: Conditionings,
    *,
    width: AreaSide = 64,
    height: AreaSide = 64,
    x: AreaPlace = 0,
    y: AreaPlace = 0,
    strength: Strength = 1.0,
) -> Conditionings:
    """Let a prompt speak in a rectangle only, in pixels."""
    from atoll.diffusion.conditioning import Area  # loads torch, which the server must not

    area = Area(height // 8, width // 8, y // 8, x // 8)
    return _changed(conditioning, area=area, strength=strength, mask_sets_area=False)


@node("ConditioningSetAreaPercentage", title="Conditioning (Set Area with Percentage)", category="conditioning")
def set_area_in_shares(
    conditioning: Conditionings,
    *,
    width: Annotated[float, Range(0, 1.0, step=0.01)] = 1.0,
    height: Annotated[float, Range(0, 1.0, step=0.01)] = 1.0,
    x: Annotated[float, Range(0, 1.0, step=0.01)] = 0,
    y: Annotated[float, Range(0, 1.0, step=0.01)] = 0,
    strength: Strength = 1.0,
) -> Conditionings:
    """Let a prompt speak in a rectangle only, in parts of the picture from 0 to 1."""
    from atoll.diffusion.conditioning import Area  # loads torch, which the server must not

    area = Area(height, width, y, x, in_shares=True)
    return _changed(conditioning, area=area, strength=strength, mask_sets_area=False)


@node("ConditioningSetMask", title="Conditioning (Set Mask)", category="conditioning")
def set_mask(
    conditioning: Conditionings,
    mask: Mask,
    *,
    strength: Strength = 1.0,
    set_cond_area: Annotated[str, OneOf(("default", "mask bounds"))],
) -> Conditionings:
    """Let a prompt speak where a mask is; with "mask bounds" the network is shown only the rectangle around it."""
    return _changed(conditioning, mask=mask, mask_strength=strength, mask_sets_area=set_cond_area == "mask bounds")


@node("ConditioningZeroOut", title="ConditioningZeroOut", category="advanced/conditioning")
def zero_out(conditioning: Conditionings) -> Conditionings:
    """A prompt that says nothing at all, not even what the empty text says."""
    return [one.zeroed() for one in conditioning]


@node("ConditioningSetTimestepRange", title="ConditioningSetTimestepRange", category="advanced/conditioning")
def set_timestep_range(
    conditioning: Conditionings,
    *,
    start: Annotated[float, Range(0.0, 1.0, step=0.001)] = 0.0,
    end: Annotated[float, Range(0.0, 1.0, step=0.001)] = 1.0,
) -> Conditionings:
    """Let a prompt speak during a part of the way from noise (0) to picture (1)."""
    return _changed(conditioning, start_percent=start, end_percent=end)


def _changed(conditionings: list[Conditioning], **changes: Any) -> list[Conditioning]:
    return [dataclasses.replace(conditioning, **changes) for conditioning in conditionings]
