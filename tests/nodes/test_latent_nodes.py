"""Latents changed: sizes, places, and which picture of a batch each is."""

from __future__ import annotations

import pytest
import torch

from atoll.nodes import latents
from atoll.nodes.types import LatentBatch


def some(batch: int = 1, height: int = 16, width: int = 24, seed: int = 0, **more: object) -> LatentBatch:
    samples = torch.randn(batch, 4, height, width, generator=torch.Generator().manual_seed(seed))
    return {"samples": samples, **more}  # type: ignore[typeddict-item]


def test_what_is_over_a_multiple_of_8_is_cut_off() -> None:
    assert latents.empty_latents(width=517, height=100, batch_size=2)["samples"].shape == (2, 4, 12, 64)


def test_scaling_by_a_factor_rounds_and_takes_a_mask_along() -> None:
    mask = torch.rand(1, 1, 128, 192)
    scaled = latents.upscale_latents_by(some(noise_mask=mask), upscale_method="nearest-exact", scale_by=1.3)
    assert scaled["samples"].shape == (1, 4, 21, 31)
    assert scaled["noise_mask"] is mask


def test_laying_latents_on_others_without_feather_copies_them() -> None:
    below, above = some(), some(height=8, width=8, seed=1)
    result = latents.composite_latents(below, above, x=160, y=16)["samples"]
    assert torch.equal(result[..., 2:10, 20:], above["samples"][..., :4])
    assert torch.equal(result[..., :20], below["samples"][..., :20])


def test_a_feather_fades_only_where_there_is_something_below() -> None:
    below = {"samples": torch.zeros(1, 4, 16, 16)}
    above = {"samples": torch.ones(1, 4, 8, 16)}
    result = latents.composite_latents(below, above, x=0, y=64, feather=32)["samples"][0, 0]
    assert result[8:, 3].tolist() == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    assert (result[:8] == 0).all()


def test_a_blend_goes_from_the_second_to_the_first() -> None:
    first, second = some(), some(seed=1)
    for share in (0.0, 0.25, 1.0):
        blended = latents.blend_latents(first, second, blend_factor=share)["samples"]
        torch.testing.assert_close(blended, first["samples"] * share + second["samples"] * (1 - share))
    assert latents.blend_latents(first, some(height=4, width=4))["samples"].shape == first["samples"].shape


def test_four_quarter_turns_and_two_mirrors_change_nothing() -> None:
    turned = start = some()
    for _ in range(4):
        turned = latents.rotate_latents(turned, rotation="90 degrees")
    assert torch.equal(turned["samples"], start["samples"])
    clockwise = latents.rotate_latents(start, rotation="90 degrees")["samples"]
    assert torch.equal(clockwise[0, 0, 0, -1], start["samples"][0, 0, 0, 0])  # the left upper corner goes to the right
    for method in ("x-axis: vertically", "y-axis: horizontally"):
        mirrored = latents.flip_latents(latents.flip_latents(start, flip_method=method), flip_method=method)
        assert torch.equal(mirrored["samples"], start["samples"])
    upside_down = latents.flip_latents(start, flip_method="x-axis: vertically")["samples"]
    assert torch.equal(upside_down[..., 0, :], start["samples"][..., -1, :])


def test_a_crop_leaves_at_least_64_pixels() -> None:
    start = some()
    assert torch.equal(
        latents.crop_latents(start, width=64, height=64, x=8, y=16)["samples"], start["samples"][..., 2:10, 1:9]
    )
    assert latents.crop_latents(start, x=16_000, y=16_000)["samples"].shape == (1, 4, 8, 8)


def test_what_is_taken_from_a_batch_keeps_its_place_in_it() -> None:
    batch = some(4, noise_mask=torch.rand(2, 1, 8, 8))
    taken = latents.take_from_batch(batch, batch_index=1, length=2)
    assert torch.equal(taken["samples"], batch["samples"][1:3])
    assert taken["batch_index"] == [1, 2]
    assert torch.equal(taken["noise_mask"], batch["noise_mask"][[1, 0]])
    again = latents.take_from_batch(taken, batch_index=1, length=60)
    assert (len(again["samples"]), again["batch_index"]) == (1, [2])
    assert latents.take_from_batch(batch, batch_index=63, length=1)["batch_index"] == [3]


def test_batches_are_joined_with_their_places() -> None:
    joined = latents.batch_latents(some(2), some(1, height=8, width=8, batch_index=[5]))
    assert joined["samples"].shape == (3, 4, 16, 24)
    assert joined["batch_index"] == [0, 1, 5]


def test_a_batch_becomes_a_list_of_smaller_ones() -> None:
    batches = latents.rebatch_latents([some(3), some(2, height=8)], batch_size=[2])  # type: ignore[arg-type]
    assert [tuple(batch["samples"].shape[:3]) for batch in batches] == [(2, 4, 16), (1, 4, 16), (2, 4, 8)]
    assert [batch["batch_index"] for batch in batches] == [[0, 1], [2], [0, 1]]


@pytest.mark.parametrize("side", [8, 20, 33])
def test_tiles_of_a_function_without_surroundings_give_the_whole(side: int) -> None:
    from atoll.diffusion.tiling import run_tiled

    values = torch.randn(2, 3, side, 29)

    def enlarge(tile: torch.Tensor) -> torch.Tensor:
        return tile.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3) * 2

    torch.testing.assert_close(run_tiled(enlarge, values, (12, 16), 4, 8), enlarge(values), atol=1e-4, rtol=1e-4)
