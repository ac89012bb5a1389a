"""A checkpoint is its parts: text encoder, U-Net with noise schedule, VAE. Each loads alone, or from elsewhere.

What can be loaded from:

- a model folder in diffusers layout, or the folder of one network in it;
- one file, .safetensors or (restricted) .ckpt .pt .bin, in the original layout of SD 1.x, SD 2.x and SDXL, whole or one
  part alone; a part alone may have diffusers' layout too.

Nothing is ever fetched.

Single files do not say what their U-Net predicts. In this order: `scheduler=`; a .yaml of the original kind beside the
file, with its name (`parameterization: "v"`); what the file itself says (see `single_file.prediction_type_of`); for
SD 2.x the spread of one layer norm's biases, which tells the published 768-v models from the 512-base ones; else noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from atoll.diffusion.model import Base, Model
from atoll.diffusion.precision import pick_device, pick_dtype, pick_vae_dtype
from atoll.diffusion.preview import KNOWN_PREVIEWS, load_preview_map
from atoll.diffusion.sigmas import NoiseSchedule
from atoll.diffusion.single_file import (
    Config,
    Shapes,
    plan_text_encoders,
    plan_unet,
    plan_vae,
    prediction_type_of,
    schedule_from_yaml,
)
from atoll.diffusion.text import ClipText, TextEncoder, load_built_in_tokenizer
from atoll.diffusion.vae import Vae
from atoll.diffusion.weights import (
    Piece,
    Plan,
    Weights,
    build_on_meta,
    find_weights,
    load_weights,
    read_json,
)
from atoll.errors import InvalidRequest, NotACheckpoint, NotFound
from atoll.models.identify import LDM_UNET, base_of_unet, identify, refusal

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

# What every model of the family was trained with, but for what it predicts.
STABLE_DIFFUSION_SCHEDULE: Config = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "set_alpha_to_one": False,
}
SCALING_FACTORS: dict[Base, float] = {"sd1": 0.18215, "sd2": 0.18215, "sdxl": 0.13025}
# Standard deviation of the biases of output_blocks.11.1.transformer_blocks.0.norm1: above it in SD 2.x 768-v models.
SD2_V_PREDICTION_SPREAD = 0.09

PartPath = str | Path


@dataclass(frozen=True)
class Checkpoint:
    """All that makes a picture from a prompt."""

    model: Model
    text_encoder: TextEncoder
    vae: Vae


def load_checkpoint(
    path: PartPath,
    *,
    device: str | torch.device = "auto",
    precision: str = "auto",
    vae: PartPath | Vae | None = None,
    text_encoder: PartPath | Sequence[PartPath] | TextEncoder | None = None,
    unet: PartPath | Model | None = None,
    scheduler: PartPath | Mapping[str, Any] | NoiseSchedule | None = None,
) -> Checkpoint:
    """Load a checkpoint, with parts taken from elsewhere where they are given: as a path, or loaded already.

    Raises:
        NotFound: no such file. InvalidRequest: an impossible device or precision.
        NotACheckpoint: the file is something else, damaged, or lacks a part that was not given; says which.
    """
    source = _open(path)
    accepted = {"checkpoint", "diffusers_folder"} | (
        {"unet"} if vae is not None and text_encoder is not None else set()
    )
    _refuse_other_kinds(source, wanted="a checkpoint", accepted=accepted)
    if isinstance(unet, Model):
        model = unet if scheduler is None else replace(unet, noise_schedule=load_scheduler(scheduler))
    else:
        model = _load_unet(
            source if unet is None else _open(unet), device=device, precision=precision, scheduler=scheduler
        )
    if not isinstance(text_encoder, TextEncoder):
        encoder_sources = [source] if text_encoder is None else [_open(one) for one in _as_paths(text_encoder)]
        text_encoder = _load_text_encoder(encoder_sources, device=device, precision=precision)
    if not isinstance(vae, Vae):
        vae = _load_vae(
            source if vae is None else _open(vae), device=device, precision=precision, fp16_is_safe=model.base != "sdxl"
        )
    return Checkpoint(model, text_encoder, vae)


def load_unet(
    path: PartPath,
    *,
    device: str | torch.device = "auto",
    precision: str = "auto",
    scheduler: PartPath | Mapping[str, Any] | NoiseSchedule | None = None,
) -> Model:
    """The U-Net of a file or folder, which may be a whole checkpoint, with the noise schedule that goes with it."""
    source = _open(path)
    _refuse_other_kinds(source, wanted="a U-Net", accepted={"unet", "checkpoint", "diffusers_folder"})
    return _load_unet(source, device=device, precision=precision, scheduler=scheduler)


def load_vae(path: PartPath, *, device: str | torch.device = "auto", precision: str = "auto") -> Vae:
    """The VAE of a file or folder, which may be a whole checkpoint."""
    source = _open(path)
    _refuse_other_kinds(source, wanted="a VAE", accepted={"vae", "checkpoint", "diffusers_folder"})
    return _load_vae(source, device=device, precision=precision)


def load_text_encoder(
    path: PartPath | Sequence[PartPath], *, device: str | torch.device = "auto", precision: str = "auto"
) -> TextEncoder:
    """The text encoder of a file or folder, which may be a whole checkpoint. Two paths: CLIP-L and CLIP-G of SDXL."""
    sources = [_open(one) for one in _as_paths(path)]
    for source in sources:
        accepted = {"text_encoder", "checkpoint", "diffusers_folder"}
        _refuse_other_kinds(source, wanted="a text encoder", accepted=accepted)
    return _load_text_encoder(sources, device=device, precision=precision)


def load_scheduler(source: PartPath | Mapping[str, Any] | NoiseSchedule) -> NoiseSchedule:
    """The noise schedule from a scheduler_config.json, a folder with one (or a whole model's), an original .yaml, or
    a configuration that was read already.
    """
    if isinstance(source, NoiseSchedule):
        return source
    if isinstance(source, Mapping):
        return NoiseSchedule.from_config(source)
    path = Path(source)
    if path.suffix.lower() in {".yaml", ".yml"}:
        if not path.is_file():
            raise NotFound(f"There is no file {path}.")
        return NoiseSchedule.from_config(STABLE_DIFFUSION_SCHEDULE | schedule_from_yaml(_read_text(path)))
    for config in (path, path / "scheduler_config.json", path / "scheduler" / "scheduler_config.json"):
        if config.is_file():
            return NoiseSchedule.from_config(read_json(config))
    raise NotFound(f"There is no scheduler configuration at {path}: no scheduler_config.json, and no .yaml.")


# --- what lies at a path ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Source:
    """A folder in diffusers layout, or a file with its tensors' names (weights)."""

    path: Path
    weights: Weights | None

    @property
    def name(self) -> str:
        return self.path.name

    def part_folder(self, part: str) -> Path:
        """Where a network of a folder lies: below a whole model, or the folder itself."""
        if (self.path / "model_index.json").is_file():
            return self.path / part
        return self.path


def _open(path: PartPath) -> _Source:
    path = Path(path)
    if path.is_dir():
        return _Source(path, None)
    if not path.is_file():
        raise NotFound(f"There is no model file {path}.")
    return _Source(path, Weights(path))


def _refuse_other_kinds(source: _Source, *, wanted: str, accepted: set[str]) -> None:
    identity = identify(source.path) if source.weights is None else source.weights.identity
    if identity.kind not in accepted:
        raise refusal(source.path, wanted, identity)


def _as_paths(paths: PartPath | Sequence[PartPath]) -> list[PartPath]:
    return [paths] if isinstance(paths, str | Path) else list(paths)


# --- U-Net ------------------------------------------------------------------------------------------------------


def _load_unet(
    source: _Source,
    *,
    device: str | torch.device,
    precision: str,
    scheduler: PartPath | Mapping[str, Any] | NoiseSchedule | None,
) -> Model:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    on = pick_device(device)
    dtype = pick_dtype(precision, on)
    if source.weights is None:
        folder = source.part_folder("unet")
        config = _read_network_config(folder, "UNet2DConditionModel", "U-Net")
        weights = Weights(find_weights(folder, "diffusion_pytorch_model"))
        plan: Plan = {name: Piece(name) for name in weights.shapes}
    else:
        weights = source.weights
        config, plan = _planned(plan_unet, weights, "U-Net")
    base = base_of_unet(config)
    latent_channels = int(config.get("out_channels", 4))
    in_channels = int(config.get("in_channels", 4))
    if in_channels not in {latent_channels, 2 * latent_channels + 1}:
        raise NotACheckpoint(
            f"{source.name} has a U-Net for {in_channels} input channels (depth, instruct-pix2pix or an upscaler). "
            f"Atoll runs those for {latent_channels}, and inpainting ones for {2 * latent_channels + 1}."
        )
    network = _built(lambda: UNet2DConditionModel.from_config(config), weights, "U-Net")
    network = load_weights(network, weights, plan, device=on, dtype=dtype, part="U-Net")
    return Model(
        unet=network,
        noise_schedule=load_scheduler(_own_schedule(source, weights, base) if scheduler is None else scheduler),
        scaling_factor=_scaling_factor(source, base),
        latent_channels=latent_channels,
        base=base,
        device=on,
        dtype=dtype,
        name=source.name,
        preview_map=load_preview_map(source.path) or KNOWN_PREVIEWS[base],
    )


def _own_schedule(source: _Source, weights: Weights, base: Base) -> Config:
    """What the folder or file says of its noise schedule, completed by what is usual."""
    if source.weights is None:
        for folder in (source.path / "scheduler", source.path.parent / "scheduler"):
            if (folder / "scheduler_config.json").is_file():
                return read_json(folder / "scheduler_config.json")
        return STABLE_DIFFUSION_SCHEDULE
    said: Config = {}
    predicted = prediction_type_of(weights.metadata, weights.shapes)
    if predicted is not None:
        said["prediction_type"] = predicted
    elif base == "sd2" and _sd2_predicts_v(weights):
        said["prediction_type"] = "v_prediction"
    if "ztsnr" in weights.shapes:
        said["rescale_betas_zero_snr"] = True
    sidecar = next((path for path in map(source.path.with_suffix, (".yaml", ".yml")) if path.is_file()), None)
    if sidecar is not None:
        said |= schedule_from_yaml(_read_text(sidecar))
    return STABLE_DIFFUSION_SCHEDULE | said


def _sd2_predicts_v(weights: Weights) -> bool:
    name = "output_blocks.11.1.transformer_blocks.0.norm1.bias"
    present = [key for key in (LDM_UNET + name, name) if key in weights.shapes]
    return any(float(bias.float().std(correction=0)) > SD2_V_PREDICTION_SPREAD for _, bias in weights.tensors(present))


def _scaling_factor(source: _Source, base: Base) -> float:
    """A whole model's folder says it beside its VAE; else it is the family's."""
    config = source.path / "vae" / "config.json"
    if source.weights is None and config.is_file():
        return float(read_json(config).get("scaling_factor", SCALING_FACTORS[base]))
    return SCALING_FACTORS[base]


# --- VAE --------------------------------------------------------------------------------------------------------


def _load_vae(source: _Source, *, device: str | torch.device, precision: str, fp16_is_safe: bool = False) -> Vae:
    """fp16_is_safe: known not to be SDXL's. A VAE alone does not tell, a whole checkpoint in one file does."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    on = pick_device(device)
    if source.weights is None:
        folder = source.part_folder("vae")
        config = _read_network_config(folder, "AutoencoderKL", "VAE")
        weights = Weights(find_weights(folder, "diffusion_pytorch_model"))
        _, plan = _planned(plan_vae, weights, "VAE")
    else:
        weights = source.weights
        config, plan = _planned(plan_vae, weights, "VAE")
        fp16_is_safe = fp16_is_safe or weights.identity.base in {"sd1", "sd2"}
    dtype = pick_vae_dtype(pick_dtype(precision, on), on, fp16_is_safe=fp16_is_safe)
    network = _built(lambda: AutoencoderKL.from_config(config), weights, "VAE")
    return Vae(load_weights(network, weights, plan, device=on, dtype=dtype, part="VAE"), name=source.name)


# --- text encoders ----------------------------------------------------------------------------------------------


def _load_text_encoder(sources: Sequence[_Source], *, device: str | torch.device, precision: str) -> TextEncoder:
    on = pick_device(device)
    dtype = pick_dtype(precision, on)
    parts = [part for source in sources for part in _text_parts(source)]
    parts.sort(key=lambda part: int(part.config["hidden_size"]))  # CLIP-L before CLIP-G
    if len(parts) > 2:
        raise InvalidRequest(f"{len(parts)} text encoders were given; a Stable Diffusion model has one or two.")
    is_sdxl = len(parts) == 2
    return TextEncoder(tuple(_load_clip(part, is_sdxl=is_sdxl, device=on, dtype=dtype) for part in parts))


@dataclass(frozen=True)
class _TextPart:
    weights: Weights
    config: Config
    plan: Plan
    tokenizer: Path | None  # a folder; None is the vocabulary that travels with Atoll
    penultimate: bool  # whether the U-Net was trained with the layer before the last


def _text_parts(source: _Source) -> list[_TextPart]:
    """The text encoders at one place."""
    if source.weights is not None:
        planned = _planned(plan_text_encoders, source.weights, "text encoder")
        # OpenCLIP alone (no CLIP-L beside it) is SD 2.x
        return [
            _TextPart(source.weights, config, plan, None, config["hidden_act"] == "gelu") for config, plan in planned
        ]
    is_whole = (source.path / "model_index.json").is_file()
    folders = [source.path / "text_encoder", source.path / "text_encoder_2"] if is_whole else [source.path]
    parts = []
    for folder in folders:
        if folder != folders[0] and not folder.is_dir():
            continue
        config = _read_network_config(folder, "CLIPTextModel", "text encoder")
        weights = Weights(find_weights(folder, "model"))
        _, plan = _planned(plan_text_encoders, weights, "text encoder")[0]
        tokenizer = folder.parent / folder.name.replace("text_encoder", "tokenizer")
        parts.append(_TextPart(weights, config, plan, tokenizer if is_whole and tokenizer.is_dir() else None, False))
    return parts


def _load_clip(part: _TextPart, *, is_sdxl: bool, device: torch.device, dtype: torch.dtype) -> ClipText:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    # The pooled text comes from the encoder with a projection (CLIP-G); SD 2.x files carry one that nobody uses.
    architectures = part.config.get("architectures") or []
    is_wide = int(part.config["hidden_size"]) > 1024 or "CLIPTextModelWithProjection" in architectures
    projects = "text_projection.weight" in part.plan and (is_wide or (is_sdxl and part.penultimate))
    network_class = CLIPTextModelWithProjection if projects else CLIPTextModel
    network = _built(lambda: network_class(CLIPTextConfig.from_dict(part.config)), part.weights, "text encoder")
    prefix = "text_model." if hasattr(network, "text_model") else ""
    plan = {name if name.startswith("text_projection") else prefix + name: piece for name, piece in part.plan.items()}
    network = load_weights(network, part.weights, plan, device=device, dtype=dtype, part="text encoder")
    embeddings = getattr(network, "text_model", network).embeddings
    positions = embeddings.position_embedding.num_embeddings
    embeddings.position_ids = torch.arange(positions, device=device).unsqueeze(0)  # kept in no file
    # diffusers' folders of SD 2.x lack the last of 24 layers, since the U-Net was trained with the one before
    lacks_last = part.config["hidden_size"] == 1024 and part.config["num_hidden_layers"] == 23
    return ClipText(
        tokenizer=_load_tokenizer(part),
        network=network,
        default_clip_skip=2 if is_sdxl or part.penultimate or lacks_last else 1,
        dropped_layers=1 if lacks_last else 0,
        normalized=not is_sdxl,
    )


def _load_tokenizer(part: _TextPart) -> CLIPTokenizer:
    from transformers import CLIPTokenizer

    if part.tokenizer is None:
        return load_built_in_tokenizer("<|endoftext|>" if part.config["hidden_act"] == "quick_gelu" else "!")
    try:
        return CLIPTokenizer.from_pretrained(part.tokenizer, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotACheckpoint(f"The tokenizer in {part.tokenizer} cannot be read: {error}") from error


# --- shared -----------------------------------------------------------------------------------------------------

Planned = TypeVar("Planned")
Network = TypeVar("Network", bound=torch.nn.Module)


def _planned(plan: Callable[[Shapes], Planned], weights: Weights, part: str) -> Planned:
    """Lay out a network by the shapes in a file; whatever does not fit together there is the file's fault."""
    try:
        return plan(weights.shapes)
    except NotACheckpoint as error:
        raise NotACheckpoint(f"{weights.path.name}: {error.message}") from error
    except (KeyError, IndexError, ValueError) as error:
        raise NotACheckpoint(
            f"{weights.path.name}: its {part} is incomplete, or a variant that Atoll does not know ({error})."
        ) from error


def _built(build: Callable[[], Network], weights: Weights, part: str) -> Network:
    try:
        return build_on_meta(build)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, RuntimeError) as error:
        raise NotACheckpoint(
            f"{weights.path}: the configuration of its {part} makes no network: {error}. Copy or download it again."
        ) from error


def _read_network_config(folder: Path, class_name: str, part: str) -> Config:
    """config.json of one network. Raises: NotACheckpoint if it is for another kind of network."""
    config = read_json(folder / "config.json")
    names = [config["_class_name"]] if "_class_name" in config else list(config.get("architectures") or [class_name])
    if not all(str(name).startswith(class_name) for name in names):
        raise NotACheckpoint(f"{folder} holds a {', '.join(map(str, names))}, not a {part} ({class_name}).")
    return config


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise NotACheckpoint(f"{path} cannot be read: {error}. Correct it or remove it.") from error
