"""From nothing to a model: it learns, and what is exported draws the same in Atoll and in diffusers."""

import pytest
import torch

from atoll.diffusion.checkpoint import load_checkpoint
from atoll.diffusion.sample import sample_latents
from atoll.diffusion.text import encode_prompt
from atoll.training.export import export_model
from atoll.training.loop import LoopOptions
from atoll.training.scratch_training import UnetOptions, train_from_scratch
from atoll.training.stages import CLIP_TOKENIZER, load_tokenizer
from atoll.training.text_training import TextEncoderOptions, build_text_encoder
from atoll.training.vae_training import VaeOptions, build_vae

TEXT = TextEncoderOptions(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
UNET = UnetOptions((16, 32), 1, ("CrossAttnDownBlock2D", "DownBlock2D"), 2, 8, text_in_time_embedding=True)
VAE = VaeOptions((8, 8, 8, 8), 1, 4, 4, crop_size=32, whole_picture_from=1.0, kl_weight=0, edge_weight=0)


@pytest.fixture
def trained(pictures, tmp_path):
    """A tiny model after 30 steps, with the losses it reported."""
    torch.manual_seed(0)
    vae, reports = build_vae(VAE, 32).eval(), []
    vae.register_to_config(scaling_factor=1.0)
    loop = LoopOptions(30, 8, 5e-3, warmup_steps=5, ema_decay=0.5, precision="fp32", sample_every=1000, log_every=5)
    text_encoder = build_text_encoder(TEXT)
    unet = train_from_scratch(
        pictures, vae, load_tokenizer(), text_encoder, UNET, loop, tmp_path / "run",
        prediction_type="v_prediction", latents_per_caption=2, conditioning_dropout=0.2, seed=1,
        on_progress=reports.append,
    )  # fmt: skip
    return text_encoder, unet, vae, reports


def test_the_loss_falls_and_the_samples_are_there_to_look_at(trained, tmp_path):
    reports = trained[-1]
    assert reports[-1].loss < reports[0].loss
    assert reports[-1].eta_s == 0
    assert reports[0].eta_s > 0
    assert (tmp_path / "run" / "samples" / "step-000030.png").is_file()
    assert len((tmp_path / "run" / "samples" / "captions.txt").read_text().splitlines()) == 16


def test_the_exported_model_draws_the_same_in_atoll_and_in_diffusers(trained, pictures, tmp_path):
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    text_encoder, unet, vae, _ = trained
    folder = tmp_path / "models" / "tiny 模型"
    export_model(CLIP_TOKENIZER, text_encoder, unet, vae, "v_prediction", pictures, folder)
    assert "red-disc,red disc,flat style,none,red disc.svg" in (folder / "sources.csv").read_text(encoding="utf-8")

    checkpoint = load_checkpoint(folder, device="cpu", precision="fp32")
    with torch.inference_mode():
        latents = sample_latents(
            checkpoint.model,
            [encode_prompt(checkpoint.text_encoder, "a red disc")],
            [encode_prompt(checkpoint.text_encoder, "")],
            torch.zeros(1, 4, 4, 4),
            seed=3,
            num_inference_steps=4,
            guidance_scale=3.0,
            sampler="ddim",
            schedule="diffusers_leading",
        )
        drawn = checkpoint.vae.decode_latents(latents)

    pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    assert isinstance(pipeline.scheduler, DDIMScheduler)
    noise = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(3))
    picture = pipeline("a red disc", latents=noise, num_inference_steps=4, guidance_scale=3.0, output_type="pt").images
    torch.testing.assert_close(drawn, picture, atol=2e-3, rtol=0)
