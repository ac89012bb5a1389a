"""Laws that hold for every sampler; agreement with recorded results is in test_comfy_reference.py."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from atoll.diffusion.denoiser import TwoSidedDenoiser
from atoll.diffusion.samplers import SAMPLERS, run_sampler
from atoll.diffusion.samplers_diffusers import sample_lms_as_diffusers, sample_pndm_as_diffusers
from atoll.diffusion.sigmas import SCHEDULES, NoiseSchedule, build_sigmas
from atoll.errors import InvalidRequest, JobCancelled

NOISE_SCHEDULE = NoiseSchedule.from_config({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012})
SPREAD = 0.5  # of the made-up data: a Gaussian, of which the best denoiser and the ODE's solution are known
SECOND_NAMES = {name: name.removesuffix("_gpu") for name in SAMPLERS if name.endswith("_gpu")}
SECOND_NAMES |= {"plms": "pndm", "ipndm_v": "lms"}
DISTINCT = [name for name in SAMPLERS if name not in SECOND_NAMES]
WITHOUT_NOISE = [name for name in DISTINCT if SAMPLERS[name].noise == "none"]
WITH_NOISE = [name for name in DISTINCT if SAMPLERS[name].noise != "none"]
FIRST_ORDER = ("euler", "ddim", "euler_cfg_pp")
# Made for networks, not for exactness: they draw slopes out, or weigh them by how far they are from the start.
INEXACT = (*FIRST_ORDER, "heunpp2", "gradient_estimation", "gradient_estimation_cfg_pp")
OWN_STEPS = ("dpm_fast", "dpm_adaptive")  # they walk from the first to the lowest sigma above 0 in steps of their own
STEPWISE = [name for name in DISTINCT if name not in OWN_STEPS]


def denoise_gaussian(latents: Tensor, sigma: Tensor) -> Tensor:
    return latents * SPREAD**2 / (SPREAD**2 + sigma**2)


def start_latents(sigma: Tensor, size: int = 8) -> Tensor:
    unit = torch.randn(2, 4, size, size, generator=torch.Generator().manual_seed(99))
    return unit * (SPREAD**2 + sigma**2).sqrt()


def relative_error(sampler: str, steps: int) -> float:
    sigmas = build_sigmas("karras", NOISE_SCHEDULE, steps)
    start = start_latents(sigmas[0])
    exact = start * SPREAD / float((SPREAD**2 + sigmas[0] ** 2).sqrt())
    result = run_sampler(sampler, denoise_gaussian, start, sigmas, seed=1)
    return float((result - exact).norm() / exact.norm())


@pytest.mark.parametrize("sampler", STEPWISE)
@pytest.mark.parametrize("steps", [1, 2, 3, 12])
def test_lands_on_the_target_of_a_constant_denoiser(sampler: str, steps: int):
    target = torch.full((1, 4, 8, 8), 0.25)
    sigmas = build_sigmas("karras", NOISE_SCHEDULE, steps)
    start = target + sigmas[0] * torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    result = run_sampler(sampler, lambda latents, sigma: target, start, sigmas, seed=3)
    # UniPC's end is not 0 but a sigma of 0.001, of which a little noise is left. PNDM's mean slope divides what float32
    # rounded off the large start by the smallest sigma.
    tolerance = {"uni_pc": 5e-3, "uni_pc_bh2": 5e-3, "pndm": 1e-3}.get(sampler, 1e-5)
    torch.testing.assert_close(result, target, atol=tolerance, rtol=0)


@pytest.mark.parametrize("sampler", WITHOUT_NOISE)
def test_solves_the_ode_of_a_gaussian(sampler: str):
    assert relative_error(sampler, 40) < (0.15 if sampler in INEXACT else 0.03)


@pytest.mark.parametrize("sampler", [name for name in WITHOUT_NOISE if name not in INEXACT])
def test_a_higher_order_beats_euler(sampler: str):
    assert relative_error(sampler, 20) < 0.6 * relative_error("euler", 20)


@pytest.mark.parametrize("sampler", WITH_NOISE)
def test_samples_of_a_gaussian_have_its_spread(sampler: str):
    sigmas = build_sigmas("karras", NOISE_SCHEDULE, 60)
    result = run_sampler(sampler, denoise_gaussian, start_latents(sigmas[0], size=32), sigmas, seed=1)
    if sampler == "lcm":  # ends on an estimate, which is narrower than the data
        assert float(result.std()) < SPREAD
    else:
        assert float(result.std()) == pytest.approx(SPREAD, rel=0.08)


@pytest.mark.parametrize("sampler", WITH_NOISE)
def test_noise_comes_from_the_seed_alone(sampler: str):
    sigmas = build_sigmas("karras", NOISE_SCHEDULE, 5)
    start = start_latents(sigmas[0])
    results = []
    for seed in (7, 7, 8):
        torch.manual_seed(len(results))  # the global generator must not matter
        results.append(run_sampler(sampler, denoise_gaussian, start, sigmas, seed=seed))
    assert torch.equal(results[0], results[1])
    assert not torch.allclose(results[0], results[2])


@pytest.mark.parametrize("sampler", WITHOUT_NOISE)
def test_a_sampler_without_noise_ignores_the_seed(sampler: str):
    sigmas = build_sigmas("karras", NOISE_SCHEDULE, 5)
    start = start_latents(sigmas[0])
    first, second = (run_sampler(sampler, denoise_gaussian, start, sigmas, seed=seed) for seed in (7, 8))
    assert torch.equal(first, second)


@pytest.mark.parametrize("sampler", WITH_NOISE)
def test_alone_a_picture_is_the_same_as_in_a_batch_when_each_has_its_own_seed(sampler: str):
    sigmas = build_sigmas("karras", NOISE_SCHEDULE, 5)
    start = start_latents(sigmas[0])
    both = run_sampler(sampler, denoise_gaussian, start, sigmas, seed=7, noise_rule="per_image")
    second = run_sampler(sampler, denoise_gaussian, start[1:], sigmas, seed=8, noise_rule="per_image")
    again = run_sampler(sampler, denoise_gaussian, start[1:], sigmas, seed=7, noise_rule="per_image", batch_index=[1])
    torch.testing.assert_close(both[1:], second)
    assert torch.equal(second, again)


@pytest.mark.parametrize("sampler", STEPWISE)
def test_tells_every_step_once_and_leaves_its_input_alone(sampler: str):
    sigmas = build_sigmas("normal", NOISE_SCHEDULE, 6)
    start, given = start_latents(sigmas[0]), sigmas.clone()
    kept = start.clone()
    told: list[int] = []
    run_sampler(sampler, denoise_gaussian, start, sigmas, seed=1, on_step=lambda step, denoised: told.append(step))
    assert told == list(range(6))
    assert torch.equal(start, kept)
    assert torch.equal(sigmas, given)


@pytest.mark.parametrize("sampler", STEPWISE)
def test_stops_within_the_step_in_which_it_is_told_to(sampler: str):
    sigmas = build_sigmas("normal", NOISE_SCHEDULE, 6)
    calls = 0

    def denoise(latents: Tensor, sigma: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return denoise_gaussian(latents, sigma)

    def stop(step: int, denoised: Tensor) -> None:
        if step == 2:
            raise JobCancelled("stopped by its owner")

    with pytest.raises(JobCancelled):
        run_sampler(sampler, denoise, start_latents(sigmas[0]), sigmas, seed=1, on_step=stop)
    assert calls <= 7  # at most three in each of the two steps before, one in the step itself


@pytest.mark.parametrize("sampler", DISTINCT)
def test_with_no_step_to_make_gives_the_input_back(sampler: str):
    start = start_latents(torch.tensor(1.0))
    assert run_sampler(sampler, denoise_gaussian, start, torch.tensor([1.0]), seed=1) is start


@pytest.mark.parametrize("sampler", FIRST_ORDER)
def test_two_parts_of_a_walk_without_memory_are_the_whole(sampler: str):
    sigmas = build_sigmas("normal", NOISE_SCHEDULE, 8)
    start = start_latents(sigmas[0])
    half_way = run_sampler(sampler, denoise_gaussian, start, sigmas[:5], seed=1)
    assert torch.equal(
        run_sampler(sampler, denoise_gaussian, half_way, sigmas[4:], seed=1),
        run_sampler(sampler, denoise_gaussian, start, sigmas, seed=1),
    )


@pytest.mark.parametrize("sampler", DISTINCT)
def test_ends_anywhere_and_starts_again_from_there(sampler: str):
    sigmas = build_sigmas("karras", NOISE_SCHEDULE, 12)
    half_way = run_sampler(sampler, denoise_gaussian, start_latents(sigmas[0]), sigmas[:7], seed=1)
    assert float(half_way.std()) == pytest.approx(math.hypot(SPREAD, float(sigmas[6])), rel=0.4)
    assert float(run_sampler(sampler, denoise_gaussian, half_way, sigmas[6:], seed=2).std()) < 3 * SPREAD


def test_entered_at_the_first_step_diffusers_pndm_is_the_plain_one():
    sigmas = build_sigmas("diffusers_leading", NOISE_SCHEDULE, 9)
    start = start_latents(sigmas[0])
    plain = run_sampler("pndm", denoise_gaussian, start, sigmas, seed=1)
    torch.testing.assert_close(sample_pndm_as_diffusers(denoise_gaussian, start, sigmas), plain)


def test_entered_at_the_first_step_diffusers_lms_is_the_plain_one_but_for_the_step_to_zero():
    sigmas = build_sigmas("diffusers_linspace", NOISE_SCHEDULE, 9)[:-1]
    start = start_latents(sigmas[0])
    plain = run_sampler("lms", denoise_gaussian, start, sigmas, seed=1)
    torch.testing.assert_close(sample_lms_as_diffusers(denoise_gaussian, start, sigmas), plain)


@pytest.mark.parametrize("sampler", OWN_STEPS)
def test_steps_of_ones_own_end_at_the_lowest_sigma_and_can_be_stopped(sampler: str):
    sigmas = build_sigmas("normal", NOISE_SCHEDULE, 12)
    target, noise = torch.full((1, 4, 8, 8), 0.25), torch.randn(1, 4, 8, 8)
    result = run_sampler(sampler, lambda latents, sigma: target, target + sigmas[0] * noise, sigmas, seed=1)
    torch.testing.assert_close(result, target + sigmas[-2] * noise, atol=1e-4, rtol=1e-4)
    told: list[int] = []

    def stop(step: int, denoised: Tensor) -> None:
        told.append(step)
        if len(told) == 2:
            raise JobCancelled("stopped by its owner")

    with pytest.raises(JobCancelled):
        run_sampler(sampler, denoise_gaussian, start_latents(sigmas[0]), sigmas, seed=1, on_step=stop)
    assert told == [0, 1]


def test_dpm_fast_asks_the_network_once_for_each_step():
    calls = 0

    def count(latents: Tensor, sigma: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return denoise_gaussian(latents, sigma)

    for steps in range(2, 10):
        calls = 0
        sigmas = build_sigmas("normal", NOISE_SCHEDULE, steps)
        run_sampler("dpm_fast", count, start_latents(sigmas[0]), sigmas, seed=1)
        assert calls == steps


CFG_PP = [name for name in SAMPLERS if name.endswith("_cfg_pp")]


@pytest.mark.parametrize("sampler", CFG_PP)
def test_cfg_pp_without_guidance_is_its_plain_kin(sampler: str):
    sigmas = build_sigmas("karras", NOISE_SCHEDULE, 8)
    results = [
        run_sampler(name, denoise_gaussian, start_latents(sigmas[0]), sigmas, seed=1)
        for name in (sampler, sampler.removesuffix("_cfg_pp"))
    ]
    torch.testing.assert_close(*results, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sampler", CFG_PP)
def test_cfg_pp_noises_again_with_what_the_negative_prompt_sees(sampler: str):
    """Where guidance says `target` and the negative prompt `other`, a step keeps the noise that `other` leaves."""
    target, other = torch.full((1, 4, 8, 8), 0.25), torch.full((1, 4, 8, 8), -1.0)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    sigmas = torch.tensor([4.0, 2.0])
    denoise = TwoSidedDenoiser(lambda latents, sigma: (target, other))
    start = other + 4.0 * noise
    result = run_sampler(sampler, denoise, start, sigmas, seed=1)
    if SAMPLERS[sampler].noise == "none":
        torch.testing.assert_close(result, target + 2.0 * noise)
    plain = run_sampler(sampler.removesuffix("_cfg_pp"), denoise, start, sigmas, seed=1)
    assert not torch.allclose(result, plain)


def test_a_second_name_is_the_same_sampler():
    assert all(SAMPLERS[second] == SAMPLERS[first] for second, first in SECOND_NAMES.items())


def test_an_unknown_sampler_is_refused_with_the_known_ones():
    with pytest.raises(InvalidRequest, match=r'"eular".*euler'):
        run_sampler("eular", denoise_gaussian, torch.zeros(1, 4, 8, 8), torch.tensor([1.0, 0.0]), seed=1)


def test_the_manual_names_every_sampler_and_schedule():
    manual = (Path(__file__).parent.parent.parent / "docs/samplers.md").read_text(encoding="utf-8")
    assert [name for name in (*SAMPLERS, *SCHEDULES) if f"`{name}`" not in manual] == []


def test_the_first_order_error_halves_with_the_steps():
    ratio = relative_error("euler", 40) / relative_error("euler", 80)
    assert math.isclose(ratio, 2, rel_tol=0.15)
