"""Nodes that name a model. The shelf in the context keeps what they load, so these are never cached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

from atoll.graph.node import NodeContext, OneFile, OneOf, Tooltip, node
from atoll.nodes.types import Clip, Model, Vae

# ComfyUI's list. Atoll knows the first; naming another gets a sentence.
CLIP_TYPES = (
    "stable_diffusion", "stable_cascade", "sd3", "stable_audio", "mochi", "ltxv", "pixart", "cosmos", "lumina2", "wan",
    "hidream", "chroma", "ace", "omnigen2", "qwen_image", "hunyuan_image",
)  # fmt: skip
WEIGHT_DTYPES = ("default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2")


def _file_identity(kind: str, field: str) -> Callable[[NodeContext, Mapping[str, Any]], str]:
    def fingerprint(context: NodeContext, fields: Mapping[str, Any]) -> str:
        return context.models.fingerprint(kind, fields[field])

    return fingerprint


def _known_clip_type(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if fields["type"] != "stable_diffusion":
        yield "type", f'text encoders of type "{fields["type"]}" are not supported yet. Use "stable_diffusion".'


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
