"""The built-in model: small, complete, loadable elsewhere, and doing what its card says."""

import csv
import json
from pathlib import Path

import pytest
import torch

from atoll.training.emoji_data import read_concepts
from atoll.training.recipe import load_recipe

LAGOON = Path(__file__).parent.parent.parent / "atoll/models/lagoon"


def test_it_is_at_most_60_mb_of_half_precision_safetensors():
    assert sum(path.stat().st_size for path in LAGOON.rglob("*") if path.is_file()) <= 60_000_000
    assert not [path for path in LAGOON.rglob("*") if path.suffix in {".bin", ".pt", ".ckpt", ".pkl"}]
    for path in LAGOON.rglob("*.safetensors"):
        header = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])
        kinds = {tensor["dtype"] for name, tensor in header.items() if name != "__metadata__"}
        assert kinds <= {"F16", "I64"}, path


def test_its_card_states_what_was_measured_and_every_source():
    card = (LAGOON / "README.md").read_text(encoding="utf-8")
    quality = json.loads((LAGOON / "quality.json").read_text(encoding="utf-8"))
    for name in ("top1", "top5", "ceiling_top1", "ceiling_top5"):
        assert f"{quality[name]:.0%}" in card, name
    assert f"{quality['vae_psnr_db']:.1f} dB" in card
    recipe, folder = load_recipe("lagoon")
    with (LAGOON / "sources.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    concepts = read_concepts(folder / recipe.data.concepts)
    assert {(row["concept"], row["style"]) for row in rows} == {(c, s) for c in concepts for s in recipe.data.styles}
    assert all(row["package"] in card and row["file"] for row in rows)
    assert f"{len(concepts)} concepts" in card


def test_plain_diffusers_loads_it_and_draws_with_it():
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(LAGOON, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline(
        "a red apple, 3d style, blue background",
        num_inference_steps=8,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(1),
        output_type="np",
    ).images[0]
    assert picture.shape == (128, 128, 3)
    red, _, blue = picture[:10, :10].mean(axis=(0, 1))
    assert blue > red + 0.2


@pytest.mark.parametrize("seed", [0, 1])
def test_it_draws_the_background_that_it_is_asked_for(seed):
    from atoll.diffusion.checkpoint import load_checkpoint
    from atoll.training.model_measure import draw_picture

    recipe, _ = load_recipe("lagoon")
    checkpoint = load_checkpoint(LAGOON, device="cpu")
    for name, colour in recipe.data.backgrounds.items():
        picture = draw_picture(checkpoint, f"a dog, flat style, {name} background", seed=seed, size=128)
        corner = torch.tensor(picture[:6, :6].reshape(-1, 3)).float().mean(dim=0)
        distance = {
            other: float((corner - torch.tensor(value)).norm()) for other, value in recipe.data.backgrounds.items()
        }
        assert min(distance, key=distance.__getitem__) == name, (name, colour, corner)
