"""What stands in a masked part before it is painted, and fitting into a size."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from atoll.diffusion.noise import draw_start_noise
from atoll.nodes.masked_content import blank_masked_latents, fill_masked, resize_and_fill, upscale_latent


def test_a_hole_is_filled_with_the_colours_around_it() -> None:
    image = torch.zeros(1, 40, 60, 3)
    image[:, :, :30] = torch.tensor([0.8, 0.2, 0.1])
    image[:, :, 30:] = torch.tensor([0.1, 0.3, 0.9])
    mask = torch.zeros(1, 40, 60)
    mask[:, 10:30, 5:20] = 1
    whole = image.clone()
    image[mask.bool()] = 0.0  # what was there must not shine through
    filled = fill_masked(image, mask)
    assert torch.equal(filled[~mask.bool()], image[~mask.bool()])
    torch.testing.assert_close(filled[:, 19, 8], whole[:, 19, 8], atol=0.08, rtol=0)


def test_a_picture_that_is_all_masked_still_gives_one() -> None:
    filled = fill_masked(torch.rand(2, 17, 9, 3), torch.ones(1, 17, 9))
    assert filled.shape == (2, 17, 9, 3) and bool(torch.isfinite(filled).all())


def test_masked_latents_hold_nothing_or_noise_of_the_network_s_scale() -> None:
    samples = torch.full((2, 4, 8, 8), 3.0)
    mask = torch.zeros(1, 64, 64)
    mask[:, :32] = 1
    model = SimpleNamespace(scaling_factor=0.5)
    nothing = blank_masked_latents({"samples": samples}, mask, model, content="nothing", seed=5)["samples"]
    assert bool((nothing[:, :, :4] == 0).all()) and torch.equal(nothing[:, :, 4:], samples[:, :, 4:])
    noisy = blank_masked_latents({"samples": samples}, mask, model, content="noise", seed=5)["samples"]
    expected = draw_start_noise(samples.shape, 5, rule="per_image")[:, :, :4] / 0.5
    torch.testing.assert_close(noisy[:, :, :4], expected)
    assert torch.equal(noisy[:, :, 4:], samples[:, :, 4:])


def test_a_whole_picture_fits_and_its_borders_are_drawn_out() -> None:
    image = torch.zeros(1, 20, 40, 3)
    image[:, :10] = 1.0
    fitted = resize_and_fill(image, width=40, height=60)
    assert fitted.shape == (1, 60, 40, 3)
    assert torch.equal(fitted[:, 20:40], image)
    assert bool((fitted[:, :20] == 1).all()) and bool((fitted[:, 40:] == 0).all())


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "nearest", "nearest-exact"])
@pytest.mark.parametrize("antialias", [False, True])
def test_latents_are_upscaled_as_pytorch_does_it(method: str, antialias: bool) -> None:
    samples = torch.randn(1, 4, 6, 8)
    smooth = antialias and not method.startswith("nearest")
    upscaled = upscale_latent({"samples": samples}, upscale_method=method, antialias=antialias, width=128, height=96)
    expected = functional.interpolate(samples, size=(12, 16), mode=method, antialias=smooth)
    torch.testing.assert_close(upscaled["samples"], expected)


def test_of_another_aspect_the_middle_is_kept() -> None:
    samples = torch.arange(8.0).expand(1, 4, 8, 8)
    upscaled = upscale_latent({"samples": samples}, upscale_method="nearest", width=64, height=128)["samples"]
    assert upscaled.shape == (1, 4, 16, 8)
    assert upscaled[0, 0, 0].tolist() == [2, 2, 3, 3, 4, 4, 5, 5]
