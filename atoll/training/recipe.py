"""A training recipe: one TOML file with a part for each stage."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from atoll.errors import InvalidRequest

RECIPES = Path(__file__).parent / "recipes"
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StyleSource(_Part):
    package: str
    kind: Literal["webp", "svg"]


class DataPart(_Part):
    concepts: str
    picture_size: Positive
    sprite_size: tuple[Positive, Positive]
    max_shift: int = Field(0, ge=0)
    styles: dict[str, StyleSource]
    backgrounds: dict[str, tuple[int, int, int]]


class _TrainedPart(_Part):
    steps: Positive
    batch_size: Positive
    learning_rate: float = Field(gt=0)
    warmup_steps: int = Field(100, ge=0)
    cooldown: Share = 0.25
    ema_decay: float = Field(0.998, ge=0, lt=1)
    save_every: Positive = 250
    sample_every: Positive = 500
    log_every: Positive = 25


class VaePart(_TrainedPart):
    block_out_channels: tuple[Positive, ...]
    layers_per_block: Positive
    norm_num_groups: Positive
    latent_channels: Positive
    crop_size: Positive
    whole_picture_from: Share = 1.0
    kl_weight: float = Field(ge=0)
    edge_weight: float = Field(ge=0)


class TextPart(_TrainedPart):
    hidden_size: Positive
    intermediate_size: Positive
    num_hidden_layers: Positive
    num_attention_heads: Positive


class UnetPart(_Part):
    block_out_channels: tuple[Positive, ...]
    layers_per_block: Positive
    down_block_types: tuple[Literal["DownBlock2D", "CrossAttnDownBlock2D"], ...]
    attention_head_dim: Positive
    norm_num_groups: Positive
    text_in_time_embedding: bool = False


class ScratchPart(_TrainedPart):
    prediction_type: Literal["epsilon", "v_prediction"]
    sprite_size: tuple[Positive, Positive]
    max_shift: int = Field(0, ge=0)
    latents_per_caption: Positive
    conditioning_dropout: Share


class Recipe(_Part):
    """Everything that a model is made from. Read it with `load_recipe`."""

    name: str
    seed: int = Field(ge=0)
    precision: Literal["bf16", "fp32"] = "bf16"
    data: DataPart
    vae: VaePart
    text: TextPart
    unet: UnetPart
    scratch: ScratchPart


def load_recipe(name_or_path: str) -> tuple[Recipe, Path]:
    """A recipe and the folder it lies in, from a path or by the name of one that comes with Atoll.

    Raises: InvalidRequest naming every field that is unknown, missing or out of range.
    """
    path = Path(name_or_path)
    if not path.is_file():
        path = RECIPES / f"{name_or_path}.toml"
    if not path.is_file():
        known = ", ".join(sorted(recipe.stem for recipe in RECIPES.glob("*.toml")))
        raise InvalidRequest(f"No recipe {name_or_path}: give a TOML file or one of: {known}.")
    try:
        return Recipe(**tomllib.loads(path.read_text(encoding="utf-8"))), path.parent
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} is not a TOML file: {error}") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise InvalidRequest(f"{path} is not a valid recipe: {faults}") from error
