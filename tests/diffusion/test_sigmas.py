from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, PNDMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.diffusion.sigmas import (
    COMFYUI_SCHEDULES,
    SCHEDULES,
    NoiseSchedule,
    build_partial_sigmas,
    build_sigmas,
)
from atoll.errors import InvalidRequest, NotACheckpoint

SD1 = NoiseSchedule.from_config({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012})


@pytest.mark.parametrize(
    "config",
    [
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"trained_betas": [0.001, 0.002, 0.01, 0.05], "num_train_timesteps": 4},
        {},
    ],
    ids=lambda config: config.get("beta_schedule", "trained" if config else "defaults"),
)
def test_noise_levels_equal_those_of_diffusers(config: dict[str, Any]):
    theirs = DDPMScheduler(**config)
    torch.testing.assert_close(NoiseSchedule.from_config(config).alphas_cumprod, theirs.alphas_cumprod)


def test_a_schedule_rescaled_to_zero_terminal_snr_equals_that_of_diffusers_but_for_its_last_level():
    config = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    ours = NoiseSchedule.from_config(config | {"rescale_betas_zero_snr": True})
    theirs = DDIMScheduler(**config, rescale_betas_zero_snr=True)
    torch.testing.assert_close(ours.alphas_cumprod[:-1], theirs.alphas_cumprod[:-1], atol=1e-6, rtol=1e-3)
    assert ours.sigma_max == pytest.approx(4518.76, rel=1e-4)
    assert all(build_sigmas(schedule, ours, 12).isfinite().all() for schedule in SCHEDULES)


def test_where_timesteps_end_is_read_from_the_configuration_or_is_its_class_s_default():
    pndm, ddim = PNDMScheduler().config, DDIMScheduler().config
    assert NoiseSchedule.from_config(dict(pndm)).set_alpha_to_one is pndm.set_alpha_to_one is False
    assert NoiseSchedule.from_config(dict(ddim)).set_alpha_to_one is ddim.set_alpha_to_one is True
    assert NoiseSchedule.from_config({"_class_name": "PNDMScheduler"}).set_alpha_to_one is False
    assert NoiseSchedule.from_config({"_class_name": "DDIMScheduler"}).set_alpha_to_one is True
    assert NoiseSchedule.from_config({"steps_offset": 1}).steps_offset == 1


@pytest.mark.parametrize("key", ["prediction_type", "beta_schedule"])
def test_an_unknown_word_in_a_configuration_is_refused_by_name(key: str):
    with pytest.raises(NotACheckpoint, match=f'{key} "flow"'):
        NoiseSchedule.from_config({key: "flow"})


def test_each_trained_timestep_comes_back_from_its_sigma():
    timesteps = torch.arange(1000).float()
    torch.testing.assert_close(SD1.sigma_at(timesteps), SD1.sigmas)
    assert torch.equal(SD1.nearest_timestep(SD1.sigmas), timesteps)
    torch.testing.assert_close(SD1.fractional_timestep(SD1.sigmas), timesteps)


def test_sigma_between_timesteps_is_interpolated_in_its_logarithm():
    between = SD1.sigma_at(torch.tensor(10.5))
    assert float(between) == pytest.approx(math.sqrt(float(SD1.sigmas[10] * SD1.sigmas[11])), rel=1e-5)


def test_a_sigma_beyond_the_trained_ones_is_told_as_the_nearest():
    assert SD1.nearest_timestep(torch.tensor(1e9)) == 999
    assert SD1.nearest_timestep(torch.tensor(0.0)) == 0
    assert SD1.fractional_timestep(torch.tensor(1e9)) == 999


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(steps=st.integers(1, 400))
@settings(max_examples=12, deadline=None)
def test_sigmas_fall_strictly_to_zero_within_the_trained_range(schedule: str, steps: int):
    sigmas = build_sigmas(schedule, SD1, steps)
    assert sigmas.dtype == torch.float32
    assert (sigmas[1:] < sigmas[:-1]).all()
    assert sigmas[-1] == 0
    assert sigmas[0] <= SD1.sigma_max * (1 + 1e-5)
    assert sigmas[-2] >= SD1.sigma_min * (1 - 1e-5)
    if schedule not in ("ddim_uniform", "beta"):
        assert len(sigmas) == steps + 1


def test_one_step_of_kl_optimal_starts_at_the_top():
    torch.testing.assert_close(build_sigmas("kl_optimal", SD1, 1), torch.tensor([SD1.sigma_max, 0.0]))


@pytest.mark.parametrize("schedule", COMFYUI_SCHEDULES)
@pytest.mark.parametrize(("steps", "strength"), [(6, 0.5), (10, 0.35), (3, 0.9), (1, 0.01)])
def test_a_part_is_the_end_of_a_longer_list(schedule: str, steps: int, strength: float):
    whole = build_sigmas(schedule, SD1, int(steps / strength))
    assert torch.equal(build_partial_sigmas(schedule, SD1, steps, strength), whole[-(steps + 1) :])


@pytest.mark.parametrize("schedule", COMFYUI_SCHEDULES)
def test_full_strength_is_the_whole_list(schedule: str):
    assert torch.equal(build_partial_sigmas(schedule, SD1, 9, 1.0), build_sigmas(schedule, SD1, 9))


def test_dropping_the_penultimate_sigma_keeps_the_number_of_steps():
    longer = build_sigmas("karras", SD1, 8)
    dropped = build_partial_sigmas("karras", SD1, 7, 1.0, drop_penultimate=True)
    assert torch.equal(dropped, torch.cat([longer[:-2], longer[-1:]]))
    assert len(build_partial_sigmas("karras", SD1, 7, 0.5, drop_penultimate=True)) == 8


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("steps", [1, 3, 7, 20, 30])
def test_diffusers_spacings_equal_those_of_its_euler(spacing: str, steps: int):
    config = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
    theirs = EulerDiscreteScheduler(**config, timestep_spacing=spacing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # diffusers' own use of numpy
        theirs.set_timesteps(steps)
    ours = NoiseSchedule.from_config(config)
    sigmas = build_sigmas(f"diffusers_{spacing}", ours, steps)
    torch.testing.assert_close(sigmas, theirs.sigmas, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.fractional_timestep(sigmas[:-1]), theirs.timesteps, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("steps", [0, -3, 10_001])
def test_a_number_of_steps_that_cannot_be_is_refused(steps: int):
    with pytest.raises(InvalidRequest, match=rf"{steps}.*1\.\.10000"):
        build_sigmas("karras", SD1, steps)


def test_an_unknown_schedule_is_refused_with_the_known_ones():
    with pytest.raises(InvalidRequest, match=r'"kerras".*karras'):
        build_sigmas("kerras", SD1, 4)


def test_more_steps_than_diffusers_timesteps_are_refused_but_not_by_other_schedules():
    with pytest.raises(InvalidRequest, match="1000"):
        build_sigmas("diffusers_leading", SD1, 1001)
    assert len(build_sigmas("karras", SD1, 1001)) == 1002


def test_the_most_steps_at_the_least_strength_are_possible_and_less_strength_is_refused():
    assert len(build_partial_sigmas("karras", SD1, 10_000, 0.01)) == 10_001
    with pytest.raises(InvalidRequest, match=r"0\.0001 with 200 steps"):
        build_partial_sigmas("karras", SD1, 200, 0.0001)
