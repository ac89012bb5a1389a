"""Nodes that name a model. The shelf in the context keeps what they load, so these are never cached."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

from atoll.graph.node import NodeContext, OneFile, OneOf, Tooltip, node
from atoll.nodes.types import Clip, Model, Vae

# ComfyUI's list. Atoll knows the first; naming another gets a sentence.
CLIP_TYPES = (
    "stable_diffusion", "stable_cascade", "sd3", "stable_audio", "mochi", "ltxv", "pixart", "cosmos", "lumina2", "wan",
    "hidream", "chroma", "ace", "omnigen2", "qwen_image", "hunyuan_image",
)  # fmt: skip
PAIR_TYPES = ("sdxl", "sd3", "flux", "hunyuan_video", "hidream", "hunyuan_image")
# The configurations that travelled with the first models. What one says beyond the file: what is predicted, and which
# layer of the text encoder is taken.
CONFIGS: dict[str, tuple[str, int | None]] = {
    "anything_v3.yaml": ("epsilon", 2),
    "v1-inference.yaml": ("epsilon", None),
    "v1-inference_clip_skip_2.yaml": ("epsilon", 2),
    "v1-inference_clip_skip_2_fp16.yaml": ("epsilon", 2),
    "v1-inference_fp16.yaml": ("epsilon", None),
    "v1-inpainting-inference.yaml": ("epsilon", None),
    "v2-inference-v.yaml": ("v_prediction", None),
    "v2-inference-v_fp32.yaml": ("v_prediction", None),
    "v2-inference.yaml": ("epsilon", None),
    "v2-inference_fp32.yaml": ("epsilon", None),
    "v2-inpainting-inference.yaml": ("epsilon", None),
}
WEIGHT_DTYPES = ("default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2")


def _file_identity(kind: str, field: str) -> Callable[[NodeContext, Mapping[str, Any]], str]:
    def fingerprint(context: NodeContext, fields: Mapping[str, Any]) -> str:
        return context.models.fingerprint(kind, fields[field])

    return fingerprint


def _known_clip_type(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if fields["type"] != "stable_diffusion":
        yield "type", f'text encoders of type "{fields["type"]}" are not supported yet. Use "stable_diffusion".'


def _known_pair_type(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if fields["type"] != "sdxl":
        yield "type", f'pairs of text encoders of type "{fields["type"]}" are not supported. Use "sdxl".'


def _known_weight_dtype(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if fields["weight_dtype"] != "default":
        yield "weight_dtype", f'"{fields["weight_dtype"]}" is not supported yet. Use "default".'


@node(
    "CheckpointLoaderSimple",
    title="Load Checkpoint",
    category="loaders",
    cached=False,
    fingerprint=_file_identity("checkpoints", "ckpt_name"),
)
def load_checkpoint(
    context: NodeContext,
    *,
    ckpt_name: Annotated[str, OneFile("checkpoints"), Tooltip("The model file or folder to load.")],
) -> tuple[Model, Clip, Vae]:
    """Load a Stable Diffusion model: the network that denoises, its text encoder and its VAE."""
    checkpoint = context.models.checkpoint(ckpt_name)
    return checkpoint.model, checkpoint.text_encoder, checkpoint.vae


@node("VAELoader", title="Load VAE", category="loaders", cached=False, fingerprint=_file_identity("vae", "vae_name"))
def load_vae(context: NodeContext, *, vae_name: Annotated[str, OneFile("vae")]) -> Vae:
    """Load a VAE by itself, to use in place of a checkpoint's own."""
    return context.models.vae(vae_name)


@node(
    "CLIPLoader",
    title="Load CLIP",
    category="advanced/loaders",
    cached=False,
    optional=("device",),
    check=_known_clip_type,
    fingerprint=_file_identity("text_encoders", "clip_name"),
)
def load_clip(
    context: NodeContext,
    *,
    clip_name: Annotated[str, OneFile("text_encoders")],
    type: Annotated[str, OneOf(CLIP_TYPES)],
    device: Annotated[str, OneOf(("default", "cpu"), advanced=True)] = "default",
) -> Clip:
    """Load a text encoder by itself."""
    return context.models.text_encoder(clip_name, device=None if device == "default" else device)


@node(
    "UNETLoader",
    title="Load Diffusion Model",
    category="advanced/loaders",
    cached=False,
    check=_known_weight_dtype,
    fingerprint=_file_identity("diffusion_models", "unet_name"),
)
def load_unet(
    context: NodeContext,
    *,
    unet_name: Annotated[str, OneFile("diffusion_models")],
    weight_dtype: Annotated[str, OneOf(WEIGHT_DTYPES)],
) -> Model:
    """Load the network that denoises by itself."""
    return context.models.unet(unet_name)


def _identity_of_pair(context: NodeContext, fields: Mapping[str, Any]) -> str:
    return "\n".join(context.models.fingerprint("text_encoders", fields[name]) for name in ("clip_name1", "clip_name2"))


@node(
    "DualCLIPLoader",
    title="DualCLIPLoader",
    category="advanced/loaders",
    cached=False,
    optional=("device",),
    check=_known_pair_type,
    fingerprint=_identity_of_pair,
)
def load_two_clips(
    context: NodeContext,
    *,
    clip_name1: Annotated[str, OneFile("text_encoders")],
    clip_name2: Annotated[str, OneFile("text_encoders")],
    type: Annotated[str, OneOf(PAIR_TYPES)],
    device: Annotated[str, OneOf(("default", "cpu"), advanced=True)] = "default",
) -> Clip:
    """Load SDXL's two text encoders by themselves, in either order."""
    from atoll.diffusion.text import pair_text_encoders  # loads torch, which the server must not

    on = None if device == "default" else device
    return pair_text_encoders(*(context.models.text_encoder(name, device=on) for name in (clip_name1, clip_name2)))


@node(
    "CheckpointLoader",
    title="Load Checkpoint With Config (DEPRECATED)",
    category="advanced/loaders",
    cached=False,
    deprecated=True,
    fingerprint=_file_identity("checkpoints", "ckpt_name"),
)
def load_checkpoint_with_config(
    context: NodeContext,
    *,
    config_name: Annotated[str, OneOf(tuple(CONFIGS))],
    ckpt_name: Annotated[str, OneFile("checkpoints")],
) -> tuple[Model, Clip, Vae]:
    """Load a model as CheckpointLoaderSimple does, and say of an old file what its network predicts."""
    checkpoint = context.models.checkpoint(ckpt_name)
    prediction, clip_skip = CONFIGS[config_name]
    schedule = dataclasses.replace(checkpoint.model.noise_schedule, prediction_type=prediction)
    text_encoder = checkpoint.text_encoder if clip_skip is None else checkpoint.text_encoder.with_clip_skip(clip_skip)
    return dataclasses.replace(checkpoint.model, noise_schedule=schedule), text_encoder, checkpoint.vae
