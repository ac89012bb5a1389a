"""The engine's loop against diffusers' own pipelines: same random weights, same noise, same latents out."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
from tiny_models import build_tiny_parts
from torch import Tensor

from atoll.diffusion.conditioning import Conditioning
from atoll.diffusion.model import Model
from atoll.diffusion.sample import sample_latents
from atoll.diffusion.sigmas import NoiseSchedule

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own

# sampler here, schedule here, scheduler there
SAME = [
    pytest.param("ddim", "diffusers_leading", DDIMScheduler, id="ddim"),
    pytest.param("pndm", "diffusers_leading", PNDMScheduler, id="pndm"),
    pytest.param("lms", "diffusers_linspace", LMSDiscreteScheduler, id="lms"),
    pytest.param("euler", "diffusers_linspace", EulerDiscreteScheduler, id="euler"),
]
SPACED_OTHERWISE = [
    pytest.param("ddim", "diffusers_trailing", DDIMScheduler, "trailing", id="ddim-trailing"),
    pytest.param("lms", "diffusers_leading", LMSDiscreteScheduler, "leading", id="lms-leading"),
    pytest.param("euler", "diffusers_leading", EulerDiscreteScheduler, "leading", id="euler-leading"),
    pytest.param("euler", "diffusers_trailing", EulerDiscreteScheduler, "trailing", id="euler-trailing"),
]
SEED = 5
GUIDANCE_SCALE = 4.0


build_parts = cache(build_tiny_parts)  # nothing changes them


class Pair:
    """A diffusers pipeline and our model around the same parts."""

    def __init__(self, scheduler_class: type, spacing: str | None = None, **options: Any) -> None:
        self.parts = dict(build_parts(**options))
        changes: dict[str, Any] = {} if spacing is None else {"timestep_spacing": spacing}
        if scheduler_class is DDIMScheduler:
            changes["clip_sample"] = False  # as every Stable Diffusion configuration says; diffusers warns otherwise
        self.parts["scheduler"] = scheduler_class.from_config(self.parts["scheduler"].config, **changes)
        torch.manual_seed(3)
        self.positive, self.negative = torch.randn(1, 77, 32), torch.randn(1, 77, 32)
        self.model = Model(self.parts["unet"], NoiseSchedule.from_config(dict(self.parts["scheduler"].config)))

    def run_theirs(self, pipeline_class: type, **arguments: Any) -> Tensor:
        pipeline = pipeline_class(
            **self.parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline(
            prompt_embeds=self.positive,
            negative_prompt_embeds=self.negative,
            guidance_scale=GUIDANCE_SCALE,
            generator=torch.Generator("cpu").manual_seed(SEED),
            output_type="latent",
            **arguments,
        ).images

    def run_ours(self, latents: Tensor, extras: dict[str, Tensor] | None = None, **arguments: Any) -> Tensor:
        """latents as diffusers has them, scaled, both in and out."""
        factor = self.model.scaling_factor
        told = [Conditioning(embeds, **(extras or {})) for embeds in (self.positive, self.negative)]
        result = sample_latents(
            self.model, told[:1], told[1:], latents / factor, seed=SEED, guidance_scale=GUIDANCE_SCALE, **arguments
        )
        return result * factor


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    scale = float(theirs.abs().max())
    torch.testing.assert_close(ours / scale, theirs / scale, atol=2e-5, rtol=0)


def start_picture() -> Tensor:
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(9))


def half_mask() -> Tensor:
    """In pixels, 1 = change."""
    mask = torch.zeros(1, 64, 64)
    mask[:, 16:48, :40] = 1
    return mask


@pytest.mark.parametrize("steps", [1, 2, 7, 10])
@pytest.mark.parametrize(("sampler", "schedule", "scheduler_class"), SAME)
def test_text_to_image(sampler: str, schedule: str, scheduler_class: type, steps: int):
    pair = Pair(scheduler_class)
    theirs = pair.run_theirs(StableDiffusionPipeline, height=64, width=64, num_inference_steps=steps)
    ours = pair.run_ours(torch.zeros(1, 4, 8, 8), num_inference_steps=steps, sampler=sampler, schedule=schedule)
    assert_same(ours, theirs)


@pytest.mark.parametrize(("sampler", "schedule", "scheduler_class", "spacing"), SPACED_OTHERWISE)
def test_text_to_image_in_another_timestep_spacing(sampler: str, schedule: str, scheduler_class: type, spacing: str):
    pair = Pair(scheduler_class, spacing)
    theirs = pair.run_theirs(StableDiffusionPipeline, height=64, width=64, num_inference_steps=8)
    ours = pair.run_ours(torch.zeros(1, 4, 8, 8), num_inference_steps=8, sampler=sampler, schedule=schedule)
    assert_same(ours, theirs)


@pytest.mark.parametrize(("sampler", "schedule", "scheduler_class"), [each for each in SAME if each.id != "pndm"])
def test_text_to_image_by_a_network_that_predicts_v(sampler: str, schedule: str, scheduler_class: type):
    pair = Pair(scheduler_class, prediction_type="v_prediction")
    theirs = pair.run_theirs(StableDiffusionPipeline, height=64, width=64, num_inference_steps=8)
    ours = pair.run_ours(torch.zeros(1, 4, 8, 8), num_inference_steps=8, sampler=sampler, schedule=schedule)
    assert_same(ours, theirs)


@pytest.mark.parametrize("strength", [0.3, 0.75, 0.9])
@pytest.mark.parametrize(("sampler", "schedule", "scheduler_class"), SAME)
def test_image_to_image(sampler: str, schedule: str, scheduler_class: type, strength: float):
    pair = Pair(scheduler_class)
    theirs = pair.run_theirs(
        StableDiffusionImg2ImgPipeline, image=start_picture(), strength=strength, num_inference_steps=10
    )
    ours = pair.run_ours(
        start_picture(), denoising_strength=strength, num_inference_steps=10, sampler=sampler, schedule=schedule
    )
    assert_same(ours, theirs)


@pytest.mark.parametrize("strength", [0.5, 0.9, 1.0])
@pytest.mark.parametrize(("sampler", "schedule", "scheduler_class"), SAME)
def test_inpainting(sampler: str, schedule: str, scheduler_class: type, strength: float):
    pair = Pair(scheduler_class)
    theirs = pair.run_theirs(
        StableDiffusionInpaintPipeline,
        image=start_picture(),
        mask_image=half_mask()[None],
        masked_image_latents=start_picture(),
        strength=strength,
        height=64,
        width=64,
        num_inference_steps=10,
    )
    ours = pair.run_ours(
        start_picture(),
        noise_mask=half_mask(),
        denoising_strength=strength,
        num_inference_steps=10,
        sampler=sampler,
        schedule=schedule,
    )
    assert_same(ours, theirs)


@pytest.mark.parametrize(("sampler", "schedule", "scheduler_class"), SAME)
def test_inpainting_by_a_network_of_nine_channels(sampler: str, schedule: str, scheduler_class: type):
    pair = Pair(scheduler_class, in_channels=9)
    masked = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(10))
    theirs = pair.run_theirs(
        StableDiffusionInpaintPipeline,
        image=start_picture(),
        mask_image=half_mask()[None],
        masked_image_latents=masked,
        strength=1.0,
        height=64,
        width=64,
        num_inference_steps=8,
    )
    extras = {"inpaint_mask": half_mask()[None], "masked_latents": masked / pair.model.scaling_factor}
    ours = pair.run_ours(start_picture(), extras, num_inference_steps=8, sampler=sampler, schedule=schedule)
    assert_same(ours, theirs)
