"""The loop's rules, on a network of a few hundred weights. With a real U-Net it is held to diffusers' own loop in
test_equals_diffusers.py."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from atoll.diffusion.conditioning import Conditioning
from atoll.diffusion.guidance import build_denoiser
from atoll.diffusion.model import Model
from atoll.diffusion.noise import draw_start_noise
from atoll.diffusion.sample import sample_latents
from atoll.diffusion.samplers import SAMPLERS, run_sampler
from atoll.diffusion.sigmas import (
    COMFYUI_SCHEDULES,
    DIFFUSERS_SCHEDULES,
    SCHEDULES,
    NoiseSchedule,
    build_partial_sigmas,
    build_sigmas,
)
from atoll.errors import InvalidRequest, JobCancelled, OutOfMemory

CONFIG = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}


class SmallNetwork(torch.nn.Module):
    """Called like a U-Net; mixes neighbouring latents with what it is told."""

    def __init__(self, in_channels: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = SimpleNamespace(in_channels=in_channels, cross_attention_dim=32)
        self.look = torch.nn.Conv2d(in_channels, 8, 3, padding=1)
        self.hear = torch.nn.Linear(32, 8)
        self.answer = torch.nn.Conv2d(8, 4, 1)

    def forward(self, inputs: Tensor, timestep: Tensor, *, encoder_hidden_states: Tensor, **rest: Any) -> tuple[Tensor]:
        told = self.hear(encoder_hidden_states.mean(dim=1) + timestep[:, None] / 1000)
        return (self.answer(torch.tanh(self.look(inputs) + told[:, :, None, None])),)


# A factor that is a power of two, so that scaling latents rounds nothing off.
MODEL = Model(SmallNetwork(), NoiseSchedule.from_config(CONFIG), scaling_factor=0.25, name="tiny")
POSITIVE = [Conditioning(torch.randn(1, 77, 32, generator=torch.Generator().manual_seed(1)))]
NEGATIVE = [Conditioning(torch.randn(1, 77, 32, generator=torch.Generator().manual_seed(2)))]
NOTHING = torch.zeros(1, 4, 8, 8)


def picture(batch: int = 1) -> Tensor:
    return torch.randn(batch, 4, 8, 8, generator=torch.Generator().manual_seed(3)) * 4


def sample(latents: Tensor, model: Model = MODEL, **changes: Any) -> Tensor:
    arguments: dict[str, Any] = {
        "seed": 11, "num_inference_steps": 4, "guidance_scale": 3.0, "sampler": "euler", "schedule": "normal"
    }  # fmt: skip
    return sample_latents(model, POSITIVE, NEGATIVE, latents, **(arguments | changes))


def left_half() -> Tensor:
    mask = torch.zeros(1, 64, 64)
    mask[..., :32] = 1
    return mask


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_makes_a_picture_that_its_seed_repeats(sampler: str):
    first, again, other = (sample(NOTHING, sampler=sampler, seed=seed) for seed in (1, 1, 2))
    assert first.shape == NOTHING.shape
    assert first.dtype == torch.float32
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


@pytest.mark.parametrize("schedule", DIFFUSERS_SCHEDULES)
@pytest.mark.parametrize("sampler", ["euler", "dpm_2", "pndm"])
def test_full_strength_forgets_the_picture_as_diffusers_does(sampler: str, schedule: str):
    how = {"sampler": sampler, "schedule": schedule, "denoising_strength": 1.0}
    assert torch.equal(sample(picture(), **how), sample(NOTHING, **how))


@pytest.mark.parametrize("schedule", COMFYUI_SCHEDULES)
def test_full_strength_adds_full_noise_to_the_picture_as_comfyui_does(schedule: str):
    sigmas = build_sigmas(schedule, MODEL.noise_schedule, 4)
    noise = draw_start_noise((1, 4, 8, 8), 11)
    is_full = float(sigmas[0]) >= MODEL.noise_schedule.sigma_max * (1 - 1e-5)
    start = picture() * 0.25 + noise * (math.sqrt(1 + float(sigmas[0]) ** 2) if is_full else sigmas[0])
    with torch.no_grad():
        expected = run_sampler("euler", build_denoiser(MODEL, POSITIVE, NEGATIVE, 3.0), start, sigmas, seed=11) / 0.25
    torch.testing.assert_close(sample(picture(), schedule=schedule), expected)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_no_strength_gives_the_picture_back(schedule: str):
    assert torch.equal(sample(picture(), schedule=schedule, denoising_strength=0.0), picture())


@pytest.mark.parametrize("schedule", ["karras", "diffusers_leading"])
def test_less_strength_stays_nearer_to_the_picture(schedule: str):
    ways = [sample(picture(), schedule=schedule, num_inference_steps=10, denoising_strength=s) for s in (0.2, 0.5, 0.9)]
    distances = [float((way - picture()).norm()) for way in ways]
    assert distances == sorted(distances)


def test_what_runs_is_the_sampler_on_scaled_latents_with_the_seed_s_noise():
    sigmas = build_partial_sigmas("karras", MODEL.noise_schedule, 4, 0.5)
    start = picture() * 0.25 + draw_start_noise((1, 4, 8, 8), 11) * sigmas[0]
    with torch.no_grad():
        expected = run_sampler("euler", build_denoiser(MODEL, POSITIVE, NEGATIVE, 3.0), start, sigmas, seed=11) / 0.25
    assert torch.equal(sample(picture(), schedule="karras", denoising_strength=0.5), expected)


def test_a_picture_from_nothing_starts_with_variance_one_in_the_network_s_scale():
    sigmas = build_sigmas("normal", MODEL.noise_schedule, 4)
    start = draw_start_noise((1, 4, 8, 8), 11) * math.sqrt(1 + float(sigmas[0]) ** 2)
    with torch.no_grad():
        expected = run_sampler("euler", build_denoiser(MODEL, POSITIVE, NEGATIVE, 3.0), start, sigmas, seed=11) / 0.25
    torch.testing.assert_close(sample(NOTHING), expected)


def test_steps_are_told_from_one_to_the_last_with_unscaled_estimates():
    told: list[tuple[int, int]] = []
    estimates: list[Tensor] = []

    def on_step(step: int, total: int, denoised: Tensor) -> None:
        told.append((step, total))
        estimates.append(denoised)

    result = sample(NOTHING, on_step=on_step)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    torch.testing.assert_close(estimates[-1], result)


@pytest.mark.parametrize(
    ("sampler", "schedule", "strength", "total"),
    [
        ("ddim", "ddim_uniform", 1.0, 8),  # 1000 // 7 leaves room for one more
        ("euler", "karras", 0.5, 7),
        ("euler", "diffusers_linspace", 0.5, 3),
        ("pndm", "diffusers_leading", 1.0, 8),
        ("pndm", "diffusers_leading", 0.5, 4),
        ("dpm_2", "karras", 1.0, 7),
    ],
)
def test_the_total_that_is_told_is_reached(sampler: str, schedule: str, strength: float, total: int):
    told: list[tuple[int, int]] = []
    sample(
        picture(),
        sampler=sampler,
        schedule=schedule,
        num_inference_steps=7,
        denoising_strength=strength,
        on_step=lambda step, total, denoised: told.append((step, total)),
    )
    assert told == [(step, total) for step in range(1, total + 1)]


def test_whoever_is_told_can_stop():
    told: list[int] = []

    def stop(step: int, total: int, denoised: Tensor) -> None:
        told.append(step)
        if step == 2:
            raise JobCancelled("stopped by its owner")

    with pytest.raises(JobCancelled):
        sample(NOTHING, on_step=stop)
    assert told == [1, 2]


@pytest.mark.parametrize("schedule", ["normal", "diffusers_linspace"])
def test_two_parts_with_leftover_noise_are_the_whole(schedule: str):
    how = {"schedule": schedule, "num_inference_steps": 6}
    half_way = sample(NOTHING, **how, start_at_step=0, end_at_step=4, return_with_leftover_noise=True)
    result = sample(half_way, **how, add_noise=False, start_at_step=4, end_at_step=10_000)
    torch.testing.assert_close(result, sample(NOTHING, **how), atol=1e-4, rtol=1e-4)


def test_without_leftover_noise_the_last_step_of_a_part_goes_to_zero():
    sigmas = build_sigmas("normal", MODEL.noise_schedule, 6)[:4].clone()
    sigmas[-1] = 0
    start = draw_start_noise((1, 4, 8, 8), 11) * math.sqrt(1 + float(sigmas[0]) ** 2)
    with torch.no_grad():
        expected = run_sampler("euler", build_denoiser(MODEL, POSITIVE, NEGATIVE, 3.0), start, sigmas, seed=11) / 0.25
    torch.testing.assert_close(sample(NOTHING, num_inference_steps=6, end_at_step=3), expected)


@pytest.mark.parametrize("schedule", ["normal", "diffusers_leading"])
@pytest.mark.parametrize("bounds", [(4, 10), (10_000, 10_000), (0, 0), (3, 2)])
def test_a_part_without_steps_gives_the_input_back(schedule: str, bounds: tuple[int, int]):
    part = sample(picture(), schedule=schedule, start_at_step=bounds[0], end_at_step=bounds[1])
    assert torch.equal(part, picture())


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("schedule", ["karras", "diffusers_leading"])
def test_inpainting_keeps_what_is_not_masked_to_the_last_bit(sampler: str, schedule: str):
    result = sample(picture(), sampler=sampler, schedule=schedule, noise_mask=left_half(), denoising_strength=0.75)
    assert torch.equal(result[..., 4:], picture()[..., 4:])
    assert not torch.allclose(result[..., :4], picture()[..., :4], atol=0.1)


def test_a_mask_over_everything_is_no_mask():
    how = {"denoising_strength": 0.6, "schedule": "karras"}
    torch.testing.assert_close(sample(picture(), noise_mask=torch.ones(1, 64, 64), **how), sample(picture(), **how))
    torch.testing.assert_close(sample(picture(), noise_mask=torch.ones(1, 64, 64)), sample(picture()))


def test_a_mask_over_nothing_changes_nothing():
    assert torch.equal(sample(picture(), noise_mask=torch.zeros(1, 64, 64)), picture())


def test_a_soft_mask_mixes_the_last_estimate_with_the_picture():
    seen: list[Tensor] = []

    def keep(step: int, total: int, denoised: Tensor) -> None:
        seen.append(denoised)

    result = sample(picture(), noise_mask=torch.full((1, 64, 64), 0.5), denoising_strength=0.5, on_step=keep)
    hard = sample(picture(), noise_mask=torch.ones(1, 64, 64), denoising_strength=0.5)
    torch.testing.assert_close(result, seen[-1], atol=1e-4, rtol=1e-4)
    assert (result - picture()).norm() < (hard - picture()).norm()


def test_ddim_shows_what_is_kept_with_the_noise_of_the_next_seed():
    """ComfyUI's rule; otherwise ddim is euler."""
    how = {"schedule": "normal", "denoising_strength": 0.5, "seed": 11}
    assert torch.equal(sample(picture(), sampler="ddim", **how), sample(picture(), sampler="euler", **how))
    masked = [sample(picture(), sampler=name, noise_mask=left_half(), **how) for name in ("ddim", "euler")]
    assert torch.equal(masked[0][..., 4:], masked[1][..., 4:])
    assert not torch.allclose(masked[0][..., :4], masked[1][..., :4])
    seen: list[Tensor] = []
    unet = SmallNetwork()
    unet.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    sample(
        picture(), Model(unet, MODEL.noise_schedule, scaling_factor=0.25), sampler="ddim", noise_mask=left_half(), **how
    )
    sigma = build_partial_sigmas("normal", MODEL.noise_schedule, 4, 0.5)[0]
    kept = (picture() * 0.25 + draw_start_noise((1, 4, 8, 8), 12) * sigma) / (1 + sigma**2).sqrt()
    torch.testing.assert_close(seen[0][:1, ..., 4:], kept[..., 4:])


@pytest.mark.parametrize("shape", [(8, 8), (1, 64, 64), (2, 1, 16, 16), (3, 1, 8, 8), (1, 1, 8, 8)])
def test_a_mask_comes_in_any_form(shape: tuple[int, ...]):
    mask = torch.zeros(shape)
    mask[..., : shape[-1] // 2] = 1
    result = sample(picture(batch=2), noise_mask=mask, denoising_strength=0.5)
    assert torch.equal(result[..., 5:], picture(batch=2)[..., 5:])


def test_one_picture_of_a_batch_can_be_made_again_alone():
    whole = sample(NOTHING.expand(3, -1, -1, -1), batch_index=[0, 1, 2])
    alone = sample(NOTHING, batch_index=[2])
    torch.testing.assert_close(alone, whole[2:], atol=1e-4, rtol=1e-4)


def test_with_a_seed_for_each_picture_the_second_is_the_first_of_the_next_seed():
    both = sample(NOTHING.expand(2, -1, -1, -1), sampler="euler_ancestral", noise_rule="per_image")
    torch.testing.assert_close(
        sample(NOTHING, sampler="euler_ancestral", noise_rule="per_image", seed=12), both[1:], atol=1e-4, rtol=1e-4
    )


def test_an_inpainting_network_without_masked_latents_is_shown_the_latents_and_mask_of_the_request():
    shown: list[Tensor] = []
    unet = SmallNetwork(in_channels=9)
    unet.register_forward_pre_hook(lambda module, inputs: shown.append(inputs[0]))
    model = Model(unet, NoiseSchedule.from_config(CONFIG), scaling_factor=0.25)
    sample(picture(), model, noise_mask=left_half())
    torch.testing.assert_close(shown[0][:1, 5:], picture() * 0.25)
    assert torch.equal(shown[0][0, 4], torch.tensor([1.0] * 4 + [0.0] * 4).expand(8, 8))


def test_no_gradients_are_kept_and_the_input_is_left_alone():
    latents = picture()
    result = sample(latents, denoising_strength=0.5, sampler="dpmpp_2m")
    assert not result.requires_grad
    assert torch.equal(latents, picture())


@pytest.mark.parametrize("steps", [1000, 1500])
def test_more_steps_than_trained_levels_do_not_divide_by_zero(steps: int):
    short = NoiseSchedule.from_config({"trained_betas": [0.01, 0.05, 0.2, 0.4, 0.6], "num_train_timesteps": 5})
    model = Model(MODEL.unet, short)
    result = sample(NOTHING, model, sampler="dpmpp_2m", schedule="simple", num_inference_steps=steps // 100)
    assert result.isfinite().all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_inference_steps": 0}, r"num_inference_steps is 0; it must lie in 1\.\.10000"),
        ({"num_inference_steps": 10_001}, "10001"),
        ({"guidance_scale": math.nan}, "guidance_scale is nan"),
        ({"guidance_scale": math.nan, "denoising_strength": 0.0}, "guidance_scale is nan"),
        ({"denoising_strength": 1.5}, r"denoising_strength is 1\.5"),
        ({"denoising_strength": math.nan}, "denoising_strength is nan"),
        ({"sampler": "eular"}, '"eular"'),
        ({"sampler": "eular", "denoising_strength": 0.0}, '"eular"'),
        ({"schedule": "kerras"}, '"kerras"'),
        ({"schedule": "kerras", "denoising_strength": 0.0}, '"kerras"'),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is"),
        ({"start_at_step": -1}, "start_at_step -1"),
    ],
)
def test_what_cannot_be_is_refused_with_words(changes: dict[str, Any], words: str):
    with pytest.raises(InvalidRequest, match=words):
        sample(NOTHING, **changes)


def test_latents_of_another_vae_are_refused():
    with pytest.raises(InvalidRequest, match=r"\[1, 16, 8, 8\] do not fit tiny"):
        sample(torch.zeros(1, 16, 8, 8))


def test_running_out_of_memory_says_at_which_step_and_what_to_do():
    unet = SmallNetwork()
    calls = 0

    def refuse(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    unet.register_forward_pre_hook(refuse)
    with pytest.raises(OutOfMemory, match=r"at step 3 of 4, with a batch of 1 at 64x64\. Try"):
        sample(NOTHING, Model(unet, MODEL.noise_schedule))


def test_other_failures_of_the_network_are_not_called_memory():
    unet = SmallNetwork()

    def fail(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        raise RuntimeError("shapes do not match")

    unet.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        sample(NOTHING, Model(unet, MODEL.noise_schedule))
