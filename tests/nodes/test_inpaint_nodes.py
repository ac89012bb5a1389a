"""Changing a part of a picture and leaving the rest alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from node_context import RecordingContext
from torch.nn import functional

from atoll.errors import InvalidRequest
from atoll.nodes import inpaint, latents


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def square_mask(height: int, width: int, top: int, left: int, side: int) -> torch.Tensor:
    mask = torch.zeros(1, height, width)
    mask[:, top : top + side, left : left + side] = 1
    return mask


@pytest.fixture
def vae(context: RecordingContext) -> Any:
    return context.models.vae("tiny")


def test_encoding_for_inpainting_greys_the_mask_and_grows_it(vae: Any) -> None:
    pixels, mask = noise(1, 37, 42, 3), square_mask(37, 42, 10, 12, 9)
    encoded = inpaint.encode_for_inpainting(pixels, vae, mask, grow_mask_by=6)
    # 37 x 42 loses 5 rows and 2 columns: 2 at the top, 1 on the left.
    cut, cut_mask = pixels[:, 2:34, 1:41], mask[:, 2:34, 1:41]
    grey = torch.where(cut_mask[..., None] > 0, 0.5, cut)
    assert torch.equal(encoded["samples"], vae.encode_image(grey.movedim(-1, 1)))
    grown = encoded["noise_mask"]
    assert grown.shape == (1, 1, 32, 40)
    assert set(grown.unique().tolist()) == {0.0, 1.0}
    # A kernel of 6 reaches 3 pixels to the one side and 2 to the other: 9 + 5 = 14 along each axis.
    assert grown.sum() == 14 * 14
    assert (grown[0, 0] >= cut_mask[0]).all()


def test_a_mask_is_not_grown_by_zero_and_comes_from_any_size(vae: Any) -> None:
    mask = square_mask(8, 8, 2, 2, 4)
    encoded = inpaint.encode_for_inpainting(noise(1, 32, 32, 3), vae, mask, grow_mask_by=0)
    scaled = functional.interpolate(mask[None], size=(32, 32), mode="bilinear")
    assert torch.equal(encoded["noise_mask"], scaled.round())


def test_an_inpainting_model_is_told_mask_and_surroundings(context: RecordingContext, vae: Any) -> None:
    from atoll.diffusion.conditioning import Conditioning

    pixels, mask = noise(1, 16, 16, 3), square_mask(16, 16, 4, 4, 8)
    said = [Conditioning(torch.zeros(1, 77, 32))]
    positive, negative, latent = inpaint.condition_on_masked_picture(said, said, vae, pixels, mask)
    grey = torch.where(mask[..., None] > 0, 0.5, pixels).movedim(-1, 1)
    for conditionings in (positive, negative):
        assert torch.equal(conditionings[0].inpaint_mask, mask[:, None])
        assert torch.equal(conditionings[0].masked_latents, vae.encode_image(grey))
    assert torch.equal(latent["samples"], vae.encode_image(pixels.movedim(-1, 1)))
    assert torch.equal(latent["noise_mask"], mask[:, None])
    assert said[0].inpaint_mask is None
    *_, unmasked = inpaint.condition_on_masked_picture(said, said, vae, pixels, mask, noise_mask=False)
    assert "noise_mask" not in unmasked


def test_a_noise_mask_is_set_beside_the_samples(vae: Any) -> None:
    start = latents.empty_latents(width=64, height=32, batch_size=2)
    masked = latents.set_noise_mask(start, square_mask(32, 64, 0, 0, 8))
    assert masked["noise_mask"].shape == (1, 1, 32, 64)
    assert "noise_mask" not in start
    assert start["samples"].shape == (2, 4, 4, 8)


def test_blurring_softens_only_the_border() -> None:
    mask = square_mask(64, 64, 16, 16, 32)
    blurred = inpaint.blur_mask(mask, radius=2)
    assert torch.equal(inpaint.blur_mask(mask, radius=0), mask)
    assert blurred[0, 32, 32] == pytest.approx(1)
    assert blurred[0, 0, 0] == 0
    assert blurred[0, 32, 15] == pytest.approx(0.4, abs=0.1)
    assert blurred.sum() == pytest.approx(mask.sum().item(), rel=1e-3)
    assert inpaint.blur_mask(torch.ones(1, 8, 8), radius=256).min() == pytest.approx(1)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (40, 5), (50, 80)])
def test_only_masked_goes_there_and_back_and_the_rest_stays_byte_for_byte(top: int, left: int) -> None:
    image = noise(1, 64, 96, 3)
    mask = inpaint.blur_mask(square_mask(64, 96, top, left, 14), radius=2)
    part, part_mask, region = inpaint.crop_to_mask(image, mask, width=32, height=32, padding=4)
    assert (part.shape, part_mask.shape) == ((1, 32, 32, 3), (1, 32, 32))
    assert region.width == region.height
    assert 0 <= region.left <= region.left + region.width <= 96
    assert 0 <= region.top <= region.top + region.height <= 64
    changed = inpaint.paste_back(image, torch.ones(2, 32, 32, 3), mask, region)
    assert changed.shape == (2, 64, 96, 3)
    kept = (mask == 0)[0]
    assert torch.equal(changed[:, kept], image[:, kept].expand(2, -1, -1))
    assert (changed[:, (mask > 0.999)[0]] > 0.99).all()


def test_pasting_back_a_whole_picture_keeps_what_is_not_masked() -> None:
    image, painted = noise(1, 16, 24, 3), noise(3, 16, 24, 3, seed=1)
    mask = square_mask(16, 24, 2, 3, 8)
    result = inpaint.paste_back(image, painted, mask)
    marked = (mask > 0)[0]
    assert torch.equal(result[:, marked], painted[:, marked])
    assert torch.equal(result[:, ~marked], image[:, ~marked].expand(3, -1, -1))


def test_a_mask_of_another_size_is_fitted_to_the_picture() -> None:
    image = noise(1, 32, 32, 3)
    result = inpaint.paste_back(image, torch.zeros(1, 32, 32, 3), torch.ones(1, 8, 8))
    assert result.sum() == 0


def test_an_empty_mask_is_named() -> None:
    with pytest.raises(InvalidRequest, match="mask is empty"):
        inpaint.crop_to_mask(noise(1, 16, 16, 3), torch.zeros(1, 16, 16), width=16, height=16, padding=0)
