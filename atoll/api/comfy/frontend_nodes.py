"""Nodes that ComfyUI's frontend looks up by name when it starts, and without which it cannot make any loader node.

Its own server has them all. Those that Atoll does not have are described to the frontend alone, in their right shape,
so that workflows open as they were saved; a workflow that uses one is refused when it is queued, by the node's name.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from atoll.api.services import StudioServices

STRENGTH = ["FLOAT", {"default": 1.0, "min": -100.0, "max": 100.0, "step": 0.01}]


@dataclass(frozen=True)
class _LoaderNode:
    """A loader as the frontend must see it: its sockets, the field that names a file of `kind`, its other fields."""

    title: str
    kind: str
    field: str
    outputs: tuple[str, ...]
    sockets: tuple[str, ...] = ()
    strengths: tuple[str, ...] = ()


LOADERS = {
    "ImageOnlyCheckpointLoader": _LoaderNode(
        "Image Only Checkpoint Loader (img2vid model)", "checkpoints", "ckpt_name", ("MODEL", "CLIP_VISION", "VAE")
    ),
    "LoraLoader": _LoaderNode(
        "Load LoRA", "loras", "lora_name", ("MODEL", "CLIP"), ("MODEL", "CLIP"), ("strength_model", "strength_clip")
    ),
    "LoraLoaderModelOnly": _LoaderNode(
        "LoraLoaderModelOnly", "loras", "lora_name", ("MODEL",), ("MODEL",), ("strength_model",)
    ),
    "ControlNetLoader": _LoaderNode("Load ControlNet Model", "controlnet", "control_net_name", ("CONTROL_NET",)),
    "UpscaleModelLoader": _LoaderNode("Load Upscale Model", "upscale_models", "model_name", ("UPSCALE_MODEL",)),
    "StyleModelLoader": _LoaderNode("Load Style Model", "style_models", "style_model_name", ("STYLE_MODEL",)),
    "GLIGENLoader": _LoaderNode("GLIGENLoader", "gligen", "gligen_name", ("GLIGEN",)),
}


def missing_loaders(services: StudioServices, there: Collection[str]) -> dict[str, Any]:
    """Descriptions, in the form of /object_info, of the loaders that are not `there`."""
    return {name: _info(services, name, loader) for name, loader in LOADERS.items() if name not in there}


def _info(services: StudioServices, name: str, loader: _LoaderNode) -> dict[str, Any]:
    required: dict[str, Any] = {socket.lower(): [socket] for socket in loader.sockets}
    required[loader.field] = [services.catalogue.names(loader.kind)]
    required |= dict.fromkeys(loader.strengths, STRENGTH)
    return {
        "input": {"required": required},
        "input_order": {"required": list(required)},
        "output": list(loader.outputs),
        "output_is_list": [False] * len(loader.outputs),
        "output_name": list(loader.outputs),
        "name": name,
        "display_name": f"{loader.title} (not in Atoll yet)",
        "description": "Atoll cannot run this node yet. It is listed so that workflows open as they were saved.",
        "python_module": "nodes",
        "category": "not in Atoll yet",
        "output_node": False,
        "deprecated": True,
    }
