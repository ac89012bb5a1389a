"""Prompts that speak during some steps: exactly those, whatever the schedule and the sampler."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from atoll.diffusion.conditioning import Conditioning
from atoll.diffusion.guidance import speaks_at
from atoll.diffusion.samplers import find_sampler
from atoll.diffusion.sigmas import NoiseSchedule, build_partial_sigmas
from atoll.errors import InvalidRequest
from atoll.nodes.prompt_steps import limit_to_steps

SCHEDULE = NoiseSchedule.from_config({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"})
MODEL: Any = SimpleNamespace(noise_schedule=SCHEDULE)
SAID = [Conditioning(torch.zeros(1, 77, 8))]


@pytest.mark.parametrize("scheduler", ["normal", "karras", "exponential", "sgm_uniform", "ddim_uniform", "beta"])
@pytest.mark.parametrize(("sampler", "denoise", "start"), [("euler", 1.0, 0), ("dpm_2", 0.6, 0), ("euler", 1.0, 4)])
def test_each_step_hears_the_prompts_that_are_meant_for_it(
    scheduler: str, sampler: str, denoise: float, start: int
) -> None:
    steps = 12
    sampled_with: dict[str, Any] = {"steps": steps, "sampler_name": sampler, "scheduler": scheduler}
    sampled_with |= {"denoise": denoise, "start_at_step": start}
    early = limit_to_steps(SAID, MODEL, ranges="0-3,5-6", **sampled_with)
    late = limit_to_steps(SAID, MODEL, ranges="3-5,6-12", **sampled_with)
    drop = find_sampler(sampler).drop_penultimate
    sigmas = build_partial_sigmas(scheduler, SCHEDULE, steps, denoise, drop_penultimate=drop)[start:-1]
    for step, sigma in enumerate(sigmas.tolist()):
        hears_early = any(speaks_at(MODEL, item, sigma) for item in early)
        hears_late = any(speaks_at(MODEL, item, sigma) for item in late)
        assert (hears_early, hears_late) == ((True, False) if step in (0, 1, 2, 5) else (False, True)), step


def test_a_range_of_no_step_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="5-5 are none"):
        limit_to_steps(SAID, MODEL, ranges="5-5", steps=12, sampler_name="euler", scheduler="normal")
