"""What a model trained on drawings has learnt, in numbers.

A picture made for a caption is compared with every training drawing, set on the caption's background. The comparison is
made in a space that no part of the model was trained in: outlines as histograms of oriented gradients (Dalal and Triggs
2005), which say what a thing is whatever its colours, and a coarse colour picture, which tells an orange from an apple.
How far the space itself can be trusted is measured by the same search for drawings placed anew: `ceiling`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from atoll.training.pictures import CAPTIONS, PictureFactory, build_caption, pictures_to_tensor

ORIENTATIONS = 9  # bins over half a turn
CELL = 8  # pixels
COLOUR_SIZE = 16  # pixels, side of the coarse colour picture
COLOUR_WEIGHT = 1.0

Draw = Callable[[str, int], np.ndarray]  # (caption, seed) -> (height, width, 3) uint8


@dataclass(frozen=True)
class Prompt:
    """A caption with what it asks for."""

    sprite: int
    background: str
    caption: str


@dataclass(frozen=True)
class Quality:
    """Shares in 0..1, seconds and decibels."""

    prompts: int
    top1: float
    top5: float
    ceiling_top1: float
    ceiling_top5: float
    vae_psnr_db: float
    seconds_per_picture: float


def describe_pictures(pictures: Tensor) -> Tensor:
    """(batch, 3, height, width) in [-1, 1] -> (batch, features), each row of length 1."""
    grey = pictures.mean(dim=1, keepdim=True)
    across = F.pad(grey[..., 2:] - grey[..., :-2], (1, 1, 0, 0))
    down = F.pad(grey[..., 2:, :] - grey[..., :-2, :], (0, 0, 1, 1))
    strength = (across**2 + down**2).sqrt()
    orientation = torch.atan2(down, across).remainder(math.pi) / math.pi * ORIENTATIONS
    bins = F.one_hot(orientation.long().clamp(max=ORIENTATIONS - 1).squeeze(1), ORIENTATIONS).movedim(-1, 1)
    outlines = F.avg_pool2d(bins * strength, CELL)
    outlines = outlines / (outlines.norm(dim=1, keepdim=True) + 0.05)
    colours = F.interpolate(pictures, (COLOUR_SIZE, COLOUR_SIZE), mode="area")
    outlines = F.normalize(outlines.flatten(1), dim=1)
    colours = F.normalize(colours.flatten(1), dim=1) * COLOUR_WEIGHT
    return F.normalize(torch.cat([outlines, colours], dim=1), dim=1)


def pick_prompts(pictures: PictureFactory, count: int, seed: int) -> list[Prompt]:
    """`count` captions over concepts drawn without repeats, every style and background in turn."""
    random = np.random.default_rng(seed)
    names = list(pictures.backgrounds)
    concepts = list(dict.fromkeys(sprite.concept for sprite in pictures.sprites))
    styles = list(dict.fromkeys(sprite.style for sprite in pictures.sprites))
    index = {(sprite.concept, sprite.style): n for n, sprite in enumerate(pictures.sprites)}
    prompts = []
    for n, concept in enumerate(random.choice(concepts, count, replace=count > len(concepts))):
        sprite, background = index[str(concept), styles[n % len(styles)]], names[n % len(names)]
        prompts.append(Prompt(sprite, background, build_caption(CAPTIONS[0], pictures.sprites[sprite], background)))
    return prompts


def measure_quality(pictures: PictureFactory, vae: AutoencoderKL, draw: Draw, prompts: Sequence[Prompt]) -> Quality:
    """Draw each prompt once and compare; see the module's words for how.

    Concepts that share their words in captions count as one.
    """
    gallery = {name: _describe_gallery(pictures, name) for name in pictures.backgrounds}
    found, ceiling, seconds = [], [], []
    random = np.random.default_rng(7)
    for seed, prompt in enumerate(prompts):
        start = time.perf_counter()
        drawn = draw(prompt.caption, seed)
        seconds.append(time.perf_counter() - start)
        found.append(_rank(drawn, prompt, pictures, gallery))
        ceiling.append(_rank(pictures.draw(prompt.sprite, prompt.background, random), prompt, pictures, gallery))
    top1, top5 = np.mean(found, axis=0)
    ceiling_top1, ceiling_top5 = np.mean(ceiling, axis=0)
    return Quality(
        prompts=len(prompts),
        top1=float(top1),
        top5=float(top5),
        ceiling_top1=float(ceiling_top1),
        ceiling_top5=float(ceiling_top5),
        vae_psnr_db=measure_vae_psnr(pictures, vae),
        seconds_per_picture=float(np.median(seconds)),
    )


@torch.inference_mode()
def measure_vae_psnr(pictures: PictureFactory, vae: AutoencoderKL, count: int = 64) -> float:
    """Mean peak signal-to-noise ratio, in dB, of newly drawn pictures after encode and decode."""
    batch = pictures.draw_batch(count, np.random.default_rng(99))
    restored = vae(batch.to(vae.dtype)).sample.float().clamp(-1, 1)
    error = ((restored - batch) / 2).pow(2).mean(dim=(1, 2, 3))
    return float((-10 * error.log10()).mean())


def _describe_gallery(pictures: PictureFactory, background: str) -> Tensor:
    random = np.random.default_rng(1)
    drawn = np.stack([pictures.draw(sprite, background, random) for sprite in range(len(pictures.sprites))])
    return describe_pictures(pictures_to_tensor(drawn))


def _rank(drawn: np.ndarray, prompt: Prompt, pictures: PictureFactory, gallery: dict[str, Tensor]) -> tuple[bool, bool]:
    """Whether the nearest drawing, and whether one of the nearest five, is of the concept."""
    likeness = gallery[prompt.background] @ describe_pictures(pictures_to_tensor(drawn[None]))[0]
    wanted = pictures.sprites[prompt.sprite].words
    right = [pictures.sprites[index].words == wanted for index in likeness.topk(min(5, len(likeness))).indices.tolist()]
    return right[0], any(right)
