"""Pixels to latents and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from atoll.diffusion.checkpoint import load_vae
from atoll.diffusion.guidance import NotANumber
from atoll.diffusion.vae import Vae, crop_to_multiple
from atoll.errors import InvalidRequest


@pytest.fixture(scope="module")
def vae(tiny_checkpoint: Path) -> Vae:
    return load_vae(tiny_checkpoint, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def reference(tiny_checkpoint: Path) -> AutoencoderKL:
    return AutoencoderKL.from_pretrained(tiny_checkpoint / "vae").eval()


def test_encoding_takes_the_mean_unscaled(vae: Vae, reference: AutoencoderKL):
    image = torch.rand(2, 3, 64, 48)
    with torch.no_grad():
        expected = reference.encode(image * 2 - 1).latent_dist.mean
    torch.testing.assert_close(vae.encode_image(image), expected)
    torch.testing.assert_close(vae.encode_image(image), vae.encode_image(image), rtol=0, atol=0)


def test_decoding_gives_pictures_in_0_to_1(vae: Vae, reference: AutoencoderKL):
    latents = torch.randn(2, 4, 8, 6)
    with torch.no_grad():
        expected = (reference.decode(latents).sample / 2 + 0.5).clamp(0, 1)
    image = vae.decode_latents(latents)
    torch.testing.assert_close(image, expected)
    assert (image.shape, image.dtype, image.requires_grad) == ((2, 3, 64, 48), torch.float32, False)


def test_a_batch_equals_its_pictures_one_by_one(vae: Vae):
    """So a picture does not depend on which others were asked for with it."""
    latents, image = torch.randn(3, 4, 4, 4), torch.rand(3, 3, 32, 32)
    assert torch.equal(vae.decode_latents(latents), torch.cat([vae.decode_latents(one) for one in latents.split(1)]))
    assert torch.equal(vae.encode_image(image), torch.cat([vae.encode_image(one) for one in image.split(1)]))


def test_edges_that_fit_no_latent_are_cut_evenly(vae: Vae):
    image = torch.rand(1, 3, 70, 45)
    assert torch.equal(vae.encode_image(image), vae.encode_image(image[:, :, 3:67, 2:42]))
    assert crop_to_multiple(torch.zeros(5, 16, 8), 8).shape == (5, 16, 8)


def test_bf16_is_near_fp32(tiny_checkpoint: Path, vae: Vae):
    latents = torch.randn(1, 4, 4, 4)
    low = load_vae(tiny_checkpoint, device="cpu", precision="bf16").decode_latents(latents)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, vae.decode_latents(latents), atol=0.03, rtol=0)


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 4, 64, 64), (1, 1, 64, 64), (1, 3, 7, 64)])
def test_what_is_no_image_is_refused_in_words(shape: tuple[int, ...], vae: Vae):
    with pytest.raises(InvalidRequest, match=r"cannot be encoded|too small"):
        vae.encode_image(torch.zeros(shape))


def test_latents_of_another_kind_are_refused_in_words(vae: Vae):
    with pytest.raises(InvalidRequest, match="do not fit this VAE of 4 channels"):
        vae.decode_latents(torch.zeros(1, 16, 8, 8))


def test_a_picture_of_no_numbers_is_an_error_not_a_black_picture(vae: Vae):
    with pytest.raises(NotANumber, match="not made of numbers"):
        vae.decode_latents(torch.full((1, 4, 4, 4), float("nan")))
