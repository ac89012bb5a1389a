"""Training a U-Net from nothing: it learns to denoise latents as a caption says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from atoll.diffusion.conditioning import Conditioning
from atoll.diffusion.model import Model
from atoll.diffusion.sample import sample_latents
from atoll.diffusion.sigmas import NoiseSchedule
from atoll.training.loop import LoopOptions, Progress, run_training, training_device
from atoll.training.noising import PredictionType, add_noise, build_alphas_cumprod, draw_timesteps, prediction_target
from atoll.training.pictures import CAPTIONS, PictureFactory, build_caption, pictures_to_tensor
from atoll.training.sample_grid import save_grid
from atoll.training.text_training import encode_captions

ENCODE_BATCH = 16
CAPTIONS_KEPT = 20_000  # 40 KB each at a width of 128
SAMPLE_STEPS = 20
SAMPLE_GUIDANCE = 3.0
SAMPLES = 16


@dataclass(frozen=True)
class UnetOptions:
    """Shape of the U-Net, finest level first. attention_head_dim is the number of heads, as in SD 1.x files.

    text_in_time_embedding: the caption also reaches every block with the timestep, pooled. A small network learns what
    a caption asks for much sooner that way than by cross-attention alone.
    """

    block_out_channels: tuple[int, ...]
    layers_per_block: int
    down_block_types: tuple[str, ...]
    attention_head_dim: int
    norm_num_groups: int
    text_in_time_embedding: bool = False


@dataclass(frozen=True)
class LatentSet:
    """Encoded pictures: latents (count, channels, height, width), scaled; which drawing and background each shows."""

    latents: Tensor
    sprites: Tensor
    backgrounds: list[str]


def build_unet(options: UnetOptions, latent_channels: int, latent_size: int, text_width: int) -> UNet2DConditionModel:
    """A fresh U-Net of that shape."""
    return UNet2DConditionModel(
        sample_size=latent_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        cross_attention_dim=text_width,
        block_out_channels=options.block_out_channels,
        layers_per_block=options.layers_per_block,
        down_block_types=options.down_block_types,
        up_block_types=tuple(kind.replace("Down", "Up") for kind in reversed(options.down_block_types)),
        attention_head_dim=options.attention_head_dim,
        norm_num_groups=options.norm_num_groups,
        addition_embed_type="text" if options.text_in_time_embedding else None,
        addition_embed_type_num_heads=options.attention_head_dim,
    )


def build_scheduler(prediction_type: PredictionType) -> DDIMScheduler:
    """The scheduler configuration that goes with `build_alphas_cumprod`."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )


def encode_pictures(
    pictures: PictureFactory, vae: AutoencoderKL, per_sprite: int, *, seed: int, say: Callable[[str], None] = print
) -> LatentSet:
    """Draw every drawing on `per_sprite` backgrounds, each in turn, and encode the pictures once for all epochs."""
    random = np.random.default_rng(seed)
    names = list(pictures.backgrounds)
    plan = [
        (sprite, names[(sprite + turn) % len(names)])
        for sprite in range(len(pictures.sprites))
        for turn in range(per_sprite)
    ]
    encoded = []
    for start in range(0, len(plan), ENCODE_BATCH):
        drawn = np.stack([pictures.draw(*row, random) for row in plan[start : start + ENCODE_BATCH]])
        with torch.inference_mode():
            encoded.append(vae.encode(pictures_to_tensor(drawn)).latent_dist.mode())
        if start % (50 * ENCODE_BATCH) == 0:
            say(f"encoded {start} of {len(plan)} pictures")
    latents = torch.cat(encoded) * vae.config.scaling_factor
    return LatentSet(latents.clone(), torch.tensor([sprite for sprite, _ in plan]), [name for _, name in plan])


def train_from_scratch(
    pictures: PictureFactory,
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel,
    unet_options: UnetOptions,
    loop: LoopOptions,
    folder: Path,
    *,
    prediction_type: PredictionType,
    latents_per_caption: int,
    conditioning_dropout: float,
    seed: int,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> UNet2DConditionModel:
    """Train the U-Net; states, log and sample grids go to `folder`.

    Args:
        vae, text_encoder: trained before, and left as they are.
        conditioning_dropout: share of the captions replaced by an empty one, which is what makes guidance possible.

    Returns: the averaged U-Net.
    """
    torch.manual_seed(seed)
    device = training_device()
    text_encoder = text_encoder.to(device).eval()
    text_width = text_encoder.config.hidden_size
    unet = build_unet(unet_options, vae.config.latent_channels, pictures.picture_size // 8, text_width).to(device)
    data = load_or_encode(pictures, vae, latents_per_caption, folder, seed=seed)
    alphas_cumprod = build_alphas_cumprod().to(device)

    @lru_cache(CAPTIONS_KEPT)
    def told(caption: str) -> Tensor:
        """(77, width). One at a time, so that it does not depend on the batch, which a resumed run could tell."""
        with torch.no_grad():
            return encode_captions(tokenizer, text_encoder, [caption])[0]

    def compute_loss(step: int, generator: torch.Generator) -> Tensor:
        picked = torch.randint(len(data.latents), (loop.batch_size,), generator=generator)
        random = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        captions = [
            ""
            if random.random() < conditioning_dropout
            else pictures.caption(int(data.sprites[index]), data.backgrounds[index], random)
            for index in picked.tolist()
        ]
        latents = data.latents[picked].to(device)
        noise = torch.randn(latents.shape, generator=generator).to(device)
        timesteps = draw_timesteps(len(latents), len(alphas_cumprod), generator).to(device)
        embeds = torch.stack([told(caption) for caption in captions])
        predicted = unet(add_noise(latents, noise, timesteps, alphas_cumprod), timesteps, embeds).sample
        return F.mse_loss(
            predicted.float(), prediction_target(latents, noise, timesteps, alphas_cumprod, prediction_type)
        )

    captions = pick_sample_captions(pictures, SAMPLES, seed)
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    (folder / "samples" / "captions.txt").write_text("\n".join(captions) + "\n", encoding="utf-8")

    def on_sample(step: int, averaged: nn.Module) -> None:
        assert isinstance(averaged, UNet2DConditionModel)
        drawn = draw_captions(averaged, text_encoder, vae, tokenizer, captions, prediction_type, seed=seed)
        save_grid(drawn, folder / "samples" / f"step-{step:06d}.png", columns=8)

    averaged = run_training(unet, compute_loss, loop, folder, seed=seed, on_progress=on_progress, on_sample=on_sample)
    assert isinstance(averaged, UNet2DConditionModel)
    return averaged.cpu()


def load_or_encode(
    pictures: PictureFactory, vae: AutoencoderKL, per_sprite: int, folder: Path, *, seed: int
) -> LatentSet:
    """The encoded pictures, kept in `folder` because a resumed run must see the same."""
    path = folder / f"latents-{per_sprite}.pt"
    if path.is_file():
        return LatentSet(**torch.load(path, weights_only=True))
    folder.mkdir(parents=True, exist_ok=True)
    data = encode_pictures(pictures, vae, per_sprite, seed=seed)
    partial = path.with_suffix(".partial")
    torch.save(vars(data), partial)
    partial.replace(path)
    return data


def pick_sample_captions(pictures: PictureFactory, count: int, seed: int) -> list[str]:
    """Captions of drawings and backgrounds spread over the set."""
    random = np.random.default_rng(seed)
    names = list(pictures.backgrounds)
    chosen = random.choice(len(pictures.sprites), count, replace=len(pictures.sprites) < count)
    return [
        build_caption(CAPTIONS[0], pictures.sprites[sprite], names[n % len(names)]) for n, sprite in enumerate(chosen)
    ]


@torch.inference_mode()
def draw_captions(
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    captions: list[str],
    prediction_type: PredictionType,
    *,
    seed: int,
) -> Tensor:
    """Pictures for captions: (captions, 3, height, width) in [-1, 1]."""
    scheduler = build_scheduler(prediction_type)
    model = Model(
        unet,
        NoiseSchedule.from_config(dict(scheduler.config)),
        scaling_factor=vae.config.scaling_factor,
        device=unet.device,
    )
    embeds = encode_captions(tokenizer, text_encoder, ["", *captions])
    drawn = []
    for index in range(len(captions)):
        latents = sample_latents(
            model,
            [Conditioning(embeds[index + 1 : index + 2])],
            [Conditioning(embeds[:1])],
            torch.zeros(1, unet.config.in_channels, unet.config.sample_size, unet.config.sample_size),
            seed=seed + index,
            num_inference_steps=SAMPLE_STEPS,
            guidance_scale=SAMPLE_GUIDANCE,
            sampler="euler",
            schedule="normal",
        )
        drawn.append(vae.decode(latents.to(vae.device)).sample)
    return torch.cat(drawn)
