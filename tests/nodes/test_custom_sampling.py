"""Sampling in pieces is the same sampling."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from node_context import RecordingContext

from atoll.diffusion.sigmas import build_sigmas
from atoll.errors import InvalidRequest
from atoll.nodes import conditioning, latents, model_patches, sampling
from atoll.nodes import custom_sampling as custom

EULER = {"sampler_name": "euler"}


@pytest.fixture
def parts(context: RecordingContext) -> dict[str, Any]:
    checkpoint = context.models.checkpoint("lagoon")
    positive, negative = (conditioning.encode_text(checkpoint.text_encoder, text=text) for text in ("a red cube", ""))
    empty = latents.empty_latents(width=32, height=32, batch_size=2)
    return {"model": checkpoint.model, "positive": positive, "negative": negative, "latent_image": empty}


def test_in_pieces_and_in_one_are_the_same_latents(parts: dict[str, Any], context: RecordingContext) -> None:
    whole = sampling.sample(
        **parts, context=context, seed=5, steps=3, cfg=4.0, sampler_name="dpmpp_2m_sde", scheduler="karras"
    )["samples"]
    assert [step for _, step, _ in context.steps] == [1, 2, 3]
    sampler = custom.dpmpp_2m_sde_sampler(solver_type="midpoint", noise_device="cpu")
    sigmas = custom.basic_sigmas(parts["model"], scheduler="karras", steps=3)
    output, denoised = custom.sample_custom(
        **parts, context=context, sampler=sampler, sigmas=sigmas, noise_seed=5, cfg=4.0
    )
    assert torch.equal(output["samples"], whole)
    torch.testing.assert_close(denoised["samples"], whole)
    guider = custom.cfg_guider(parts["model"], parts["positive"], parts["negative"], cfg=4.0)
    noise = custom.random_noise(noise_seed=5)
    advanced, _ = custom.sample_custom_advanced(noise, guider, sampler, sigmas, parts["latent_image"], context)
    assert torch.equal(advanced["samples"], whole)


def test_split_sigmas_and_no_noise_go_on_where_the_first_part_ended(
    parts: dict[str, Any], context: RecordingContext
) -> None:
    sampler = custom.select_sampler(**EULER)
    sigmas = custom.basic_sigmas(parts["model"], scheduler="normal", steps=4)
    guider = custom.cfg_guider(parts["model"], parts["positive"], parts["negative"], cfg=3.0)
    start = parts["latent_image"]
    whole, _ = custom.sample_custom_advanced(custom.random_noise(), guider, sampler, sigmas, start, context)
    high, low = custom.split_sigmas(sigmas, step=2)
    half_way, estimate = custom.sample_custom_advanced(custom.random_noise(), guider, sampler, high, start, context)
    rest, _ = custom.sample_custom_advanced(custom.no_noise(), guider, sampler, low, half_way, context)
    torch.testing.assert_close(rest["samples"], whole["samples"], atol=1e-3, rtol=1e-3)
    assert not torch.allclose(half_way["samples"], estimate["samples"])


def test_no_sigmas_give_the_latents_back(parts: dict[str, Any], context: RecordingContext) -> None:
    nothing = custom.basic_sigmas(parts["model"], scheduler="normal", steps=4, denoise=0.0)
    assert len(nothing) == 0
    output, _ = custom.sample_custom(
        **parts, context=context, sampler=custom.select_sampler(**EULER), sigmas=nothing, cfg=3.0
    )
    assert torch.equal(output["samples"], parts["latent_image"]["samples"])


@pytest.mark.parametrize("style", ["regular", "nested"])
def test_two_prompts_that_are_one_are_guided_as_one(
    parts: dict[str, Any], context: RecordingContext, style: str
) -> None:
    model, positive, negative = parts["model"], parts["positive"], parts["negative"]
    dual = custom.dual_cfg_guider(
        model, positive, positive, negative, cfg_conds=9.0, cfg_cond2_negative=3.0, style=style
    )
    plain = custom.cfg_guider(model, positive, negative, cfg=3.0)
    sigmas, sampler = custom.basic_sigmas(model, scheduler="normal", steps=2), custom.select_sampler(**EULER)
    results = [
        custom.sample_custom_advanced(custom.random_noise(), guider, sampler, sigmas, parts["latent_image"], context)[0]
        for guider in (dual, plain)
    ]
    torch.testing.assert_close(results[0]["samples"], results[1]["samples"], atol=1e-2, rtol=1e-3)


def test_the_lists_of_sigmas(parts: dict[str, Any]) -> None:
    schedule = parts["model"].noise_schedule
    karras = custom.karras_sigmas(steps=6, sigma_max=schedule.sigma_max, sigma_min=schedule.sigma_min)
    torch.testing.assert_close(karras, build_sigmas("karras", schedule, 6))
    exponential = custom.exponential_sigmas(steps=6, sigma_max=schedule.sigma_max, sigma_min=schedule.sigma_min)
    torch.testing.assert_close(exponential, build_sigmas("exponential", schedule, 6))
    assert torch.equal(custom.polyexponential_sigmas(steps=6), custom.exponential_sigmas(steps=6))
    assert torch.equal(custom.beta_sigmas(parts["model"], steps=6), build_sigmas("beta", schedule, 6))
    turbo = custom.turbo_sigmas(parts["model"], steps=2, denoise=0.5)
    torch.testing.assert_close(turbo, torch.tensor([*schedule.sigmas[[499, 399]], 0.0]))
    vp = custom.vp_sigmas(steps=5)
    assert float(vp[0]) == pytest.approx((torch.tensor(19.9 / 2 + 0.1).exp() - 1).sqrt().item(), rel=1e-5)
    partial = custom.basic_sigmas(parts["model"], scheduler="simple", steps=4, denoise=0.5)
    assert torch.equal(partial, build_sigmas("simple", schedule, 8)[-5:])


def test_cutting_and_turning_sigmas() -> None:
    sigmas = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.0])
    assert [part.tolist() for part in custom.split_sigmas(sigmas, step=1)] == [[8, 4], [4, 2, 1, 0]]
    assert [part.tolist() for part in custom.split_sigmas_by_strength(sigmas, denoise=0.5)] == [[8, 4, 2], [2, 1, 0]]
    assert [part.tolist() for part in custom.split_sigmas_by_strength(sigmas, denoise=0.0)] == [[], [0]]
    flipped = custom.flip_sigmas(sigmas)
    torch.testing.assert_close(flipped, torch.tensor([0.0001, 1, 2, 4, 8]))
    assert sigmas[0] == 8


def test_samplers_without_fresh_noise_are_their_plain_kin(parts: dict[str, Any], context: RecordingContext) -> None:
    sigmas = custom.basic_sigmas(parts["model"], scheduler="karras", steps=4)
    guider = custom.cfg_guider(parts["model"], parts["positive"], parts["negative"], cfg=3.0)

    def run(sampler: Any) -> torch.Tensor:
        noise = custom.random_noise(noise_seed=2)
        return custom.sample_custom_advanced(noise, guider, sampler, sigmas, parts["latent_image"], context)[0][
            "samples"
        ]

    kin = {
        "euler": custom.euler_ancestral_sampler(eta=0.0),
        "dpmpp_2m": custom.dpmpp_2m_sde_sampler(solver_type="midpoint", eta=0.0, noise_device="gpu"),
        "lms": custom.lms_sampler(order=4),
    }
    for name, sampler in kin.items():
        torch.testing.assert_close(run(sampler), run(custom.select_sampler(sampler_name=name)), atol=1e-2, rtol=5e-3)
    torch.testing.assert_close(
        run(custom.lms_sampler(order=1)), run(custom.select_sampler(**EULER)), atol=1e-2, rtol=1e-3
    )
    standard = run(custom.dpmpp_sde_sampler(noise_device="cpu"))
    assert torch.equal(standard, run(custom.select_sampler(sampler_name="dpmpp_sde")))
    assert not torch.allclose(standard, run(custom.dpmpp_sde_sampler(r=0.3, noise_device="cpu")))


def test_numbers_that_make_no_list_are_refused_in_words() -> None:
    with pytest.raises(InvalidRequest, match="rho is 0"):
        custom.karras_sigmas(rho=0.0)
    with pytest.raises(InvalidRequest, match="must both be above 0"):
        custom.exponential_sigmas(sigma_min=0.0)
    with pytest.raises(InvalidRequest, match="r is 0"):
        custom.dpmpp_sde_sampler(r=0.0, noise_device="cpu")


def test_what_the_network_answers_can_be_said(parts: dict[str, Any]) -> None:
    model = parts["model"]
    for name, kind in (("eps", "epsilon"), ("v_prediction", "v_prediction"), ("x0", "x0")):
        told = model_patches.set_prediction(model, sampling=name)
        assert (told.noise_schedule.prediction_type, told.unet) == (kind, model.unet)
    stretched = model_patches.set_prediction(model, sampling="v_prediction", zsnr=True).noise_schedule
    assert stretched.sigma_max == pytest.approx(4518.8, rel=1e-3)
    assert stretched.sigma_min == pytest.approx(model.noise_schedule.sigma_min, rel=1e-4)


def test_a_consistency_model_knows_fifty_levels_by_their_old_timesteps(parts: dict[str, Any]) -> None:
    schedule = model_patches.set_prediction(parts["model"], sampling="lcm").noise_schedule
    before = parts["model"].noise_schedule
    assert len(schedule.sigmas) == 50
    assert torch.equal(schedule.sigmas[[0, 49]], before.sigmas[[19, 999]])
    assert schedule.nearest_timestep(before.sigmas[[19, 999]]).tolist() == [19, 999]
    assert float(schedule.sigma_at(schedule.position_of(torch.tensor(999.0)))) == pytest.approx(before.sigma_max)


def test_prompts_are_joined_mixed_and_placed(parts: dict[str, Any]) -> None:
    first, second = parts["positive"], parts["negative"]
    both = conditioning.combine(first, second)
    assert (len(both), both[0]) == (2, first[0])
    joined = conditioning.concatenate(first, second)[0].embeds
    assert torch.equal(joined, torch.cat([first[0].embeds, second[0].embeds], dim=1))
    mixed = conditioning.average(first, second, conditioning_to_strength=0.25)[0].embeds
    torch.testing.assert_close(mixed, first[0].embeds * 0.25 + second[0].embeds * 0.75)
    long = conditioning.concatenate(first, second)
    filled = conditioning.average(long, second, conditioning_to_strength=0.5)[0].embeds
    torch.testing.assert_close(filled[:, 77:], long[0].embeds[:, 77:] * 0.5)
    placed = conditioning.set_area(first, width=64, height=128, x=8, y=16, strength=0.5)[0]
    assert (placed.area.height, placed.area.width, placed.area.top, placed.area.left) == (16, 8, 2, 1)
    assert (placed.strength, first[0].strength, first[0].area) == (0.5, 1.0, None)
    assert conditioning.zero_out(first)[0].embeds.abs().max() == 0
    spoken = conditioning.set_timestep_range(first, start=0.2, end=0.6)[0]
    assert (spoken.start_percent, spoken.end_percent) == (0.2, 0.6)
    wide = [dataclasses.replace(first[0], embeds=torch.zeros(1, 77, 64))]
    with pytest.raises(InvalidRequest, match="vectors of 32 and of 64"):
        conditioning.concatenate(first, wide)


def test_the_two_grammars_read_brackets_each_in_its_way(context: RecordingContext) -> None:
    clip = context.models.checkpoint("lagoon").text_encoder
    plain = conditioning.encode_text(clip, text="a [cat] BREAK here")[0].embeds
    assert plain.shape[1] == 77
    read = conditioning.encode_a1111_text(clip, text="a [cat] BREAK here")[0].embeds
    assert read.shape[1] == 154
    weights = [
        conditioning.encode_a1111_text(clip, text="a (cat:1.4)", emphasis=name)[0].embeds for name in ("comfy", "a1111")
    ]
    assert torch.equal(weights[0], conditioning.encode_text(clip, text="a (cat:1.4)")[0].embeds)
    assert not torch.allclose(weights[0], weights[1])
    with pytest.raises(InvalidRequest, match="not SDXL's"):
        conditioning.encode_sdxl_text(clip, text_g="a", text_l="b")
