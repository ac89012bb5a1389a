"""The autoencoder learns to give pictures back."""

import numpy as np
import torch
import torch.nn.functional as F

from atoll.training.loop import LoopOptions
from atoll.training.quality import measure_vae_psnr
from atoll.training.vae_training import VaeOptions, build_vae, edge_loss, train_vae

OPTIONS = VaeOptions((8, 16, 16, 16), 1, 4, 4, crop_size=16, whole_picture_from=0.5, kl_weight=1e-5, edge_weight=1.0)


def test_training_brings_pictures_back_better_and_scales_latents_to_unit_variance(pictures, tmp_path):
    loop = LoopOptions(steps=200, batch_size=8, learning_rate=3e-3, warmup_steps=10, ema_decay=0.9, precision="fp32")
    torch.manual_seed(0)
    before = measure_vae_psnr(pictures, build_vae(OPTIONS, 32).eval())
    vae = train_vae(pictures, OPTIONS, loop, tmp_path, seed=0)
    assert measure_vae_psnr(pictures, vae) > before + 2
    assert (tmp_path / "samples" / "step-000200.png").is_file()
    latents = vae.encode(pictures.draw_batch(16, np.random.default_rng(0))).latent_dist.mode()
    assert latents.shape == (16, 4, 4, 4)
    assert 0.5 < float(latents.std() * vae.config.scaling_factor) < 2


def test_edge_loss_sees_outlines_not_brightness():
    picture = torch.rand(1, 3, 8, 8)
    assert float(edge_loss(picture + 0.5, picture)) < 1e-6
    assert float(edge_loss(F.avg_pool2d(picture, 3, 1, 1), picture)) > 0.05
