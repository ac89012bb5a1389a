"""What can be told of a model without loading it: its base, and what a request gets that does not say.

A model may say so itself in a file `atoll.json`, in its folder or beside it as `NAME.atoll.json`: any fields of
`ImageDefaults`, such as `{"width": 768, "height": 768, "guidance_scale": 5}`. Otherwise the size is the one that its
U-Net was trained at.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from atoll.api.image_request import ImageDefaults
from atoll.errors import NotFound
from atoll.models.catalogue import ModelCatalogue, ModelFile
from atoll.models.identify import identify, refusal

MODEL_KINDS = ("checkpoints", "vae", "text_encoders", "diffusion_models")
NATIVE_SIDE = {"sd1": 512, "sd2": 768, "sdxl": 1024}
SD1 = NATIVE_SIDE["sd1"]


class ModelInfo(BaseModel):
    """One model file or folder that can be named in a request or a graph."""

    name: str
    kind: str  # "checkpoints", "vae", "text_encoders" or "diffusion_models": the folder it lies in
    base: str | None  # "sd1", "sd2", "sdxl"; None when the files do not tell
    inpainting: bool  # a U-Net of 9 input channels: latents, mask, and the latents of what is not masked
    description: str  # what the file is, for people: "an SDXL checkpoint"
    fault: str | None  # why it can't be used as what its folder says, in words; None if it can
    defaults: ImageDefaults


def list_model_infos(catalogue: ModelCatalogue, kind: str | None = None) -> list[ModelInfo]:
    """Models of a kind (one of MODEL_KINDS), or of all of these; the built-in one comes first."""
    infos = []
    for one in MODEL_KINDS if kind is None else (kind,):
        for model in catalogue.models(one):
            try:
                infos.append(model_info(model))
            except NotFound:  # gone since it was listed, or the built-in one has not been trained yet
                continue
    return infos


def model_info(model: ModelFile) -> ModelInfo:
    """Read configurations and headers, never weights; remembered until the file changes.

    Raises: NotFound if it went away since it was listed.
    """
    try:
        status = (model.path / "model_index.json" if model.path.is_dir() else model.path).stat()
    except OSError as error:
        raise NotFound(f'The model "{model.name}" has no file at {model.path}.') from error
    return _model_info(model, status.st_mtime_ns, status.st_size)


_WANTED = {
    "checkpoints": ({"checkpoint", "diffusers_folder", "pickle"}, "a checkpoint"),
    "vae": ({"vae", "checkpoint", "diffusers_folder", "pickle"}, "a VAE"),
}


@lru_cache(maxsize=4096)
def _model_info(model: ModelFile, _mtime_ns: int, _size: int) -> ModelInfo:
    identity = identify(model.path)
    wanted, name = _WANTED.get(model.kind, (None, ""))
    fault = refusal(model.path, name, identity).message if wanted and identity.kind not in wanted else None
    unet = _read_object(model.path / "unet" / "config.json") if model.path.is_dir() else {}
    side = NATIVE_SIDE.get(identity.base or "", SD1)
    if isinstance(unet.get("sample_size"), int):
        side = unet["sample_size"] * _vae_scale(model.path)
    hints = _read_object(
        model.path / "atoll.json" if model.path.is_dir() else model.path.with_name(f"{model.path.name}.atoll.json")
    )
    defaults = {"width": side, "height": side}
    try:
        known = {**defaults, **{name: hints[name] for name in ImageDefaults.model_fields if name in hints}}
        told = ImageDefaults.model_validate(known)
    except ValidationError:
        told = ImageDefaults.model_validate(defaults)
    return ModelInfo(
        name=model.name,
        kind=model.kind,
        base=identity.base,
        inpainting=identity.is_inpainting or unet.get("in_channels") == 9,
        description=identity.description,
        fault=fault,
        defaults=told,
    )


def _vae_scale(folder: Path) -> int:
    """Pixels per latent: each of the VAE's blocks but the last halves the picture."""
    widths = _read_object(folder / "vae" / "config.json").get("block_out_channels")
    return 2 ** (len(widths) - 1) if isinstance(widths, list) and widths else 8


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
