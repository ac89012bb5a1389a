"""Where in the picture a prompt speaks, and when."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from asked_unet import SD1, SIGMA, ask, build_model, some_latents, tell

from atoll.diffusion.conditioning import Area, Conditioning
from atoll.diffusion.guidance import build_denoiser
from atoll.diffusion.regions import Box, Placed, box_around, place, with_partners
from atoll.diffusion.sigmas import NoiseSchedule
from atoll.errors import InvalidRequest

TEXT = Conditioning(torch.zeros(1, 77, 32))


def test_an_area_in_latents_and_one_in_shares_are_the_same_place():
    placed = [place(replace(TEXT, area=area), 16, 32) for area in (Area(8, 16, 4, 16), Area(0.5, 0.5, 0.25, 0.5, True))]
    assert [one.box for one in placed] == [Box(8, 16, 4, 16)] * 2
    assert place(TEXT, 16, 32).box is None


def test_an_area_is_cut_at_the_picture_s_border_and_refused_outside_of_it():
    assert place(replace(TEXT, area=Area(64, 64, 4, 8)), 16, 32).box == Box(12, 24, 4, 8)
    with pytest.raises(InvalidRequest, match="begins at 512, 0 pixels, but the picture is only 256x128"):
        place(replace(TEXT, area=Area(8, 8, 0, 64)), 16, 32)


def test_a_mask_may_set_the_area_which_is_never_smaller_than_8_by_8():
    mask = torch.zeros(1, 20, 30)
    mask[0, 5:7, 10:25] = 0.1
    assert box_around(mask) == Box(8, 15, 5, 10)
    assert box_around(torch.zeros(1, 20, 30)) == Box(8, 8, 0, 0)
    assert place(replace(TEXT, mask=mask, mask_sets_area=True), 20, 30).box == Box(8, 15, 5, 10)
    assert place(replace(TEXT, mask=mask), 20, 30).box is None


def test_a_rectangle_fades_out_only_towards_the_rest_of_the_picture():
    placed = Placed(TEXT, Box(16, 32, 0, 8), None)
    seen = torch.zeros(2, 4, 16, 32)
    weights = placed.faded(placed.weights(seen), 32, 64)[0, 0]
    ramp = [(step + 1) / 4 for step in range(4)]  # a quarter of the shorter side, at most 8
    assert weights[:4, 16].tolist() == [1, 1, 1, 1]  # it touches the top
    assert weights[-4:, 16].tolist() == ramp[::-1]
    across = [(step + 1) / 8 for step in range(8)]
    assert weights[0, :8].tolist() == across
    assert weights[0, -8:].tolist() == across[::-1]


def test_a_mask_is_the_weight_and_fades_nowhere():
    mask = torch.rand(1, 16, 16)
    placed = Placed(replace(TEXT, strength=2.0, mask_strength=0.5), Box(8, 8, 4, 4), mask)
    weights = placed.faded(placed.weights(torch.zeros(3, 4, 8, 8)), 16, 16)
    torch.testing.assert_close(weights, mask[:, None, 4:12, 4:12])


def test_every_rectangle_gets_a_partner_on_the_other_side_of_guidance():
    own = [Placed(TEXT, None, None), Placed(replace(TEXT, strength=3.0), Box(16, 16, 0, 0), None)]
    other = [Placed(tell(1), Box(8, 8, 4, 4), None), Placed(tell(2), Box(16, 16, 0, 0), None), Placed(TEXT, None, None)]
    whole, big, partner = with_partners(own, other)
    assert (whole, big) == tuple(own)
    assert partner.box == Box(8, 8, 4, 4)
    assert partner.conditioning.embeds is TEXT.embeds  # what is said of the smallest rectangle around it


def test_two_halves_are_drawn_by_their_own_prompts():
    model, latents = build_model(), some_latents()
    left, right = (replace(tell(seed), area=Area(8, 4, 0, start)) for seed, start in ((1, 0), (2, 4)))
    both = ask(model, [left, right], [], 1.0)
    with torch.no_grad():
        for seed, half in ((1, slice(0, 4)), (2, slice(4, 8))):
            alone = build_denoiser(model, [tell(seed)], [], 1.0)(latents[..., half], SIGMA)
            torch.testing.assert_close(both[..., half], alone, atol=1e-4, rtol=1e-4)


def test_a_mask_lets_a_prompt_speak_in_one_place_only():
    model = build_model()
    mask = torch.zeros(1, 8, 8)
    mask[..., :4] = 1
    mixed = ask(model, [replace(tell(1), mask=mask), replace(tell(2), mask=1 - mask)], [], 1.0)
    first, second = (ask(model, [tell(seed)], [], 1.0) for seed in (1, 2))
    torch.testing.assert_close(mixed, torch.where(mask[:, None] > 0, first, second), atol=1e-4, rtol=1e-4)


def test_where_nobody_speaks_the_estimate_is_nothing():
    mask = torch.zeros(1, 8, 8)
    mask[..., :4] = 1
    assert (ask(build_model(), [replace(tell(1), mask=mask)], [], 1.0)[..., 4:] == 0).all()


def test_a_prompt_speaks_during_its_part_of_the_way_and_is_not_run_outside_of_it():
    schedule = NoiseSchedule.from_config(SD1)
    half = schedule.sigma_at_percent(0.5)
    assert schedule.sigma_at_percent(0.0) == float("inf") and schedule.sigma_at_percent(1.0) == 0
    assert half == pytest.approx(float(schedule.sigma_at(torch.tensor(499.5))))
    model = build_model()
    early = replace(tell(1), end_percent=0.5)
    late = replace(tell(2), start_percent=0.5)
    with torch.no_grad():
        denoise = build_denoiser(model, [early, late], [], 1.0)
        for sigma, seed in ((half * 1.1, 1), (half * 0.9, 2)):
            alone = build_denoiser(model, [tell(seed)], [], 1.0)(some_latents(), torch.tensor(sigma))
            assert torch.equal(denoise(some_latents(), torch.tensor(sigma)), alone)
    assert all(len(asked["inputs"]) == 2 for asked in model.unet.asked)
