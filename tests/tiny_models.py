"""Checkpoints of the Stable Diffusion shape with random weights and tiny widths: enough to prove arithmetic."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

CLIP_TOKENIZER = Path(__file__).parent.parent / "atoll/models/assets/clip_tokenizer"


def build_tiny_parts(
    *, seed: int = 0, in_channels: int = 4, prediction_type: str = "epsilon", **scheduler_options: Any
) -> dict[str, Any]:
    """Tokenizer, text encoder (hidden size 32), U-Net, VAE (1/8 of the size, 4 latent channels) and scheduler."""
    torch.manual_seed(seed)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408, hidden_size=32, intermediate_size=37, num_hidden_layers=4, num_attention_heads=4,
            max_position_embeddings=77, projection_dim=32, bos_token_id=49406, eos_token_id=49407, pad_token_id=49407,
        )
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=in_channels, out_channels=4, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32, attention_head_dim=8, norm_num_groups=32,
    )  # fmt: skip
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8, 8, 16, 16), layers_per_block=1,
        norm_num_groups=4, sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1,
        set_alpha_to_one=False, prediction_type=prediction_type, **scheduler_options,
    )  # fmt: skip
    tokenizer = CLIPTokenizer.from_pretrained(CLIP_TOKENIZER)
    return {
        "tokenizer": tokenizer,
        "text_encoder": text_encoder.eval(),
        "unet": unet.eval(),
        "vae": vae.eval(),
        "scheduler": scheduler,
    }


def save_tiny_checkpoint(folder: Path, **options: Any) -> Path:
    """Write such a checkpoint as a diffusers folder. Options as for `build_tiny_parts`."""
    from diffusers import StableDiffusionPipeline

    shutil.rmtree(folder, ignore_errors=True)
    pipeline = StableDiffusionPipeline(
        **build_tiny_parts(**options), safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipeline.save_pretrained(folder)
    return folder
