from __future__ import annotations

import pytest
import torch

from atoll.diffusion.noise import Variation, brownian_noise, draw_start_noise, independent_noise, turn_towards
from atoll.errors import InvalidRequest

SHAPE = (3, 4, 6, 5)


def test_a_batch_is_one_draw_of_one_generator():
    expected = torch.randn(SHAPE, generator=torch.Generator().manual_seed(42))
    assert torch.equal(draw_start_noise(SHAPE, 42), expected)


def test_one_picture_of_a_batch_can_be_drawn_alone():
    whole = draw_start_noise(SHAPE, 42, batch_index=[0, 1, 2])
    assert torch.equal(draw_start_noise((1, *SHAPE[1:]), 42, batch_index=[2]), whole[2:])
    twice = draw_start_noise(SHAPE, 42, batch_index=[2, 0, 2])
    assert torch.equal(twice, whole[[2, 0, 2]])


def test_with_a_seed_for_each_picture_the_second_is_the_first_of_the_next_seed():
    both = draw_start_noise((2, *SHAPE[1:]), 42, rule="per_image")
    assert torch.equal(both[1:], draw_start_noise((1, *SHAPE[1:]), 43))


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**63, 2**64 - 1])
@pytest.mark.parametrize("rule", ["batch", "per_image"])
def test_every_seed_works_in_every_kind_of_noise(seed: int, rule: str):
    latents, sigmas = torch.zeros(SHAPE), torch.tensor([10.0, 1.0, 0.0])
    drawn = [
        draw_start_noise(SHAPE, seed, rule=rule),
        independent_noise(latents, seed, rule=rule)(sigmas[0], sigmas[1]),
        brownian_noise(latents, sigmas, seed, rule=rule)(sigmas[0], sigmas[1]),
    ]
    for noise in drawn:
        assert noise.shape == SHAPE
        assert 0.8 < float(noise.std()) < 1.2


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, True])
def test_what_is_no_seed_is_refused(seed: object):
    with pytest.raises(InvalidRequest, match=r"seed is .* 0\.\.18446744073709551615"):
        draw_start_noise(SHAPE, seed)  # type: ignore[arg-type]


def test_a_batch_index_must_name_each_picture():
    with pytest.raises(InvalidRequest, match="names 2 pictures, but the batch has 3"):
        draw_start_noise(SHAPE, 1, batch_index=[0, 1])


def test_a_picture_s_own_noise_goes_on_where_its_start_ended():
    generator = torch.Generator().manual_seed(42)
    torch.randn(1, *SHAPE[1:], generator=generator)
    later = independent_noise(torch.zeros(SHAPE), 42, rule="per_image")(torch.tensor(1.0), torch.tensor(0.5))
    assert torch.equal(later[:1], torch.randn(1, *SHAPE[1:], generator=generator))


def test_a_brownian_way_does_not_depend_on_how_it_is_cut():
    sigmas = torch.tensor([14.614641189575195, 3.0, 0.7, 0.029167158529162407, 0.0])
    high, middle, low = sigmas[0], sigmas[1], sigmas[2]
    in_one = brownian_noise(torch.zeros(SHAPE), sigmas, 5)
    in_two = brownian_noise(torch.zeros(SHAPE), sigmas, 5)
    first, second = in_two(high, middle), in_two(middle, low)
    whole = first * (high - middle).sqrt() + second * (middle - low).sqrt()
    torch.testing.assert_close(in_one(high, low) * (high - low).sqrt(), whole, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(first, second)


@pytest.mark.filterwarnings("error")
def test_the_ends_of_the_way_are_not_complained_about():
    sigmas = torch.tensor([14.614641189575195, 0.029167158529162407, 0.0])
    assert brownian_noise(torch.zeros(SHAPE), sigmas, 5)(sigmas[0], sigmas[1]).isfinite().all()


def test_a_variation_goes_from_the_seed_to_the_subseed():
    def drawn(strength: float) -> torch.Tensor:
        return draw_start_noise(SHAPE, 5, rule="per_image", variation=Variation(9, strength))

    own = [draw_start_noise((1, *SHAPE[1:]), seed) for seed in (5, 6, 9, 10)]
    assert torch.equal(drawn(0.0)[:2], torch.cat(own[:2]))  # seed + i
    towards = drawn(0.4)
    for index, subseed in enumerate((9, 10)):  # one seed for all, subseed + i
        other = draw_start_noise((1, *SHAPE[1:]), subseed)
        assert torch.equal(towards[index], turn_towards(own[0][0], other[0], 0.4))
    torch.testing.assert_close(drawn(1.0)[:2], torch.cat(own[2:]))


def test_turning_goes_along_the_arc_between_two_directions():
    first, second = torch.zeros(1, 2, 1), torch.zeros(1, 2, 1)
    first[0, 0], second[0, 1] = 1, 1
    half = turn_towards(first, second, 0.5)
    torch.testing.assert_close(half.flatten(), torch.tensor([0.5, 0.5]).sqrt())


@pytest.mark.parametrize(("height", "width"), [(10, 9), (4, 3), (6, 5), (9, 3)])
def test_noise_of_another_size_lies_in_the_middle(height: int, width: int):
    variation = Variation(resize_from=(4, 3))
    noise = draw_start_noise((1, 4, height, width), 5, rule="per_image", variation=variation)
    small = draw_start_noise((1, 4, 4, 3), 5)
    top, left = (height - 4) // 2, (width - 3) // 2
    assert torch.equal(noise[..., top : top + 4, left : left + 3], small)
    if (height, width) == (10, 9):
        assert torch.equal(noise[..., 0, :], draw_start_noise((1, 4, 10, 9), 5)[..., 0, :])
