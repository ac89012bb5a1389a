"""Edges in pictures."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

BLUR_TAPS, BLUR_SIGMA = 5, 1.0  # pixels
LUMA = (0.299, 0.587, 0.114)


def find_canny_edges(image: Tensor, low: float, high: float) -> Tensor:
    """Lines one pixel wide where the brightness changes.

    Args:
        image: (batch, 3, height, width) in [0, 1].
        low, high: of the change: below `low` there is no edge, above `high` there is one, between there is one if it
            is joined to such a one.

    Returns: (batch, 1, height, width) of 0 and 1.
    Source: Canny 1986, "A computational approach to edge detection": Gaussian, Sobel, thinning, hysteresis.
    """
    grey = (image * image.new_tensor(LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    at = torch.arange(BLUR_TAPS, dtype=grey.dtype, device=grey.device) - BLUR_TAPS // 2
    taps = torch.exp(-(at**2) / (2 * BLUR_SIGMA**2))
    taps = taps / taps.sum()
    grey = functional.conv2d(_bordered(grey, BLUR_TAPS // 2, "reflect"), (taps[:, None] * taps[None, :])[None, None])
    across = grey.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    bordered = _bordered(grey, 1, "replicate")
    change_x = functional.conv2d(bordered, across[None, None])
    change_y = functional.conv2d(bordered, across.T[None, None].contiguous())
    change = (change_x**2 + change_y**2 + 1e-6).sqrt()

    # Of each pixel and its two neighbours along the change, only the greatest stays.
    direction = (torch.atan2(change_y, change_x) * (4 / torch.pi)).round().long() % 4
    around = functional.pad(change, (1, 1, 1, 1))
    height, width = change.shape[-2:]
    thin = torch.zeros_like(change)
    for number, (down, right) in enumerate(((0, 1), (1, 1), (1, 0), (1, -1))):
        ahead = around[..., 1 + down : 1 + down + height, 1 + right : 1 + right + width]
        behind = around[..., 1 - down : 1 - down + height, 1 - right : 1 - right + width]
        is_greatest = (direction == number) & (change > ahead) & (change > behind)
        thin = torch.where(is_greatest, change, thin)

    edges, candidates = thin > high, thin > low
    while True:  # strong edges reach on along weak ones
        reached = (functional.max_pool2d(edges.float(), 3, stride=1, padding=1) > 0) & candidates | edges
        if bool((reached == edges).all()):
            return edges.float()
        edges = reached


def _bordered(grey: Tensor, pixels: int, mode: str) -> Tensor:
    """Mirrored or repeated beyond the border; what is too small for a mirror is repeated."""
    mode = mode if pixels < min(grey.shape[-2:]) else "replicate"
    return functional.pad(grey, (pixels,) * 4, mode=mode)
