"""Stable Diffusion 1.x, 2.x and SDXL with all their parts and few channels, as networks and as single files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from ldm_layout import State, clip_to_ldm, clip_to_openclip, unet_to_ldm, vae_to_ldm
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

FAMILIES = ("sd1", "sd2", "sdxl")


def build_narrow_parts(family: str, *, in_channels: int = 4) -> dict[str, Any]:
    """unet, vae, text_encoder and, for SDXL, text_encoder_2: widths that keep each family's rules about heads."""
    torch.manual_seed(sum(map(ord, family)))
    parts: dict[str, Any] = {"vae": _vae(), "text_encoder": _clip(64, 3, "gelu" if family == "sd2" else "quick_gelu")}
    if family == "sdxl":
        parts["text_encoder_2"] = _clip(128, 3, "gelu", projection=True)
        parts["unet"] = UNet2DConditionModel(
            sample_size=128, in_channels=in_channels, block_out_channels=(32, 64, 64), layers_per_block=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 1, 2), cross_attention_dim=64 + 128, attention_head_dim=(1, 1, 1),
            use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=128 + 6 * 256,
        )  # fmt: skip
    else:
        parts["unet"] = UNet2DConditionModel(
            sample_size=64, in_channels=in_channels, block_out_channels=(32, 64, 64, 64), layers_per_block=2,
            cross_attention_dim=64, attention_head_dim=8 if family == "sd1" else (1, 1, 1, 1),
            use_linear_projection=family == "sd2",
        )  # fmt: skip
    return {name: part.eval() for name, part in parts.items()}


def ldm_state(family: str, parts: dict[str, Any]) -> State:
    """The tensors of a whole checkpoint in the original layout."""
    state = unet_to_ldm(parts["unet"])
    if "vae" in parts:
        state |= vae_to_ldm(parts["vae"])
    if family == "sd1" and "text_encoder" in parts:
        state |= clip_to_ldm(parts["text_encoder"])
        state["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    if family == "sd2" and "text_encoder" in parts:
        state |= clip_to_openclip(parts["text_encoder"])
    if family == "sdxl" and "text_encoder" in parts:
        state |= clip_to_ldm(parts["text_encoder"], "conditioner.embedders.0.transformer.text_model.")
        state |= clip_to_openclip(parts["text_encoder_2"], "conditioner.embedders.1.model.")
    return state


def save_ldm(
    path: Path, state: State, *, dtype: torch.dtype | None = None, metadata: dict[str, str] | None = None
) -> Path:
    state = {
        name: tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor for name, tensor in state.items()
    }
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, path, metadata=metadata)
    return path


def _clip(width: int, layers: int, activation: str, *, projection: bool = False) -> Any:
    config = CLIPTextConfig(
        vocab_size=49408, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=width // 64, hidden_act=activation, projection_dim=width,
        bos_token_id=49406, eos_token_id=49407, pad_token_id=1,
    )  # fmt: skip
    return CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(32, 32, 64, 64), layers_per_block=2, latent_channels=4, norm_num_groups=32,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
