"""The stages of a recipe, each reading what the one before left in the run's folder.

FOLDER/data       sprites.npy, sprites.json
FOLDER/vae        training_state/, samples/, log.jsonl, model/ (AutoencoderKL)
FOLDER/scratch    training_state/, samples/, log.jsonl, latents-*.pt, text_encoder/, unet/
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from atoll import models
from atoll.errors import InvalidRequest
from atoll.training.emoji_data import Sprite, build_emoji_data, load_sprites, read_concepts
from atoll.training.export import export_model
from atoll.training.loop import LoopOptions, Progress
from atoll.training.model_measure import measure_model
from atoll.training.pictures import PictureFactory
from atoll.training.recipe import DataPart, Recipe, ScratchPart, TextPart, VaePart
from atoll.training.scratch_training import UnetOptions, train_from_scratch
from atoll.training.text_training import TextEncoderOptions, train_text_encoder
from atoll.training.vae_training import VaeOptions, train_vae

CLIP_TOKENIZER = Path(models.__file__).parent / "assets" / "clip_tokenizer"
OnProgress = Callable[[Progress], None]


def run_data_stage(
    recipe: Recipe, recipe_folder: Path, folder: Path, *, say: Callable[[str], None] = print
) -> list[Sprite]:
    """Fetch and draw the pictures."""
    styles = {style: source.model_dump() for style, source in recipe.data.styles.items()}
    return build_emoji_data(read_concepts(recipe_folder / recipe.data.concepts), styles, folder / "data", say=say)


def run_vae_stage(recipe: Recipe, folder: Path, on_progress: OnProgress) -> AutoencoderKL:
    """Train the autoencoder and save it."""
    vae = train_vae(
        load_pictures(recipe, folder, recipe.data),
        VaeOptions(**recipe.vae.model_dump(include=set(VaeOptions.__dataclass_fields__))),
        build_loop_options(recipe, recipe.vae),
        folder / "vae",
        seed=recipe.seed,
        on_progress=on_progress,
    )
    vae.save_pretrained(folder / "vae" / "model")
    return vae


def run_text_stage(recipe: Recipe, folder: Path, on_progress: OnProgress) -> None:
    """Train the text encoder and save it."""
    text_encoder = train_text_encoder(
        load_pictures(recipe, folder, recipe.scratch),
        load_tokenizer(),
        TextEncoderOptions(**recipe.text.model_dump(include=set(TextEncoderOptions.__dataclass_fields__))),
        build_loop_options(recipe, recipe.text),
        folder / "text",
        seed=recipe.seed,
        on_progress=on_progress,
    )
    text_encoder.save_pretrained(folder / "text" / "model")


def run_scratch_stage(recipe: Recipe, folder: Path, on_progress: OnProgress) -> None:
    """Train the U-Net and save it."""
    unet = train_from_scratch(
        load_pictures(recipe, folder, recipe.scratch),
        load_trained_vae(folder),
        load_tokenizer(),
        load_trained_text_encoder(folder),
        UnetOptions(**recipe.unet.model_dump()),
        build_loop_options(recipe, recipe.scratch),
        folder / "scratch",
        prediction_type=recipe.scratch.prediction_type,
        latents_per_caption=recipe.scratch.latents_per_caption,
        conditioning_dropout=recipe.scratch.conditioning_dropout,
        seed=recipe.seed,
        on_progress=on_progress,
    )
    unet.save_pretrained(folder / "scratch" / "model")


def run_export_stage(recipe: Recipe, folder: Path, target: Path) -> None:
    """Write the averaged weights as an fp16 diffusers folder."""
    require_stage(folder, "scratch", "U-Net")
    export_model(
        CLIP_TOKENIZER,
        load_trained_text_encoder(folder),
        UNet2DConditionModel.from_pretrained(folder / "scratch" / "model"),
        load_trained_vae(folder),
        recipe.scratch.prediction_type,
        load_pictures(recipe, folder, recipe.scratch),
        target,
    )


def run_measure_stage(recipe: Recipe, folder: Path, model: Path, prompts: int) -> dict[str, float]:
    """Measure an exported model, through the same engine that the studio uses; grid and numbers go to `folder`."""
    quality = measure_model(
        load_pictures(recipe, folder, recipe.scratch), model, folder / "quality", prompts=prompts, seed=recipe.seed
    )
    return asdict(quality)


def load_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer, which travels with Atoll."""
    return CLIPTokenizer.from_pretrained(CLIP_TOKENIZER)


def load_pictures(recipe: Recipe, folder: Path, placing: DataPart | ScratchPart) -> PictureFactory:
    """The drawings that the data stage made, placed as that part of the recipe says."""
    sprites, pixels = load_sprites(folder / "data")
    data = recipe.data
    return PictureFactory(sprites, pixels, data.backgrounds, data.picture_size, placing.sprite_size, placing.max_shift)


def load_trained_vae(folder: Path) -> AutoencoderKL:
    """The autoencoder that the VAE stage made."""
    require_stage(folder, "vae", "VAE")
    return AutoencoderKL.from_pretrained(folder / "vae" / "model").eval()


def load_trained_text_encoder(folder: Path) -> CLIPTextModel:
    """The text encoder that the text stage made."""
    require_stage(folder, "text", "text encoder")
    return CLIPTextModel.from_pretrained(folder / "text" / "model").eval()


def require_stage(folder: Path, stage: str, what: str) -> None:
    """Raises: InvalidRequest naming the command that makes what is missing."""
    if not (folder / stage / "model" / "config.json").is_file():
        raise InvalidRequest(f"There is no trained {what} in {folder}. Train it first: atoll train {stage} RECIPE")


def build_loop_options(recipe: Recipe, part: VaePart | TextPart | ScratchPart) -> LoopOptions:
    names = set(LoopOptions.__dataclass_fields__)
    return LoopOptions(**part.model_dump(include=names), precision=recipe.precision)
