"""Grids of pictures, to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor


def save_grid(pictures: Tensor, path: Path, *, columns: int) -> None:
    """Write (batch, 3, height, width) pictures in [-1, 1] as one PNG, row by row, with a thin gap."""
    values = ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    gap, (height, width) = 2, values.shape[1:3]
    rows = -(-len(values) // columns)
    grid = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, picture in enumerate(values):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        grid[top : top + height, left : left + width] = picture
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grid).save(path)
