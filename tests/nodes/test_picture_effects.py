"""Pictures blended, blurred, cut and put together."""

from __future__ import annotations

import pytest
import torch

from atoll.diffusion.edges import find_canny_edges
from atoll.nodes import picture_effects as effects


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_picture_of_one_colour() -> None:
    image = effects.empty_image(width=2, height=3, batch_size=2, color=0xFF8000)
    assert image.shape == (2, 3, 2, 3)
    assert (image[1, 2, 1] * 255).tolist() == [255, 128, 0]


def test_a_number_of_pixels_keeps_the_aspect() -> None:
    scaled = effects.scale_to_total_pixels(noise(1, 30, 60, 3), upscale_method="bilinear", megapixels=0.01)
    height, width = scaled.shape[1:3]
    assert (height, width) == (72, 145)  # 10485 pixels


def test_a_batch_of_two_sizes_has_the_first_ones_and_opacity_where_one_has_it() -> None:
    batch = effects.batch_images(noise(1, 8, 8, 3), noise(2, 16, 32, 4))
    assert batch.shape == (3, 8, 8, 4)
    assert (batch[0, ..., 3] == 1).all()


def test_a_crop_outside_moves_to_the_border() -> None:
    image = noise(1, 8, 10, 3)
    assert torch.equal(effects.crop_image(image, width=3, height=2, x=4, y=5), image[:, 5:7, 4:7])
    assert torch.equal(effects.crop_image(image, width=3, height=2, x=400, y=500), image[:, 7:, 9:])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("normal", 0.8), ("multiply", 0.2), ("screen", 0.85), ("overlay", 0.4), ("difference", 0.0),
        ("soft_light", 0.25 + 0.6 * (0.5 - 0.25)),
    ],
)  # fmt: skip
def test_ways_to_blend(mode: str, expected: float) -> None:
    first, second = torch.full((1, 2, 2, 3), 0.25), torch.full((1, 2, 2, 3), 0.8)
    blended = effects.blend_images(first, second, blend_factor=1.0, blend_mode=mode)
    torch.testing.assert_close(blended, torch.full((1, 2, 2, 3), expected))
    assert torch.equal(effects.blend_images(first, second, blend_factor=0.0, blend_mode=mode), first)


def test_blurring_and_sharpening_keep_what_is_flat() -> None:
    flat = torch.full((1, 12, 12, 3), 0.3)
    torch.testing.assert_close(effects.blur_image(flat, blur_radius=5, sigma=1.0), flat)
    torch.testing.assert_close(effects.sharpen_image(flat, sharpen_radius=3, sigma=1.0, alpha=2.0), flat)
    image = noise(1, 12, 12, 3)
    assert effects.blur_image(image, blur_radius=2, sigma=1.0).std() < image.std()
    assert effects.sharpen_image(image).std() > image.std()
    assert effects.blur_image(noise(1, 3, 3, 3), blur_radius=31).shape == (1, 3, 3, 3)


def test_the_kernel_of_a_blur() -> None:
    kernel = effects.gaussian_kernel(1, 1.0)
    assert kernel.sum() == pytest.approx(1)
    assert float(kernel[1, 1] / kernel[0, 0]) == pytest.approx(torch.e)  # corners are 1 half width away on both axes


def test_edges_are_thin_lines_and_weak_ones_stay_only_beside_strong_ones() -> None:
    image = torch.zeros(1, 3, 32, 32)
    image[..., 15], image[..., 16:] = 0.3, 1.0  # not quite sharp, so that one column is the steepest
    edges = find_canny_edges(image, 0.4, 0.8)
    assert edges.unique().tolist() == [0, 1]
    assert edges[0, 0].sum(dim=0).tolist() == [32.0 if column == 15 else 0.0 for column in range(32)]
    assert find_canny_edges(image * 0.2, 0.1, 0.9).sum() == 0  # nowhere strong
    weaker = image * torch.linspace(1.0, 0.4, 32)[:, None]  # downwards
    assert find_canny_edges(weaker, 0.3, 2.0)[0, 0, 30, 15] == 1
    assert find_canny_edges(weaker[..., 16:, :], 0.3, 2.0).sum() == 0  # the weak part alone
    assert effects.find_edges(noise(2, 9, 9, 3)).shape == (2, 9, 9, 3)


def test_opacity_comes_off_and_goes_on_again() -> None:
    image = noise(2, 6, 6, 4)
    colours, mask = effects.split_alpha(image)
    torch.testing.assert_close(effects.join_alpha(colours, mask), image)
    assert effects.split_alpha(noise(1, 4, 4, 3))[1].sum() == 0


@pytest.mark.parametrize(
    ("mode", "colour", "opacity"),
    [
        ("CLEAR", 0.0, 0.0), ("SRC", 0.8, 0.5), ("DST", 0.4, 0.75), ("SRC_IN", 0.8, 0.375), ("DST_OUT", 0.4, 0.375),
        ("SRC_OVER", (0.4 + 0.5 * 0.3) / 0.875, 0.875), ("DST_OVER", (0.3 + 0.25 * 0.4) / 0.875, 0.875),
        ("SRC_ATOP", (0.75 * 0.4 + 0.5 * 0.3) / 0.75, 0.75), ("XOR", (0.25 * 0.4 + 0.5 * 0.3) / 0.5, 0.5),
        ("ADD", 0.7, 1.0), ("SCREEN", (0.7 - 0.12) / 0.875, 0.875),
    ],
)  # fmt: skip
def test_porter_and_duff(mode: str, colour: float, opacity: float) -> None:
    source, destination = torch.full((1, 4, 4, 3), 0.8), torch.full((1, 4, 4, 3), 0.4)
    image, mask = effects.composite_images(
        source, torch.full((1, 4, 4), 0.5), destination, torch.full((1, 4, 4), 0.25), mode=mode
    )
    torch.testing.assert_close(image, torch.full_like(image, colour))
    torch.testing.assert_close(mask, torch.full_like(mask, 1 - opacity))


@pytest.mark.parametrize("mode", effects.COMPOSITE_MODES)
def test_every_rule_stays_within_bounds_for_any_sizes(mode: str) -> None:
    image, mask = effects.composite_images(
        noise(2, 9, 5, 3), noise(2, 4, 4, seed=1), noise(3, 8, 8, 3, seed=2), noise(2, 8, 8, seed=3), mode=mode
    )
    assert (image.shape, mask.shape) == ((2, 8, 8, 3), (2, 8, 8))
    for values in (image, mask):
        assert values.isfinite().all() and values.min() >= 0 and values.max() <= 1


def test_pictures_become_a_list_of_batches() -> None:
    batches = effects.rebatch_images([noise(3, 4, 4, 3), noise(1, 4, 4, 3)], batch_size=[3])  # type: ignore[arg-type]
    assert [len(batch) for batch in batches] == [3, 1]
