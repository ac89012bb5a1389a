"""Prompts to conditioning."""

from __future__ import annotations

from typing import Annotated

from atoll.graph.node import OneOf, Range, Text, Tooltip, node
from atoll.nodes.types import Clip, Conditionings


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
