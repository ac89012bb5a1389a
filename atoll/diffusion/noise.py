"""Random numbers. Always drawn on the CPU in float32, so that every host gives the same picture.

Two rules say what a seed means for a batch:

- "batch" (ComfyUI): one generator draws the whole batch, so picture 3 of seed 7 is not picture 0 of seed 10.
- "per_image" (A1111): picture i is drawn as if alone with seed + i; a `Variation` turns it towards another seed's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
import torchsde
from torch import Tensor

from atoll.diffusion.denoiser import DrawNoise
from atoll.errors import InvalidRequest

NoiseRule = Literal["batch", "per_image"]

SEED_RANGE = 2**64  # seeds are 0..2^64-1


@dataclass(frozen=True)
class Variation:
    """What A1111 calls the extras of a seed, for the "per_image" rule.

    strength: 0..1, how far the noise is turned towards that of the subseed. Above 0 every picture has the same seed,
        and picture i the subseed + i.
    resize_from: (height, width) of latents; what the seed would draw at that size lies in the middle of the noise.
    """

    subseed: int = 0
    strength: float = 0.0
    resize_from: tuple[int, int] | None = None


def check_seed(seed: int) -> None:
    """Raises: InvalidRequest for a seed that no generator takes."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < SEED_RANGE:
        raise InvalidRequest(f"seed is {seed}; it must be a whole number in 0..{SEED_RANGE - 1}.")


def seeded_generator(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed % SEED_RANGE)


def seeds_of_images(
    seed: int, shape: Sequence[int], batch_index: Sequence[int] | None, variation: Variation | None = None
) -> list[int]:
    """One seed for each picture under the "per_image" rule."""
    if variation is not None and variation.strength > 0:
        return [seed] * shape[0]
    positions = range(shape[0]) if batch_index is None else batch_index
    return [(seed + position) % SEED_RANGE for position in positions]


def draw_start_noise(
    shape: Sequence[int],
    seed: int,
    *,
    rule: NoiseRule = "batch",
    batch_index: Sequence[int] | None = None,
    variation: Variation | None = None,
) -> Tensor:
    """Unit noise for a batch of latents. variation: only under the "per_image" rule.

    Args:
        shape: (batch, channels, height, width).
        batch_index: which pictures of a larger batch these are, so that one of them can be made again alone.

    Returns: float32 on the CPU.
    """
    check_seed(seed)
    if batch_index is not None and len(batch_index) != shape[0]:
        raise InvalidRequest(f"batch_index names {len(batch_index)} pictures, but the batch has {shape[0]}.")
    if rule == "per_image":
        seeds = seeds_of_images(seed, shape, batch_index, variation)
        if variation is None:
            return torch.stack([_draw_image(shape[1:], each) for each in seeds])
        subseeds = seeds_of_images(variation.subseed, shape, batch_index)
        return torch.stack(
            [_draw_varied(shape[1:], each, sub, variation) for each, sub in zip(seeds, subseeds, strict=True)]
        )
    generator = seeded_generator(seed)
    if batch_index is None:
        return torch.randn(*shape, generator=generator)
    wanted = set(batch_index)
    drawn = {}
    for position in range(max(wanted) + 1):
        noise = torch.randn(1, *shape[1:], generator=generator)
        if position in wanted:
            drawn[position] = noise
    return torch.cat([drawn[position] for position in batch_index])


def next_seed(seed: int) -> int:
    return (seed + 1) % SEED_RANGE


def _draw_image(shape: Sequence[int], seed: int) -> Tensor:
    return torch.randn(*shape, generator=seeded_generator(seed))


def _draw_varied(shape: Sequence[int], seed: int, subseed: int, variation: Variation) -> Tensor:
    """(channels, height, width) of one picture."""
    channels, height, width = shape
    drawn_height, drawn_width = variation.resize_from or (height, width)
    noise = _draw_image((channels, drawn_height, drawn_width), seed)
    if variation.strength > 0:
        noise = turn_towards(noise, _draw_image(noise.shape, subseed), variation.strength)
    if (drawn_height, drawn_width) == (height, width):
        return noise
    whole = _draw_image(shape, seed)
    down, right = (height - drawn_height) // 2, (width - drawn_width) // 2
    shown_height = drawn_height if down >= 0 else drawn_height + 2 * down
    shown_width = drawn_width if right >= 0 else drawn_width + 2 * right
    top, left = max(down, 0), max(right, 0)
    from_top, from_left = max(-down, 0), max(-right, 0)
    shown = noise[:, from_top : from_top + shown_height, from_left : from_left + shown_width]
    whole[:, top : top + shown.shape[1], left : left + shown.shape[2]] = shown
    return whole


def turn_towards(noise: Tensor, other: Tensor, share: float) -> Tensor:
    """Spherical interpolation of (channels, height, width), each column of a channel by its own angle.

    A1111's rule; nearly equal noises are mixed straight, and there `share` counts for the first.
    """
    first, second = noise / noise.norm(dim=1, keepdim=True), other / other.norm(dim=1, keepdim=True)
    cosine = (first * second).sum(dim=1)
    if cosine.mean() > 0.9995:
        return noise * share + other * (1 - share)
    angle = cosine.acos()
    return ((1 - share) * angle).sin().div(angle.sin()).unsqueeze(1) * noise + (share * angle).sin().div(
        angle.sin()
    ).unsqueeze(1) * other


def independent_noise(
    latents: Tensor, seed: int, *, rule: NoiseRule = "batch", batch_index: Sequence[int] | None = None
) -> DrawNoise:
    """Fresh noise at every call, for ancestral samplers.

    "batch": one generator from the seed, as ComfyUI does it; its first draw is the start noise again.
    "per_image": each picture's generator goes on where its start noise ended, as A1111 does it.
    """
    if rule == "per_image":
        generators = [seeded_generator(each) for each in seeds_of_images(seed, latents.shape, batch_index)]
        shape = (1, *latents.shape[1:])
        for generator in generators:
            torch.randn(*shape, generator=generator)
    else:
        generators = [seeded_generator(seed)]
        shape = tuple(latents.shape)

    def draw(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        return torch.cat([torch.randn(*shape, generator=each) for each in generators]).to(latents)

    return draw


def brownian_noise(
    latents: Tensor,
    sigmas: Tensor,
    seed: int,
    *,
    rule: NoiseRule = "batch",
    batch_index: Sequence[int] | None = None,
) -> DrawNoise:
    """Increments of one Brownian motion over sigma, for SDE solvers: the path is the seed's, however it is cut.

    Source: the Brownian tree of torchsde; k-diffusion takes sigma for its time.
    """
    seeds = seeds_of_images(seed, latents.shape, batch_index) if rule == "per_image" else [seed]
    shape = (1, *latents.shape[1:]) if rule == "per_image" else tuple(latents.shape)
    low, high = brownian_time(sigmas[sigmas > 0].min()), brownian_time(sigmas.max())

    @cache  # not before it is asked for: a walk of one step has no way between two sigmas above 0
    def trees() -> list[torchsde.BrownianTree]:
        return [torchsde.BrownianTree(low, torch.zeros(shape), high, entropy=each) for each in seeds]

    def draw(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        start, end = sorted((brownian_time(sigma), brownian_time(sigma_next)))
        increment = torch.cat([tree(start, end) for tree in trees()]).to(latents)
        return increment * (sigma_next - sigma).sign() / (sigma_next - sigma).abs().sqrt()

    return draw


def brownian_time(sigma: Tensor) -> float:
    """Rounded as the tree rounds, which else complains about times that lie a rounding outside of it."""
    return round(float(sigma), 6)
