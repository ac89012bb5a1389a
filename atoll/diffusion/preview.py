"""A small look at latents without the VAE: each latent becomes one pixel by a linear map."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from atoll.errors import InvalidRequest

FILE_NAME = "preview.json"  # in a model's folder


@dataclass(frozen=True)
class PreviewMap:
    """colour = latents @ weights + bias, with unscaled latents and colours in [0, 1].

    weights: a row (red, green, blue) for each latent channel.
    """

    weights: tuple[tuple[float, float, float], ...]
    bias: tuple[float, float, float]

    def to_json(self) -> dict[str, Any]:
        return {"weights": self.weights, "bias": self.bias}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PreviewMap:
        rows = [(float(red), float(green), float(blue)) for red, green, blue in data["weights"]]
        red, green, blue = data["bias"]
        return cls(tuple(rows), (float(red), float(green), float(blue)))


def scaled_map(
    rows: tuple[tuple[float, float, float], ...], bias: tuple[float, float, float], factor: float
) -> PreviewMap:
    return PreviewMap(tuple((red * factor, green * factor, blue * factor) for red, green, blue in rows), bias)


# For latents times 0.18215 and colours in [-1, 1].
# Source: keturn, "Decoding latents to RGB without upscaling", discuss.huggingface.co/t/23204.
SD1_PREVIEW = scaled_map(
    ((0.298, 0.207, 0.208), (0.187, 0.286, 0.173), (-0.158, 0.189, 0.264), (-0.184, -0.271, -0.473)),
    (0.5, 0.5, 0.5),
    0.18215 / 2,
)
# For latents times 0.13025 and colours in 0..255. Source: T. A. Vass, "Explaining the SDXL latent space".
SDXL_PREVIEW = scaled_map(
    ((60, 60, 60), (-60, -5, 10), (25, 15, -5), (-70, -50, -35)),
    (150 / 255, 140 / 255, 130 / 255),
    0.13025 / 255,
)
# SD2 kept the VAE of SD1.
KNOWN_PREVIEWS: dict[str, PreviewMap] = {"sd1": SD1_PREVIEW, "sd2": SD1_PREVIEW, "sdxl": SDXL_PREVIEW}


def load_preview_map(folder: Path) -> PreviewMap | None:
    """The map that a model's folder brings along, if any."""
    path = folder / FILE_NAME
    return PreviewMap.from_json(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def fit_preview_map(latents: Tensor, images: Tensor) -> PreviewMap:
    """Find the map for a VAE by least squares.

    Args:
        latents: (batch, channels, height, width), unscaled.
        images: (batch, 3, any height, any width) in [0, 1], the pictures of these latents.
    """
    if len(latents) != len(images):
        raise InvalidRequest(f"There are {len(latents)} latents but {len(images)} images; they must be pairs.")
    colours = functional.adaptive_avg_pool2d(images.float().cpu(), (latents.shape[-2], latents.shape[-1]))
    colours = colours.permute(0, 2, 3, 1).reshape(-1, 3)
    inputs = latents.float().cpu().permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
    solution = torch.linalg.lstsq(
        torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1).double(), colours.double()
    ).solution.tolist()
    return PreviewMap.from_json({"weights": solution[:-1], "bias": solution[-1]})


def latents_to_preview(latents: Tensor, preview_map: PreviewMap | None = None) -> NDArray[np.uint8]:
    """What the first picture of a batch will look like.

    Args:
        latents: (batch, channels, height, width), unscaled.
        preview_map: of the VAE that will decode them; without one, the first channels as grey or colours.

    Returns: (height, width, 3), one pixel for each latent.
    """
    pixels = latents[0].detach().float().cpu().permute(1, 2, 0)
    if preview_map is not None and len(preview_map.weights) == pixels.shape[-1]:
        pixels = pixels @ torch.tensor(preview_map.weights) + torch.tensor(preview_map.bias)
    else:
        shown = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., :1].expand(*pixels.shape[:2], 3)
        spread = shown.std().clamp(min=1e-6)
        pixels = 0.5 + (shown - shown.mean()) / (4 * spread)
    return (pixels.nan_to_num().clamp(0, 1) * 255).round().byte().numpy()
