"""Training the autoencoder: pictures to latents of an eighth of the size, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from atoll.training.loop import LoopOptions, Progress, run_training, training_device
from atoll.training.pictures import PictureFactory
from atoll.training.sample_grid import save_grid


@dataclass(frozen=True)
class VaeOptions:
    """Shape and recipe of the autoencoder. Widths from finest level to coarsest; each level but the last halves."""

    block_out_channels: tuple[int, ...]
    layers_per_block: int
    norm_num_groups: int
    latent_channels: int
    crop_size: int
    whole_picture_from: float
    kl_weight: float
    edge_weight: float


def build_vae(options: VaeOptions, picture_size: int) -> AutoencoderKL:
    """A fresh AutoencoderKL of that shape."""
    levels = len(options.block_out_channels)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=options.latent_channels,
        block_out_channels=options.block_out_channels,
        layers_per_block=options.layers_per_block,
        norm_num_groups=options.norm_num_groups,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        sample_size=picture_size,
    )


def train_vae(
    pictures: PictureFactory,
    options: VaeOptions,
    loop: LoopOptions,
    folder: Path,
    *,
    seed: int,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> AutoencoderKL:
    """Train an autoencoder on drawn pictures; states, log and sample grids go to `folder`.

    Returns: the averaged autoencoder, with `scaling_factor` set so that latents have unit variance.
    Source: Rombach et al. 2022, arXiv:2112.10752, section 3.1, without its adversarial term.
    """
    torch.manual_seed(seed)
    device = training_device()
    vae = build_vae(options, pictures.picture_size).to(device)

    def compute_loss(step: int, generator: torch.Generator) -> Tensor:
        random = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        whole = step >= loop.steps * options.whole_picture_from
        # A whole picture has (picture_size / crop_size)^2 times the pixels of a crop: fewer of them cost the same.
        count = max(1, loop.batch_size * options.crop_size**2 // pictures.picture_size**2) if whole else loop.batch_size
        batch = pictures.draw_batch(count, random)
        if not whole:
            top, left = random.integers(pictures.picture_size - options.crop_size + 1, size=2)
            batch = batch[:, :, top : top + options.crop_size, left : left + options.crop_size]
        batch = batch.to(device)
        posterior = vae.encode(batch).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
        restored = vae.decode(posterior.mean + posterior.std * noise).sample.float()
        divergence = posterior.kl().float().mean() / batch[0].numel()
        return (
            F.l1_loss(restored, batch)
            + F.mse_loss(restored, batch)
            + options.edge_weight * edge_loss(restored, batch)
            + options.kl_weight * divergence
        )

    shown = pictures.draw_batch(16, np.random.default_rng(seed))

    def on_sample(step: int, averaged: nn.Module) -> None:
        with torch.inference_mode():
            restored = averaged(shown.to(device)).sample.cpu()
        save_grid(torch.cat([shown, restored]), folder / "samples" / f"step-{step:06d}.png", columns=8)

    averaged = run_training(vae, compute_loss, loop, folder, seed=seed, on_progress=on_progress, on_sample=on_sample)
    assert isinstance(averaged, AutoencoderKL)
    averaged.cpu()
    averaged.register_to_config(scaling_factor=measure_scaling_factor(averaged, shown))
    return averaged


def edge_loss(restored: Tensor, target: Tensor) -> Tensor:
    """How far the differences of neighbouring pixels are off, so that outlines stay sharp.

    Args: both (batch, channels, height, width).
    """
    difference = restored - target
    return difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()


@torch.inference_mode()
def measure_scaling_factor(vae: AutoencoderKL, pictures: Tensor) -> float:
    """1 / standard deviation of the latents of (batch, 3, height, width) pictures in [-1, 1]."""
    return float(1 / vae.encode(pictures).latent_dist.mode().std())
