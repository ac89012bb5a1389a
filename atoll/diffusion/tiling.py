"""Running a network on a picture piece by piece."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor


def run_tiled(
    run: Callable[[Tensor], Tensor], values: Tensor, tile: tuple[int, int], overlap: int, scale: float
) -> Tensor:
    """A network's answer to a picture, put together from its answers to tiles.

    Args:
        run: (1, channels, height, width) -> (1, any channels, height * scale, width * scale).
        values: (batch, channels, height, width).
        tile: (height, width) of a tile; a picture that fits into one is run whole.
        overlap: how much two neighbours share; there one fades into the other.

    Returns: (batch, channels, height * scale, width * scale), on the device of `run`'s answers.
    """
    pictures = []
    for one in values.split(1):
        size = one.shape[-2:]
        if all(length <= side for length, side in zip(size, tile, strict=True)):
            pictures.append(run(one))
            continue
        total: Tensor | None = None
        weight: Tensor | None = None
        for top, left in product(*(_starts(length, side, overlap) for length, side in zip(size, tile, strict=True))):
            height, width = min(tile[0], size[0] - top), min(tile[1], size[1] - left)
            answer = run(one[..., top : top + height, left : left + width])
            fading = _fading(answer, round(overlap * scale))
            if total is None or weight is None:
                total = answer.new_zeros(1, answer.shape[1], *(round(length * scale) for length in size))
                weight = torch.zeros_like(total)
            place = (
                slice(round(top * scale), round(top * scale) + answer.shape[-2]),
                slice(round(left * scale), round(left * scale) + answer.shape[-1]),
            )
            total[..., place[0], place[1]] += answer * fading
            weight[..., place[0], place[1]] += fading
        if total is not None and weight is not None:
            pictures.append(total / weight)
    return torch.cat(pictures)


def _starts(length: int, side: int, overlap: int) -> list[int]:
    if length <= side:
        return [0]
    return [max(0, min(length - overlap, start)) for start in range(0, length - overlap, side - overlap)]


def _fading(answer: Tensor, reach: int) -> Tensor:
    """1 in the middle, falling to 1 / reach at each border of a tile."""
    fading = torch.ones_like(answer)
    for axis in (2, 3):
        length = fading.shape[axis]
        if reach >= length:
            continue
        ramp = (torch.arange(reach, dtype=fading.dtype, device=fading.device) + 1) / max(reach, 1)
        ramp = ramp[:, None] if axis == 2 else ramp
        fading.narrow(axis, 0, reach).mul_(ramp)
        fading.narrow(axis, length - reach, reach).mul_(ramp.flip(0))
    return fading
