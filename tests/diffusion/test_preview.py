from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from atoll.diffusion.preview import (
    KNOWN_PREVIEWS,
    SD1_PREVIEW,
    SDXL_PREVIEW,
    PreviewMap,
    fit_preview_map,
    latents_to_preview,
    load_preview_map,
)
from atoll.errors import InvalidRequest

MAP = PreviewMap(((0.1, 0.0, 0.02), (0.0, 0.2, 0.0), (-0.05, 0.0, 0.1), (0.0, 0.03, 0.0)), (0.5, 0.4, 0.6))


def test_a_linear_vae_s_map_is_found_again():
    latents = torch.randn(4, 4, 8, 8)
    colours = latents.permute(0, 2, 3, 1) @ torch.tensor(MAP.weights) + torch.tensor(MAP.bias)
    images = torch.nn.functional.interpolate(colours.permute(0, 3, 1, 2), scale_factor=8)
    found = fit_preview_map(latents, images)
    torch.testing.assert_close(torch.tensor(found.weights), torch.tensor(MAP.weights), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.tensor(found.bias), torch.tensor(MAP.bias), atol=1e-5, rtol=0)
    with pytest.raises(InvalidRequest, match="4 latents but 3 images"):
        fit_preview_map(latents, images[:3])


def test_a_map_survives_its_file(tmp_path: Path):
    (tmp_path / "preview.json").write_text(json.dumps(MAP.to_json()), encoding="utf-8")
    assert load_preview_map(tmp_path) == MAP
    assert load_preview_map(tmp_path / "missing") is None


def test_the_first_picture_of_a_batch_is_shown_one_pixel_for_each_latent():
    latents = torch.zeros(2, 4, 5, 7)
    latents[0, 1, 2, 3] = 1.0
    shown = latents_to_preview(latents, MAP)
    assert shown.shape == (5, 7, 3)
    assert shown.dtype == np.uint8
    assert shown[0, 0].tolist() == [128, 102, 153]
    assert shown[2, 3].tolist() == [128, 153, 153]


def test_known_maps_take_unscaled_latents():
    unit_sd1 = torch.zeros(1, 4, 1, 1)
    unit_sd1[0, 0] = 1 / 0.18215
    assert latents_to_preview(unit_sd1, SD1_PREVIEW)[0, 0].tolist() == [165, 154, 154]  # (1 + 0.298) / 2 and so on
    unit_sdxl = torch.zeros(1, 4, 1, 1)
    unit_sdxl[0, 3] = 1 / 0.13025
    assert latents_to_preview(unit_sdxl, SDXL_PREVIEW)[0, 0].tolist() == [80, 90, 95]  # 150 - 70 and so on
    assert set(KNOWN_PREVIEWS) == {"sd1", "sd2", "sdxl"}


@pytest.mark.parametrize("channels", [1, 3, 4, 16])
def test_without_a_fitting_map_something_is_shown_all_the_same(channels: int):
    shown = latents_to_preview(torch.randn(1, channels, 6, 6) * 30, MAP if channels != 4 else None)
    assert shown.shape == (6, 6, 3)
    assert shown.std() > 20


def test_nonsense_is_shown_without_failing():
    assert latents_to_preview(torch.full((1, 4, 2, 2), float("nan")), MAP).shape == (2, 2, 3)
