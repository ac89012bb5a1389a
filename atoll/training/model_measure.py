"""Measuring an exported model through the engine, as the studio would run it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from atoll.diffusion.checkpoint import Checkpoint, load_checkpoint
from atoll.diffusion.sample import sample_latents
from atoll.diffusion.text import encode_prompt
from atoll.training.pictures import PictureFactory, pictures_to_tensor
from atoll.training.quality import Quality, measure_quality, pick_prompts
from atoll.training.sample_grid import save_grid

STEPS = 20
GUIDANCE_SCALE = 2.0
GRID = 64


def measure_model(pictures: PictureFactory, model: Path, folder: Path, *, prompts: int, seed: int) -> Quality:
    """Draw `prompts` pictures and write `quality.json`, `prompts.txt` and a grid of the first 64 into `folder`."""
    checkpoint = load_checkpoint(model)
    drawn: list[np.ndarray] = []

    def draw(caption: str, picture_seed: int) -> np.ndarray:
        drawn.append(draw_picture(checkpoint, caption, seed=picture_seed, size=pictures.picture_size))
        return drawn[-1]

    draw_picture(checkpoint, "warm up", seed=0, size=pictures.picture_size)
    chosen = pick_prompts(pictures, prompts, seed)
    quality = measure_quality(pictures, checkpoint.vae.network, draw, chosen)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "quality.json").write_text(json.dumps(asdict(quality), indent=1) + "\n", encoding="utf-8")
    (folder / "prompts.txt").write_text("".join(prompt.caption + "\n" for prompt in chosen), encoding="utf-8")
    save_grid(pictures_to_tensor(np.stack(drawn[1 : GRID + 1])), folder / "grid.png", columns=8)
    return quality


def draw_picture(checkpoint: Checkpoint, caption: str, *, seed: int, size: int) -> np.ndarray:
    """One picture for a caption: (size, size, 3) uint8."""
    with torch.inference_mode():
        latents = sample_latents(
            checkpoint.model,
            [encode_prompt(checkpoint.text_encoder, caption)],
            [encode_prompt(checkpoint.text_encoder, "")],
            torch.zeros(1, checkpoint.model.latent_channels, size // 8, size // 8),
            seed=seed,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE_SCALE,
            sampler="euler",
            schedule="normal",
        )
        return _to_uint8(checkpoint.vae.decode_latents(latents))


def _to_uint8(image: Tensor) -> np.ndarray:
    return (image[0].float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
