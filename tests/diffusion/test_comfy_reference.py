"""Every schedule and every sampler equals what ComfyUI was recorded to give.

The recordings are sigmas.json and ksampler_toy.json under tests/data/comfy, or in the folder that
ATOLL_KSAMPLER_REFERENCE names. A sampler or schedule that is recorded there and missing here is a failure.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from atoll.diffusion.noise import draw_start_noise
from atoll.diffusion.samplers import run_sampler
from atoll.diffusion.sigmas import NoiseSchedule, build_partial_sigmas, build_sigmas

COMMITTED = Path(__file__).parent.parent / "data" / "comfy"
FOLDER = Path(os.environ.get("ATOLL_KSAMPLER_REFERENCE") or COMMITTED)
RECORDED_SIGMAS: dict[str, Any] = json.loads((FOLDER / "sigmas.json").read_text(encoding="utf-8"))
RECORDED_CASES: list[dict[str, Any]] = json.loads((FOLDER / "ksampler_toy.json").read_text(encoding="utf-8"))["cases"]
NOISE_SCHEDULE = NoiseSchedule.from_config({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012})
SHAPE = (2, 4, 4, 4)


def case_name(case: dict[str, Any]) -> str:
    return "-".join(str(case[key]) for key in ("sampler", "scheduler", "steps", "seed", "denoise"))


def denoise_toy(latents: Tensor, sigma: Tensor) -> Tensor:
    inner = 0.7 * latents / torch.sqrt(1 + sigma**2) + 0.1 * torch.roll(latents, 1, dims=-1) / (1 + sigma)
    return 0.8 * torch.tanh(inner)


def run_case(case: dict[str, Any], *, full_start: bool) -> Tensor:
    sigmas = torch.tensor(case["sigmas"])
    noise = draw_start_noise(SHAPE, case["seed"])
    latents = torch.zeros(SHAPE)
    if case["denoise"] < 1:
        latents = torch.linspace(-1, 1, math.prod(SHAPE)).reshape(SHAPE)
    start = noise * torch.sqrt(1 + sigmas[0] ** 2) if full_start else noise * sigmas[0] + latents
    return run_sampler(case["sampler"], denoise_toy, start, sigmas, seed=case["seed"])


def test_the_noise_range_is_the_recorded_one():
    assert NOISE_SCHEDULE.sigma_min == pytest.approx(RECORDED_SIGMAS["sigma_min"], rel=1e-6)
    assert NOISE_SCHEDULE.sigma_max == pytest.approx(RECORDED_SIGMAS["sigma_max"], rel=1e-6)


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [(schedule, int(steps)) for schedule, lists in RECORDED_SIGMAS["sigmas"].items() for steps in lists],
)
def test_sigmas_equal_the_recorded_ones(schedule: str, steps: int):
    recorded = torch.tensor(RECORDED_SIGMAS["sigmas"][schedule][str(steps)])
    sigmas = build_sigmas(schedule, NOISE_SCHEDULE, steps)
    assert sigmas.shape == recorded.shape
    assert sigmas.isfinite().all()
    is_number = ~recorded.isnan()  # kl_optimal with 1 step divides by zero there; ours is judged in test_sigmas.py
    torch.testing.assert_close(sigmas[is_number], recorded[is_number], rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("case", RECORDED_CASES, ids=case_name)
def test_sampler_equals_the_recorded_one(case: dict[str, Any]):
    recorded = torch.tensor(case["result"]).reshape(SHAPE)
    starts_at_top = case["sigmas"][0] > NOISE_SCHEDULE.sigma_max * (1 - 1e-5)
    result = run_case(case, full_start=starts_at_top)
    if case["denoise"] == 1 and not starts_at_top and not torch.allclose(result, recorded, atol=1e-4, rtol=1e-4):
        # The recording's words leave open whether a whole list that begins below the top is a full start.
        result = run_case(case, full_start=True)
    torch.testing.assert_close(result, recorded, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("case", RECORDED_CASES, ids=case_name)
def test_the_recorded_sigmas_follow_from_steps_and_denoise(case: dict[str, Any]):
    recorded = torch.tensor(case["sigmas"])
    if case["sampler"].startswith("uni_pc"):
        recorded[-1] = 0  # the recorded solver wrote its own end into the list
    arguments = (case["scheduler"], NOISE_SCHEDULE, case["steps"], case["denoise"])
    possible = [build_partial_sigmas(*arguments, drop_penultimate=drop) for drop in (False, True)]
    assert any(
        sigmas.shape == recorded.shape and torch.allclose(sigmas, recorded, rtol=2e-6, atol=1e-6) for sigmas in possible
    )
