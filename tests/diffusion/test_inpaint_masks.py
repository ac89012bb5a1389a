from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atoll.diffusion.inpaint import (
    CropBox,
    blur_mask,
    find_crop_box,
    hold_outside_mask,
    mask_for_latents,
    paste_back,
)
from atoll.errors import InvalidRequest


def square(size: int = 64, start: int = 24, end: int = 40) -> Tensor:
    mask = torch.zeros(1, size, size)
    mask[:, start:end, start:end] = 1
    return mask


def test_blur_softens_the_edge_and_keeps_the_amount():
    blurred = blur_mask(square(), 3)
    assert blurred.shape == (1, 64, 64)
    assert float(blurred.sum()) == pytest.approx(float(square().sum()), rel=1e-4)
    edge = blurred[0, 32, 16:32]
    assert (edge[1:] > edge[:-1]).all()
    assert float(edge[7] + edge[8]) == pytest.approx(1, abs=0.01)  # half on either side of the edge


def test_blur_of_a_full_mask_leaves_it_full_and_no_blur_leaves_any_alone():
    torch.testing.assert_close(blur_mask(torch.ones(2, 9, 5), 4), torch.ones(2, 9, 5))
    mask = torch.rand(2, 9, 5)
    assert torch.equal(blur_mask(mask, 0), mask)
    with pytest.raises(InvalidRequest, match="-1 pixels"):
        blur_mask(mask, -1)


def test_a_blur_wider_than_the_mask_is_no_error():
    assert blur_mask(torch.rand(1, 4, 4), 30).isfinite().all()


def test_the_box_is_the_mask_with_its_padding():
    assert find_crop_box(square(), 4, 512, 512) == CropBox(20, 20, 24, 24)


def test_the_box_grows_on_one_axis_to_the_aspect_of_what_is_made():
    assert find_crop_box(square(), 0, 1024, 512) == CropBox(16, 24, 32, 16)
    assert find_crop_box(square(), 0, 512, 1024) == CropBox(24, 16, 16, 32)


def test_at_the_border_the_box_is_pushed_back_inside():
    mask = torch.zeros(1, 64, 64)
    mask[:, 0:16, 20:30] = 1
    assert find_crop_box(mask, 0, 512, 1024) == CropBox(20, 0, 10, 20)
    mask = torch.zeros(1, 64, 64)
    mask[:, 10:20, 48:64] = 1
    assert find_crop_box(mask, 0, 512, 256) == CropBox(44, 10, 20, 10)


def test_the_box_of_a_whole_mask_is_the_picture():
    assert find_crop_box(torch.ones(1, 48, 64), 32, 512, 512) == CropBox(0, 0, 64, 48)


def test_one_soft_pixel_counts_and_an_empty_mask_is_refused():
    mask = torch.zeros(2, 32, 32)
    mask[1, 5, 7] = 0.01
    assert find_crop_box(mask, 0, 64, 64) == CropBox(7, 5, 1, 1)
    with pytest.raises(InvalidRequest, match="mask is empty"):
        find_crop_box(torch.zeros(1, 32, 32), 0, 64, 64)


@given(
    top=st.integers(0, 39), left=st.integers(0, 59), height=st.integers(1, 40), width=st.integers(1, 60),
    padding=st.integers(0, 50), aspect=st.sampled_from([(64, 64), (128, 64), (64, 192)]),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_the_box_holds_the_mask_and_lies_in_the_picture(
    top: int, left: int, height: int, width: int, padding: int, aspect: tuple[int, int]
):
    mask = torch.zeros(1, 40, 60)
    mask[:, top : top + height, left : left + width] = 1
    box = find_crop_box(mask, padding, *aspect)
    assert box.left >= 0
    assert box.top >= 0
    assert box.left + box.width <= 60
    assert box.top + box.height <= 40
    assert float(box.cut(mask).sum()) == float(mask.sum())
    if box.width < 60 and box.height < 40:
        assert abs(box.width * aspect[1] / aspect[0] - box.height) <= max(1, aspect[1] / aspect[0])


def test_pasting_changes_the_masked_pixels_alone():
    image, mask = torch.rand(1, 3, 64, 64), blur_mask(square(), 2)
    box = find_crop_box(mask, 3, 512, 512)
    patch = torch.full((2, 3, box.height, box.width), 0.7)
    result = paste_back(image, patch, mask, box)
    assert result.shape == (2, 3, 64, 64)
    kept = (mask == 0).expand(3, -1, -1)
    assert torch.equal(result[0][kept], image[0][kept])
    torch.testing.assert_close(result[1, :, 32, 32], torch.full((3,), 0.7), atol=1e-3, rtol=0)
    torch.testing.assert_close(result[0], image[0] * (1 - mask) + 0.7 * mask)


def test_pasting_what_was_cut_out_changes_nothing():
    image, mask = torch.rand(1, 3, 64, 64), square()
    box = find_crop_box(mask, 3, 512, 512)
    torch.testing.assert_close(paste_back(image, box.cut(image), mask, box), image)


def test_a_patch_of_another_size_is_scaled_to_its_box():
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64).contiguous()
    box = CropBox(16, 16, 32, 32)
    large = torch.nn.functional.interpolate(box.cut(ramp), size=(128, 128), mode="bicubic")
    result = paste_back(ramp, large, square(), box)
    torch.testing.assert_close(result, ramp, atol=0.02, rtol=0)


def test_a_mask_of_another_size_than_its_image_is_refused():
    with pytest.raises(InvalidRequest, match="mask is 32x32, but the image is 64x48"):
        paste_back(torch.rand(1, 3, 48, 64), torch.rand(1, 3, 8, 8), torch.ones(1, 32, 32), CropBox(0, 0, 8, 8))


def test_a_mask_in_pixels_becomes_one_in_latents():
    mask = torch.zeros(64, 64)
    mask[:, :32] = 1
    planes = mask_for_latents(mask, torch.zeros(3, 4, 8, 8))
    assert torch.equal(planes, torch.tensor([1.0] * 4 + [0.0] * 4).expand(1, 1, 8, 8))
    assert mask_for_latents(torch.rand(2, 64, 64), torch.zeros(5, 4, 8, 8)).shape == (5, 1, 8, 8)


def test_outside_the_mask_the_network_sees_the_noised_picture_and_its_answer_is_replaced():
    clean, noise = torch.full((1, 4, 2, 2), 3.0), torch.full((1, 4, 2, 2), 0.5)
    mask = torch.tensor([[1.0, 0.0], [0.25, 1.0]]).expand(1, 1, 2, 2)
    seen: list[Tensor] = []

    def denoise(latents: Tensor, sigma: Tensor) -> Tensor:
        seen.append(latents)
        return torch.full_like(latents, 9.0)

    held = hold_outside_mask(denoise, mask, clean, noise)
    answer = held(torch.full((1, 4, 2, 2), -1.0), torch.tensor(2.0))
    assert seen[0][0, 0].tolist() == [[-1, 4], [0.25 * -1 + 0.75 * 4, -1]]
    assert answer[0, 0].tolist() == [[9, 3], [0.25 * 9 + 0.75 * 3, 9]]
