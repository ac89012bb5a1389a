"""The space in which pictures are compared tells concepts apart; a model that draws nothing gets nothing."""

import numpy as np
import pytest
import torch

from atoll.training.quality import describe_pictures, measure_quality, pick_prompts
from atoll.training.vae_training import VaeOptions, build_vae


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return build_vae(VaeOptions((8, 8, 8, 8), 1, 4, 4, 32, 1.0, 0, 0), 32).eval()


def test_a_perfect_painter_is_right_and_a_blank_one_is_not(pictures, vae):
    prompts = pick_prompts(pictures, 8, seed=0)
    by_caption = {prompt.caption: prompt for prompt in prompts}
    random = np.random.default_rng(0)

    def perfect(caption, seed):
        prompt = by_caption[caption]
        return pictures.draw(prompt.sprite, prompt.background, random)

    right = measure_quality(pictures, vae, perfect, prompts)
    assert right.top1 == right.top5 == right.ceiling_top1 == 1.0
    blank = measure_quality(pictures, vae, lambda caption, seed: np.full((32, 32, 3), 128, np.uint8), prompts)
    assert blank.top1 < 0.5
    assert 0 < right.vae_psnr_db < 20


def test_likeness_follows_the_drawing_not_its_place(pictures):
    random = np.random.default_rng(0)
    disc, disc_again, bar = (
        torch.tensor(pictures.draw(sprite, "white", random)).permute(2, 0, 1)[None] / 127.5 - 1 for sprite in (0, 0, 2)
    )
    one, two, three = (describe_pictures(picture)[0] for picture in (disc, disc_again, bar))
    assert one @ two > one @ three
    assert float(one.norm()) == pytest.approx(1, abs=1e-5)
