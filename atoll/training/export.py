"""A trained model as an fp16 diffusers folder, which Atoll, diffusers and others load."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from atoll.diffusion.preview import fit_preview_map
from atoll.training.emoji_data import Sprite
from atoll.training.noising import PredictionType
from atoll.training.pictures import PictureFactory
from atoll.training.scratch_training import build_scheduler

PREVIEW_PICTURES = 64


def export_model(
    tokenizer_files: Path,
    text_encoder: CLIPTextModel,
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    prediction_type: PredictionType,
    pictures: PictureFactory,
    folder: Path,
) -> None:
    """Write the model, its preview map and the list of its sources into `folder`.

    Files that are already there and are not written anew, such as the model card, stay.
    """
    # The pipeline brings image processors that warn of torchvision; nobody else needs to hear that.
    from diffusers import StableDiffusionPipeline

    folder.mkdir(parents=True, exist_ok=True)
    drawn = pictures.draw_batch(PREVIEW_PICTURES, np.random.default_rng(0))
    preview = fit_preview_map(vae.encode(drawn).latent_dist.mode().detach(), (drawn + 1) / 2)
    pipeline = StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=text_encoder.half(),
        tokenizer=CLIPTokenizer.from_pretrained(tokenizer_files),
        unet=unet.half(),
        scheduler=build_scheduler(prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    shutil.rmtree(folder / "tokenizer")
    shutil.copytree(tokenizer_files, folder / "tokenizer")
    (folder / "preview.json").write_text(json.dumps(preview.to_json(), indent=1) + "\n", encoding="utf-8")
    write_sources(pictures.sprites, folder / "sources.csv")


def write_sources(sprites: list[Sprite], path: Path) -> None:
    """Which file of which package each training drawing is."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["concept", "words in captions", "style", "package", "file"])
        rows.writerows([s.concept, s.words, s.style, s.package, s.file] for s in sprites)
