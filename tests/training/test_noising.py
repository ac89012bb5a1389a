"""The forward process against diffusers' scheduler, and its own laws."""

import torch
from diffusers import DDPMScheduler

from atoll.training.noising import add_noise, build_alphas_cumprod, draw_timesteps, prediction_target


def test_noised_latents_and_velocity_equal_diffusers():
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    generator = torch.Generator().manual_seed(3)
    latents, noise = torch.randn(2, 6, 4, 8, 8, generator=generator)
    timesteps = torch.tensor([0, 1, 250, 500, 998, 999])
    alphas = build_alphas_cumprod()
    torch.testing.assert_close(alphas, scheduler.alphas_cumprod, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(
        add_noise(latents, noise, timesteps, alphas),
        scheduler.add_noise(latents, noise, timesteps),
        atol=1e-5,
        rtol=1e-4,
    )
    torch.testing.assert_close(
        prediction_target(latents, noise, timesteps, alphas, "v_prediction"),
        scheduler.get_velocity(latents, noise, timesteps),
        atol=1e-5,
        rtol=1e-4,
    )
    assert prediction_target(latents, noise, timesteps, alphas, "epsilon") is noise


def test_noisy_latents_and_velocity_give_the_clean_latents_back():
    alphas, timesteps = build_alphas_cumprod(), torch.tensor([5, 700])
    latents, noise = torch.randn(2, 2, 4, 8, 8)
    noisy = add_noise(latents, noise, timesteps, alphas)
    velocity = prediction_target(latents, noise, timesteps, alphas, "v_prediction")
    alpha = alphas[timesteps].view(-1, 1, 1, 1)
    torch.testing.assert_close(alpha.sqrt() * noisy - (1 - alpha).sqrt() * velocity, latents, atol=1e-5, rtol=1e-4)


def test_a_batch_sees_every_part_of_the_timesteps_once():
    timesteps = draw_timesteps(10, 1000, torch.Generator().manual_seed(0))
    assert (timesteps // 100).tolist() == list(range(10))
