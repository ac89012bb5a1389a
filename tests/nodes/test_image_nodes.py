"""Pictures in, out and changed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from node_context import RecordingContext
from PIL import Image

from atoll.errors import InvalidRequest
from atoll.nodes import images, latents
from atoll.nodes.resize import PICTURE_METHODS, resize

Upload = Callable[..., str]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_picture_goes_in_and_out_byte_for_byte(context: RecordingContext, upload: Upload) -> None:
    pixels = np.arange(256 * 3, dtype=np.uint32).astype(np.uint8).reshape(16, 16, 3)
    image, mask = images.load_image(context, image=upload(pixels, "图 片.png"))
    assert (image.shape, mask.shape, mask.max()) == ((1, 16, 16, 3), (1, 64, 64), 0)
    images.save_images(image, context, filename_prefix="a")
    assert np.array_equal(context.saved[0].image, pixels)


def test_transparency_is_the_mask(context: RecordingContext, upload: Upload) -> None:
    image = Image.new("RGBA", (4, 2), (255, 0, 0, 255))
    image.putpixel((3, 1), (0, 255, 0, 0))
    name = upload(image)
    pixels, mask = images.load_image(context, image=name)
    assert pixels[0, 1, 3].tolist() == [0, 1, 0]
    assert mask.tolist() == [[[0, 0, 0, 0], [0, 0, 0, 1]]]
    assert torch.equal(images.load_mask(context, image=name, channel="alpha"), mask)
    assert images.load_mask(context, image=name, channel="red").tolist() == [[[1, 1, 1, 1], [1, 1, 1, 0]]]
    assert images.load_mask(context, image=name, channel="blue").sum() == 0


def test_a_mask_from_alpha_of_an_opaque_picture_is_empty(context: RecordingContext, upload: Upload) -> None:
    mask = images.load_mask(context, image=upload(Image.new("RGB", (5, 5))), channel="alpha")
    assert (mask.shape, float(mask.sum())) == ((1, 64, 64), 0.0)


def test_grey_pictures_load_as_colours(context: RecordingContext, upload: Upload) -> None:
    pixels, _ = images.load_image(context, image=upload(Image.new("L", (3, 2), 128)))
    assert pixels.shape == (1, 2, 3, 3)
    assert torch.equal(images.load_mask(context, image="picture.png", channel="green"), pixels[..., 1])


def test_saved_pictures_carry_the_graph_and_what_came_with_it(context: RecordingContext) -> None:
    context.extra = {"workflow": {"nodes": ["图"]}, "prompt": "of somebody else"}
    images.save_images(noise(2, 3, 5, 3), context, filename_prefix="%width%x%height%/n%batch_num%")
    images.preview_images(noise(1, 3, 5, 3), context)
    assert [(one.filename_prefix, one.kind, one.node_id, one.index) for one in context.saved] == [
        ("5x3/n0", "output", "1", 0),
        ("5x3/n1", "output", "1", 1),
        ("preview", "temp", "1", 0),
    ]
    metadata = context.saved[0].metadata
    assert json.loads(metadata["prompt"]) == context.graph.to_api()
    assert json.loads(metadata["workflow"]) == {"nodes": ["图"]}
    assert "parameters" not in metadata  # no sampler made it


def test_dates_in_names_are_filled_in(context: RecordingContext) -> None:
    images.save_images(noise(1, 2, 2, 3), context, filename_prefix="%year%-%month%-%day% %hour%%minute%%second%")
    assert len(context.saved[0].filename_prefix) == len("2026-01-02 030405")
    assert "%" not in context.saved[0].filename_prefix


@pytest.mark.parametrize("method", PICTURE_METHODS)
def test_scaling_reaches_the_size_and_keeps_a_flat_colour(method: str) -> None:
    flat = torch.full((2, 6, 4, 3), 0.2)
    scaled = images.scale_image(flat, upscale_method=method, width=10, height=8, crop="disabled")
    torch.testing.assert_close(scaled, torch.full((2, 8, 10, 3), 0.2), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("width", "height", "expected"), [(0, 0, (6, 4)), (8, 0, (12, 8)), (0, 3, (3, 2)), (8, 8, (8, 8))]
)
def test_a_side_of_zero_keeps_the_aspect(width: int, height: int, expected: tuple[int, int]) -> None:
    image = noise(1, 6, 4, 3)
    scaled = images.scale_image(image, upscale_method="bilinear", width=width, height=height, crop="disabled")
    assert scaled.shape[1:3] == expected
    if width == height == 0:
        assert scaled is image


def test_center_crop_keeps_the_middle() -> None:
    stripes = torch.arange(10.0).reshape(1, 1, 10, 1).expand(1, 4, 10, 3)
    cut = images.scale_image(stripes, upscale_method="nearest-exact", width=4, height=4, crop="center")
    assert cut[0, 0, :, 0].tolist() == [3, 4, 5, 6]
    upright = stripes.transpose(1, 2)
    cut = images.scale_image(upright, upscale_method="nearest-exact", width=4, height=4, crop="center")
    assert cut[0, :, 0, 0].tolist() == [3, 4, 5, 6]


def test_scaling_by_a_factor_rounds() -> None:
    assert images.scale_image_by(noise(1, 5, 7, 3), upscale_method="area", scale_by=0.5).shape == (1, 2, 4, 3)
    assert images.scale_image_by(noise(1, 5, 7, 3), upscale_method="area", scale_by=0.01).shape == (1, 1, 1, 3)


def test_lanczos_is_pillows() -> None:
    pixels = (noise(9, 11, 3, seed=2) * 255).byte().numpy()
    ours = images.scale_image(
        torch.from_numpy(pixels)[None].float() / 255, upscale_method="lanczos", width=23, height=5, crop="disabled"
    )
    theirs = np.asarray(Image.fromarray(pixels).resize((23, 5), Image.Resampling.LANCZOS))
    assert np.array_equal((ours[0] * 255).round().byte().numpy(), theirs)


def test_inverting_twice_changes_nothing() -> None:
    image = noise(1, 4, 4, 3)
    torch.testing.assert_close(images.invert_image(images.invert_image(image)), image)
    assert images.invert_image(torch.zeros(1, 1, 1, 3)).min() == 1


def test_a_mask_survives_being_a_picture() -> None:
    mask = noise(2, 4, 5)
    picture = images.mask_to_image(mask)
    assert picture.shape == (2, 4, 5, 3)
    assert torch.equal(images.image_to_mask(picture, channel="green"), mask)
    with pytest.raises(InvalidRequest, match='no channel "alpha"'):
        images.image_to_mask(picture, channel="alpha")


def feathered(height: int, width: int, feathering: int, padded: dict[str, int]) -> list[list[float]]:
    """The mask over the old picture, pixel by pixel as the rule says."""
    rows = []
    for row in range(height):
        line = []
        for column in range(width):
            distances = {"top": row, "bottom": height - row, "left": column, "right": width - column}
            nearest = min((distances[side] for side, size in padded.items() if size), default=math.inf)
            line.append(((feathering - nearest) / feathering) ** 2 if nearest < feathering else 0.0)
        rows.append(line)
    return rows


@pytest.mark.parametrize(
    "sides", [{"left": 8}, {"top": 16, "right": 8}, {"left": 8, "top": 8, "right": 8, "bottom": 8}, {}]
)
def test_padding_is_grey_marked_and_fades_into_the_picture(sides: dict[str, int]) -> None:
    image = noise(2, 20, 24, 3)
    padded, mask = images.pad_for_outpainting(image, **sides, feathering=6)
    size = {side: sides.get(side, 0) for side in ("left", "top", "right", "bottom")}
    assert padded.shape == (2, 20 + size["top"] + size["bottom"], 24 + size["left"] + size["right"], 3)
    inside = (slice(size["top"], size["top"] + 20), slice(size["left"], size["left"] + 24))
    assert torch.equal(padded[:, *inside], image)
    outside = torch.ones(padded.shape[1:3], dtype=torch.bool)
    outside[inside] = False
    assert (padded[:, outside] == 0.5).all() and (mask[:, outside] == 1).all()
    torch.testing.assert_close(mask[0][inside], torch.tensor(feathered(20, 24, 6, size)))


def test_feathering_wider_than_half_the_picture_is_left_out() -> None:
    _, mask = images.pad_for_outpainting(noise(1, 20, 20, 3), left=8, feathering=10)
    assert mask[0, :, 8:].sum() == 0


def slerp(start: np.ndarray[Any, Any], end: np.ndarray[Any, Any], ratio: float) -> np.ndarray[Any, Any]:
    """The textbook's, for one pair of vectors."""
    length = (1 - ratio) * np.linalg.norm(start) + ratio * np.linalg.norm(end)
    one, two = start / np.linalg.norm(start), end / np.linalg.norm(end)
    angle = np.arccos(one @ two)
    return length * (np.sin((1 - ratio) * angle) * one + np.sin(ratio * angle) * two) / np.sin(angle)


def test_bislerp_is_spherical_between_neighbours() -> None:
    row = noise(1, 4, 1, 2, seed=3) - 0.5
    stretched = resize(row, 4, 1, "bislerp")[0, :, 0].T.numpy()
    start, end = row[0, :, 0, 0].numpy(), row[0, :, 0, 1].numpy()
    expected = [start, slerp(start, end, 0.25), slerp(start, end, 0.75), end]
    np.testing.assert_allclose(stretched, np.stack(expected), atol=1e-6)


def test_bislerp_keeps_lengths_and_edge_cases_finite() -> None:
    unit = torch.nn.functional.normalize(torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(1)), dim=1)
    torch.testing.assert_close(resize(unit, 9, 13, "bislerp").norm(dim=1), torch.ones(1, 13, 9), atol=1e-4, rtol=0)
    for awkward in (torch.zeros(1, 4, 2, 2), torch.ones(1, 4, 2, 2)):
        torch.testing.assert_close(resize(awkward, 7, 7, "bislerp"), awkward[:, :, :1, :1].expand(1, 4, 7, 7))
    opposite = torch.stack([torch.ones(4, 1), -torch.ones(4, 1)], dim=-1)[None]
    assert resize(opposite, 8, 1, "bislerp").isfinite().all()


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(0, 0, (8, 16)), (128, 0, (8, 16)), (0, 256, (32, 64)), (256, 8, (8, 32)), (200, 100, (12, 25))],
)
def test_latents_are_scaled_in_pixels(width: int, height: int, expected: tuple[int, int]) -> None:
    samples = {"samples": noise(1, 4, 8, 16), "noise_mask": noise(1, 1, 64, 128)}
    scaled = latents.upscale_latents(
        samples,
        upscale_method="bilinear",
        width=width,
        height=height,
        crop="disabled",  # type: ignore[arg-type]
    )
    assert scaled["samples"].shape[-2:] == expected
    assert scaled["noise_mask"] is samples["noise_mask"]


def test_repeated_latents_get_masks_and_noise_of_their_own() -> None:
    start = {"samples": noise(2, 4, 2, 2), "noise_mask": noise(2, 1, 4, 4), "batch_index": [3, 5]}
    repeated = latents.repeat_latents(start, amount=2)  # type: ignore[arg-type]
    assert torch.equal(repeated["samples"], torch.cat([start["samples"]] * 2))  # type: ignore[list-item]
    assert repeated["noise_mask"].shape == (4, 1, 4, 4)
    assert repeated["batch_index"] == [3, 5, 6, 8]
    assert len(start["samples"]) == 2
