from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from asked_unet import SD1, SIGMA, RecordedUnet, ask, build_model, some_latents, tell
from diffusers import UNet2DConditionModel

from atoll.diffusion.conditioning import Conditioning
from atoll.diffusion.guidance import GREY_LATENTS, InpaintStart, build_denoiser
from atoll.diffusion.model import Model
from atoll.diffusion.sigmas import NoiseSchedule
from atoll.errors import InvalidRequest, NotANumber


def test_the_estimate_is_the_input_less_sigma_times_the_predicted_noise():
    model, told = build_model(), tell(1)
    denoised = ask(model, [told], [], 1.0)
    asked = model.unet.asked[0]
    torch.testing.assert_close(asked["inputs"], some_latents() / 17**0.5)
    assert asked["timestep"].tolist() == [float(model.noise_schedule.nearest_timestep(SIGMA))] * 2
    with torch.no_grad():
        noise = model.unet.unet(
            asked["inputs"], asked["timestep"], encoder_hidden_states=told.embeds.expand(2, -1, -1)
        ).sample
    torch.testing.assert_close(denoised, some_latents() - SIGMA * noise)


def test_v_is_read_as_a_rotation_between_picture_and_noise():
    told = [tell(1)]
    denoised = ask(model := build_model(prediction_type="v_prediction"), told, [], 1.0)
    asked = model.unet.asked[0]
    with torch.no_grad():
        embeds = told[0].embeds.expand(2, -1, -1)
        v = model.unet.unet(asked["inputs"], asked["timestep"], encoder_hidden_states=embeds).sample
    alpha, noise_share = 1 / 17**0.5, 4 / 17**0.5
    torch.testing.assert_close(denoised, alpha * asked["inputs"] - noise_share * v)


def test_guidance_goes_from_the_negative_through_the_positive():
    model = build_model()
    positive, negative = ask(model, [tell(1)], [], 1.0), ask(model, [tell(2)], [], 1.0)
    guided = ask(model, [tell(1)], [tell(2)], 7.5)
    torch.testing.assert_close(guided, negative + 7.5 * (positive - negative), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ask(model, [tell(1)], [tell(2)], 0.0), negative, atol=1e-5, rtol=1e-5)


def test_without_guidance_the_negative_is_not_run():
    model = build_model()
    without = ask(model, [tell(1)], [tell(2)], 1.0)
    assert [len(asked["inputs"]) for asked in model.unet.asked] == [2]
    torch.testing.assert_close(without, ask(model, [tell(1)], [], 1.0))


@pytest.mark.parametrize(("lengths", "calls"), [((77, 77), 1), ((154, 77), 1), ((231, 154), 1), ((77, 77 * 5), 2)])
def test_prompts_of_unlike_length_share_a_call_where_they_can_and_say_the_same(lengths: tuple[int, int], calls: int):
    model = build_model()
    positive, negative = tell(1, lengths[0]), tell(2, lengths[1])
    guided = ask(model, [positive], [negative], 3.0)
    assert len(model.unet.asked) == calls
    apart = [ask(model, [each], [], 1.0) for each in (positive, negative)]
    torch.testing.assert_close(guided, apart[1] + 3.0 * (apart[0] - apart[1]), atol=1e-4, rtol=1e-4)


def test_several_prompts_are_mixed_by_their_strengths():
    model = build_model()
    first, second = (ask(model, [tell(seed)], [], 1.0) for seed in (1, 2))
    mixed = ask(model, [replace(tell(1), strength=3.0), tell(2)], [], 1.0)
    torch.testing.assert_close(mixed, 0.75 * first + 0.25 * second, atol=1e-5, rtol=1e-5)
    silent = ask(model, [replace(tell(1), strength=0.0), replace(tell(2), strength=0.0)], [], 1.0)
    assert (silent == 0).all()


def test_the_network_runs_in_its_own_precision_and_the_rest_in_float32():
    model = build_model()
    half = replace(model, unet=model.unet.to(torch.bfloat16), dtype=torch.bfloat16)
    denoised = ask(half, [tell(1)], [tell(2)], 3.0)
    assert denoised.dtype == torch.float32
    assert model.unet.asked[-1]["inputs"].dtype == model.unet.asked[-1]["encoder_hidden_states"].dtype == torch.bfloat16


def test_an_inpainting_network_is_shown_mask_and_masked_picture():
    model = build_model(in_channels=9)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., :32] = 1
    latents = torch.full((1, 4, 8, 8), 2.0)
    ask(model, [tell(1, inpaint_mask=mask, masked_latents=latents)], [tell(2)], 3.0)
    with_picture, without = model.unet.asked[0]["inputs"].chunk(2)
    assert torch.equal(with_picture[0, 4], mask[0, 0, ::8, ::8])
    torch.testing.assert_close(with_picture[:, 5:], torch.full((2, 4, 8, 8), 2.0 * model.scaling_factor))
    assert (without[:, 4] == 1).all()
    torch.testing.assert_close(without[0, 5:, 0, 0], torch.tensor(GREY_LATENTS))

    ask(model, [tell(1)], [], 1.0, inpaint_start=InpaintStart(mask, latents))
    assert torch.equal(model.unet.asked[-1]["inputs"], with_picture)


def test_sdxl_is_told_the_pooled_prompt_and_the_picture_s_size():
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32, attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=16 + 6 * 8,
    ).eval()  # fmt: skip
    model = Model(RecordedUnet(unet), NoiseSchedule.from_config(SD1), base="sdxl")
    pooled = [torch.full((1, 16), value) for value in (1.0, 2.0)]
    with torch.no_grad():
        denoise = build_denoiser(model, [tell(1, pooled=pooled[0])], [tell(2, pooled=pooled[1])], 3.0)
        denoise(torch.randn(2, 4, 6, 10), SIGMA)
    added = model.unet.asked[0]["added_cond_kwargs"]
    assert added["text_embeds"][:, 0].tolist() == [1, 1, 2, 2]
    assert added["time_ids"].tolist() == [[48, 80, 0, 0, 48, 80]] * 4

    with pytest.raises(InvalidRequest, match="pooled"):
        build_denoiser(model, [tell(1)], [], 1.0)


def test_nonsense_from_the_network_is_named_with_what_to_do():
    model = build_model()
    with torch.no_grad():
        model.unet.unet.conv_out.bias.fill_(float("nan"))
    with pytest.raises(NotANumber, match=r"sigma 4, in float32.*wider precision"):
        ask(model, [tell(1)], [], 1.0)


@pytest.mark.parametrize("guidance_scale", [float("nan"), float("inf")])
def test_a_guidance_scale_that_is_no_number_is_refused(guidance_scale: float):
    with pytest.raises(InvalidRequest, match="guidance_scale is"):
        build_denoiser(build_model(), [tell(1)], [], guidance_scale)


def test_conditioning_that_does_not_fit_is_refused():
    model = build_model()
    with pytest.raises(InvalidRequest, match="768 numbers, but tiny wants 32"):
        build_denoiser(model, [Conditioning(torch.zeros(1, 77, 768))], [], 1.0)
    with pytest.raises(InvalidRequest, match="no positive prompt"):
        build_denoiser(model, [], [], 1.0)
