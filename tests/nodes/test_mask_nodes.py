"""Masks made, changed and put together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from atoll.nodes import masks, picture_effects


def square(size: int = 9, *, top: int = 3, left: int = 3, side: int = 3) -> torch.Tensor:
    mask = torch.zeros(1, size, size)
    mask[:, top : top + side, left : left + side] = 1
    return mask


def test_one_colour_is_marked_exactly() -> None:
    image = picture_effects.empty_image(width=3, height=2, color=0x102030)
    image[0, 0, 0] = torch.tensor([0x10, 0x20, 0x31]) / 255
    marked = masks.mask_of_colour(image, color=0x102030)
    assert marked.tolist() == [[[0, 1, 1], [1, 1, 1]]]


def test_growing_cuts_corners_or_keeps_them_and_narrowing_undoes_it() -> None:
    tapered = masks.grow_mask(square(), expand=2)
    assert tapered[0].sum() == 9 + 4 * 3 * 2 + 4  # the square, its four sides, and a pixel in each corner
    full = masks.grow_mask(square(), expand=2, tapered_corners=False)
    assert torch.equal(full, square(top=1, left=1, side=7))
    assert torch.equal(masks.grow_mask(full, expand=-2, tapered_corners=False), square())
    assert torch.equal(masks.grow_mask(square(), expand=0), square())


@pytest.mark.parametrize("tapered", [True, False])
@pytest.mark.parametrize("expand", [1, -1])
def test_growing_is_grey_dilation_and_erosion(expand: int, tapered: bool) -> None:
    from scipy import ndimage

    mask = torch.rand(1, 12, 17, generator=torch.Generator().manual_seed(0))
    corner = 0 if tapered else 1
    footprint = np.array([[corner, 1, corner], [1, 1, 1], [corner, 1, corner]])
    filtered = (ndimage.grey_dilation if expand > 0 else ndimage.grey_erosion)(mask[0].numpy(), footprint=footprint)
    assert np.array_equal(masks.grow_mask(mask, expand=expand, tapered_corners=tapered)[0].numpy(), filtered)


def test_a_mask_fades_out_towards_the_left_and_the_top() -> None:
    faded = masks.feather_mask(torch.ones(1, 4, 8), left=4)
    assert faded[0, 0].tolist() == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    faded = masks.feather_mask(torch.ones(1, 4, 8), top=100)
    assert faded[0, :, 0].tolist() == [0.25, 0.5, 0.75, 1]


def test_the_faintest_of_the_right_ramp_lies_on_the_left_border() -> None:
    faded = masks.feather_mask(torch.ones(1, 2, 8), right=4)
    assert faded[0, 0].tolist() == [0.25, 1, 1, 1, 1, 1, 0.75, 0.5]


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("multiply", [0.2, 0.15, 0.0]),
        ("add", [0.2, 1.0, 1.0]),
        ("subtract", [0.2, 0.0, 0.0]),
        ("and", [0.2, 0.0, 0.0]),
        ("or", [0.2, 1.0, 1.0]),
        ("xor", [0.2, 1.0, 1.0]),
    ],
)
def test_masks_are_put_together_at_a_place(operation: str, expected: list[float]) -> None:
    below, above = torch.tensor([[[0.2, 0.2, 0.0]]]), torch.tensor([[[0.75, 1.0, 1.0]]])
    expected = [0.2, 0.95, 1.0] if operation == "add" else expected
    result = masks.composite_masks(below, above, x=1, y=0, operation=operation)
    torch.testing.assert_close(result, torch.tensor([[expected]]))
    assert below.tolist() == torch.tensor([[[0.2, 0.2, 0.0]]]).tolist()


def test_a_mask_laid_outside_changes_nothing() -> None:
    assert torch.equal(masks.composite_masks(square(), square(), x=50, y=0, operation="add"), square())


def test_solid_inverted_and_cropped() -> None:
    mask = masks.solid_mask(value=0.25, width=6, height=4)
    assert mask.shape == (1, 4, 6)
    assert masks.invert_mask(mask).unique().tolist() == [0.75]
    assert torch.equal(masks.crop_mask(square(), x=3, y=3, width=3, height=3), torch.ones(1, 3, 3))
