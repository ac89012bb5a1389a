"""Say what a model file is from its first bytes and its header, without loading it.

A safetensors file (https://github.com/huggingface/safetensors#format) starts with the length of a JSON header (u64,
little-endian) that lists every tensor with dtype, shape and place. Names and shapes tell checkpoints, VAEs, LoRAs and
so on apart, so this costs a few milliseconds for a file of any size and needs no torch.
"""

from __future__ import annotations

import json
import re
import struct
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from atoll.errors import NotACheckpoint, NotFound

Shapes = Mapping[str, tuple[int, ...]]
Base = Literal["sd1", "sd2", "sdxl"]

MAX_HEADER_BYTES = 100_000_000  # what the safetensors library itself accepts
_SNIFFED_BYTES = 4096
_DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip

# Kind -> (what it is called, what to do with it when something else was expected).
_KINDS: dict[str, tuple[str, str]] = {
    "checkpoint": ("a checkpoint", 'Load it with the "Load Checkpoint" node.'),
    "unet": ("a U-Net alone", 'Load it with the "Load Diffusion Model" node.'),
    "vae": ("a VAE", 'Load it with the "Load VAE" node.'),
    "text_encoder": ("a text encoder", 'Load it with the "Load CLIP" node.'),
    "lora": ("a LoRA", 'It belongs in "loras"; Atoll cannot apply them yet.'),
    "embedding": (
        "a textual inversion embedding",
        'It belongs in "embeddings"; Atoll cannot use them yet.',
    ),
    "controlnet": ("a ControlNet", 'It belongs in "controlnet"; Atoll cannot use them yet.'),
    "upscaler": (
        "an upscaler (ESRGAN family)",
        'It belongs in "upscale_models"; Atoll cannot use them yet.',
    ),
    "clip_vision": ("a CLIP vision encoder", "Atoll does not use these."),
    "preview_vae": ("a preview VAE (TAESD)", 'It belongs in "vae_approx".'),
    "t2i_adapter": ("a T2I-Adapter", "Atoll does not use these."),
    "ip_adapter": ("an IP-Adapter", "Atoll does not use these."),
    "motion_module": ("a motion module (AnimateDiff)", "Atoll does not use these."),
    "hypernetwork": ("a hypernetwork", "Atoll does not use these."),
    "other_family": ("a model of another family", "Atoll runs Stable Diffusion 1.x, 2.x and SDXL."),
    "pickle": ("a Python pickle", "Its contents show when it is loaded, which only the restricted loader does."),
    "diffusers_folder": ("a model folder in diffusers layout", "Load it as a checkpoint."),
    "damaged": ("damaged", "Download or copy it again."),
    "not_weights": ("not a model file", "Download the model itself and put it in its place."),
    "unreadable": ("no safetensors file and no other format that Atoll knows", "Download or copy it again."),
    "unknown": ("no kind of model that Atoll knows", "Look up on its page what it is for."),
}


@dataclass(frozen=True)
class Identity:
    """What a file is.

    kind: a key of the table above. base: "sd1", "sd2", "sdxl", or another family's name; None where nothing tells.
    layout: "ldm" (the original one), "diffusers", or the format of a LoRA ("kohya", "peft", "lycoris").
    description: for people, with its article: "an SDXL checkpoint".
    """

    kind: str
    description: str
    base: str | None = None
    layout: str | None = None
    in_channels: int | None = None
    has_vae: bool = False
    has_text_encoder: bool = False
    advice: str = ""

    @property
    def is_inpainting(self) -> bool:
        return self.in_channels == 9


@dataclass(frozen=True)
class SafetensorsHeader:
    """Names, shapes, dtypes (safetensors' words: F16, BF16, ...) and the free-form metadata of a file."""

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    metadata: dict[str, str] = field(default_factory=dict)


class DamagedFile(NotACheckpoint):
    """A safetensors file whose header and size do not agree."""


def read_safetensors_header(path: Path) -> SafetensorsHeader:
    """Names and shapes of all tensors, after checking that the file holds all the bytes that it promises.

    Raises: DamagedFile where it does not, or where the header makes no sense.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= MAX_HEADER_BYTES:
            raise DamagedFile(f"{path.name} has no safetensors header. {_advice('damaged')}")
        if 8 + length > size:
            raise DamagedFile(_cut_short(path, 8 + length, size))
        raw = file.read(length)
    try:
        header = json.loads(raw)
        metadata = header.pop("__metadata__", None) or {}
        shapes = {name: tuple(int(edge) for edge in entry["shape"]) for name, entry in header.items()}
        dtypes = {name: str(entry["dtype"]) for name, entry in header.items()}
        ends = [_checked_end(entry, shapes[name]) for name, entry in header.items()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedFile(f"{path.name} has a safetensors header that makes no sense. {_advice('damaged')}") from error
    promised = 8 + length + max(ends, default=0)
    if promised > size:
        raise DamagedFile(_cut_short(path, promised, size))
    return SafetensorsHeader(shapes, dtypes, {str(key): str(value) for key, value in metadata.items()})


def identify(path: Path) -> Identity:
    """What the file or folder is. Never raises for bad contents: that is what it finds out.

    Raises: NotFound where nothing lies at `path`.
    """
    if path.is_dir():
        return _identify_folder(path)
    if not path.is_file():
        raise NotFound(f"There is no file {path}.")
    what_else = _sniff(path)
    if what_else is not None:
        return what_else
    try:
        header = read_safetensors_header(path)
    except DamagedFile as error:
        return Identity("damaged", _without_name(error.message, path), advice=_advice("damaged"))
    return identify_tensors(header.shapes)


def refusal(path: Path, wanted: str, identity: Identity | None = None) -> NotACheckpoint:
    """The error for a file that is not what was asked for. `wanted` with its article: "a checkpoint", "a VAE".

    It reads like: ink-wash.safetensors is a VAE, not a checkpoint. Load it with the "Load VAE" node.
    """
    identity = identity or identify(path)
    return NotACheckpoint(f"{path.name} is {identity.description}, not {wanted}. {identity.advice}".rstrip())


def identify_tensors(shapes: Shapes) -> Identity:
    """What a set of named tensors is: the names and shapes of a safetensors header, or of a pickle's contents."""
    names = set(shapes)
    for rule in _RULES:
        identity = rule(shapes, names)
        if identity is not None:
            return identity
    return _of("unknown")


# --- by first bytes ---------------------------------------------------------------------------------------------


def _sniff(path: Path) -> Identity | None:
    """What the first bytes say, or None if it may be safetensors."""
    size = path.stat().st_size
    if size == 0:
        return _of("damaged", "an empty file")
    with path.open("rb") as file:
        head = file.read(_SNIFFED_BYTES)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        return _of(
            "not_weights",
            "a Git LFS pointer of a few lines that stands for the real file",
            advice='Fetch the file itself: "git lfs pull", or download it from the model\'s page.',
        )
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return _of(
            "not_weights",
            "a web page that was saved under a model's name",
            advice="The download asked for a login or failed. Download the file again from the model's page.",
        )
    for magic, description in _OTHER_MAGIC.items():
        if head.startswith(magic):
            return _of("not_weights", description)
    if head.startswith(b"PK\x03\x04"):
        return _identify_zip(path)
    if head[:1] == b"\x80" and head[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}:
        return _of("pickle")
    if _looks_like_safetensors(head, size):
        return None
    if _is_text(head):
        return _of("not_weights", "a text file")
    return _of("unreadable")


_OTHER_MAGIC = {
    b"GGUF": "a GGUF file, which Atoll cannot read",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"RIFF": "a WebP picture or a sound",
    b"GIF8": "a GIF picture",
    b"%PDF": "a PDF document",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x1f\x8b": "a gzip archive",
    b"ncnn": "an ncnn file",
}


def _looks_like_safetensors(head: bytes, size: int) -> bool:
    if len(head) < 9:
        return False
    (length,) = struct.unpack("<Q", head[:8])
    return head[8:9] == b"{" and 2 <= length <= max(size, MAX_HEADER_BYTES)


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    for cut in range(4):  # the last character may be cut in two
        try:
            head[: len(head) - cut].decode("utf-8")
        except UnicodeDecodeError:
            continue
        return True
    return False


def _identify_zip(path: Path) -> Identity:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, NotImplementedError):
        # torch.save writes a zip; its index lies at the end, which a broken download lacks.
        return _of("damaged", "cut short or damaged (a zip archive or .ckpt without its end)")
    if any(name.endswith("data.pkl") for name in names):
        return _of("pickle")
    return _of("not_weights", "a zip archive", advice="Unpack it and use the model inside.")


def _identify_folder(path: Path) -> Identity:
    index, config = path / "model_index.json", path / "config.json"
    try:
        if index.is_file():
            pipeline = json.loads(index.read_text(encoding="utf-8"))
            return _identify_pipeline_folder(path, pipeline)
        if config.is_file():
            return _identify_network_folder(json.loads(config.read_text(encoding="utf-8")))
    except (ValueError, TypeError, AttributeError) as error:
        return _of("damaged", f"a folder whose {index.name if index.is_file() else config.name} is unreadable: {error}")
    return _of(
        "not_weights",
        "a folder without model_index.json or config.json",
        advice="Choose a model file, or the folder of a whole model in diffusers layout.",
    )


def _identify_pipeline_folder(path: Path, pipeline: dict[str, Any]) -> Identity:
    parts = {name for name, origin in pipeline.items() if isinstance(origin, list) and any(origin)}
    if "unet" not in parts or "text_encoder_3" in parts:
        return _of("other_family", f"a model folder for {pipeline.get('_class_name', 'an unknown pipeline')}")
    if "text_encoder_2" in parts and "text_encoder" not in parts:
        return _of("other_family", "an SDXL refiner", base="sdxl-refiner")
    unet_config = path / "unet" / "config.json"
    unet = json.loads(unet_config.read_text(encoding="utf-8")) if unet_config.is_file() else None
    return _of(
        "diffusers_folder",
        base=None if unet is None else base_of_unet(unet),
        layout="diffusers",
        in_channels=None if unet is None else unet.get("in_channels"),
        has_vae="vae" in parts,
        has_text_encoder="text_encoder" in parts,
    )


def base_of_unet(config: Mapping[str, Any]) -> Base:
    """The family, from the configuration of a UNet2DConditionModel."""
    if config.get("addition_embed_type") == "text_time":
        return "sdxl"
    return "sd2" if config.get("use_linear_projection") or config.get("cross_attention_dim") == 1024 else "sd1"


def _identify_network_folder(config: dict[str, Any]) -> Identity:
    name = str(config.get("_class_name") or next(iter(config.get("architectures") or []), ""))
    kind = {
        "UNet2DConditionModel": "unet",
        "AutoencoderKL": "vae",
        "AutoencoderTiny": "preview_vae",
        "ControlNetModel": "controlnet",
        "CLIPTextModel": "text_encoder",
        "CLIPTextModelWithProjection": "text_encoder",
    }.get(name)
    if kind is None:
        return _of("other_family", f"a folder with a network of the class {name or 'unknown'}")
    if kind == "unet":
        return _of(kind, base=base_of_unet(config), layout="diffusers", in_channels=config.get("in_channels"))
    return _of(kind, layout="diffusers")


# --- by tensors -------------------------------------------------------------------------------------------------

LDM_UNET = "model.diffusion_model."
_LDM_VAE_PREFIXES = ("first_stage_model.", "vae.")
_LDM_TEXT_PREFIXES = ("cond_stage_model.", "conditioner.embedders.")
_CONTEXT_KEY = re.compile(r"attn2[._]to_k[._]")
_BASE_OF_WIDTH = {768: "sd1", 1024: "sd2", 2048: "sdxl"}
_BASE_NAMES = {"sd1": "SD 1.x", "sd2": "SD 2.x", "sdxl": "SDXL"}


def _identify_lora(shapes: Shapes, names: set[str]) -> Identity | None:
    if any(re.search(r"\.(hada_w1_a|lokr_w1|lokr_w1_a|oft_blocks|oft_diag|boft|glora)\b", name) for name in names):
        layout = "lycoris"
    elif any(".lora_down." in name or ".lora.down." in name or "lora_mid" in name for name in names):
        layout = "kohya" if any(name.startswith(("lora_unet_", "lora_te")) for name in names) else "diffusers"
    elif any(".lora_A." in name or "_lora.down." in name or ".lora_linear_layer." in name for name in names):
        layout = "peft" if any(".lora_A." in name for name in names) else "diffusers"
    elif any(name.startswith(("lora_unet_", "lora_te")) for name in names):
        layout = "lycoris"  # full differences (".diff") under kohya's names
    else:
        return None
    down = (name for name in names if _CONTEXT_KEY.search(name) and re.search(r"down|lora_A", name))
    widths = {shapes[name][1] for name in down if len(shapes[name]) >= 2}
    base = next((_BASE_OF_WIDTH[width] for width in widths if width in _BASE_OF_WIDTH), None)
    if base is None and any(name.startswith(("lora_te2_", "text_encoder_2.")) for name in names):
        base = "sdxl"
    return _of("lora", base=base, layout=layout)


def _identify_other_family(shapes: Shapes, names: set[str]) -> Identity | None:
    bare = {name.removeprefix(LDM_UNET) for name in names}
    for key, family in _OTHER_FAMILIES.items():
        if any(name.startswith(key) for name in bare):
            return _of("other_family", f"{family} model", base=family.split(" ", 1)[1])
    if f"{LDM_UNET}input_blocks.0.0.weight" in names and any("time_stack" in name for name in names):
        return _of("other_family", "a Stable Video Diffusion model", base="svd")
    return None


_OTHER_FAMILIES = {
    "double_blocks.": "a Flux or Hunyuan",
    "transformer_blocks.0.norm1_context": "a Stable Diffusion 3",
    "joint_blocks.": "a Stable Diffusion 3",
    "double_layers.": "an AuraFlow",
    "patchify_proj.": "an LTX-Video",
    "cap_embedder.": "a Lumina",
    "head.modulation": "a Wan",
    "down_blocks.1.0.channelwise": "a Stable Cascade",
    "clip_txt_mapper.": "a Stable Cascade",
    "encoder.block.0.layer.0.SelfAttention": "a T5 text encoder",
}


def _identify_ldm(shapes: Shapes, names: set[str]) -> Identity | None:
    """The original layout: a whole checkpoint, or a U-Net with or without the prefix that it has in one."""
    prefix = LDM_UNET if f"{LDM_UNET}input_blocks.0.0.weight" in names else ""
    if not prefix and not {"input_blocks.0.0.weight", "output_blocks.0.0.in_layers.0.weight"} <= names:
        return None
    in_channels = shapes[f"{prefix}input_blocks.0.0.weight"][1]
    base = _ldm_base(shapes, names, prefix)
    has_vae = any(name.startswith(_LDM_VAE_PREFIXES) for name in names)
    has_text_encoder = any(name.startswith(_LDM_TEXT_PREFIXES) for name in names)
    kind = "checkpoint" if has_vae or has_text_encoder else "unet"
    if base not in _BASE_NAMES:
        return _of("other_family", f"{base} {kind}", base=base)
    return _of(
        kind, base=base, layout="ldm", in_channels=in_channels, has_vae=has_vae, has_text_encoder=has_text_encoder
    )


def _ldm_base(shapes: Shapes, names: set[str], prefix: str) -> str:
    projection = next((shapes[name] for name in sorted(names) if name.endswith(".1.proj_in.weight")), ())
    if f"{prefix}label_emb.0.0.weight" in names:
        if any(name.startswith("cond_stage_model.") for name in names):
            return "an SD 2.x unCLIP"
        refiner_text = "conditioner.embedders.0.model.ln_final.weight" in names
        return "an SDXL refiner" if refiner_text else "sdxl"
    if f"{prefix}label_emb.weight" in names:
        return "an SD x4 upscaler"
    return "sd2" if len(projection) == 2 else "sd1"


def _identify_controlnet(shapes: Shapes, names: set[str]) -> Identity | None:
    marks = (
        "control_model.",
        "controlnet_cond_embedding.",
        "input_hint_block.",
        "lllite_unet",
        "controlnet_down_blocks.",
    )
    if any(name.startswith(marks) for name in names):
        return _of("controlnet", base=_base_of_context(shapes))
    if any(name.startswith("adapter.body.") for name in names) or "body.0.block1.weight" in names:
        return _of("t2i_adapter")
    return None


def _identify_diffusers_unet(shapes: Shapes, names: set[str]) -> Identity | None:
    if not {"conv_in.weight", "down_blocks.0.resnets.0.conv1.weight", "time_embedding.linear_1.weight"} <= names:
        return None
    base = "sdxl" if "add_embedding.linear_1.weight" in names else None
    if base is None:
        projection = next((shapes[name] for name in sorted(names) if name.endswith(".proj_in.weight")), ())
        base = "sd2" if len(projection) == 2 else "sd1"
    return _of("unet", base=base, layout="diffusers", in_channels=shapes["conv_in.weight"][1])


def _identify_vae(shapes: Shapes, names: set[str]) -> Identity | None:
    bare = {name.removeprefix("first_stage_model.").removeprefix("vae.") for name in names}
    if {"encoder.down.0.block.0.norm1.weight", "decoder.up.0.block.0.norm1.weight"} <= bare:
        return _of("vae", layout="ldm")
    if {"encoder.down_blocks.0.resnets.0.conv1.weight", "decoder.up_blocks.0.resnets.0.conv1.weight"} <= bare:
        return _of("vae", layout="diffusers")
    if {"encoder.layers.0.weight", "decoder.layers.0.weight"} <= bare or {"0.weight", "1.conv.0.weight"} <= bare:
        return _of("preview_vae")
    return None


def _identify_text_encoder(shapes: Shapes, names: set[str]) -> Identity | None:
    if any(".layers.0.self_attn.q_proj.weight" in name and "vision" not in name for name in names) and any(
        name.endswith("token_embedding.weight") for name in names
    ):
        return _of("text_encoder", base=_text_base(shapes), layout="diffusers")
    if any(name.endswith("transformer.resblocks.0.attn.in_proj_weight") and "visual" not in name for name in names):
        return _of("text_encoder", base=_text_base(shapes), layout="ldm")
    if any(name.startswith(("vision_model.", "visual.")) for name in names):
        return _of("clip_vision")
    return None


def _identify_addons(shapes: Shapes, names: set[str]) -> Identity | None:
    if any(name.startswith("ip_adapter.") for name in names):
        return _of("ip_adapter")
    if any("motion_modules." in name or "temporal_transformer." in name for name in names):
        return _of("motion_module")
    if "conv_first.weight" in names or {"model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"} <= names:
        return _of("upscaler")
    if {"body.0.weight", "body.1.weight"} <= names and all(name.startswith("body.") for name in names):
        return _of("upscaler")  # SRVGG, the compact network of Real-ESRGAN
    return None


def _identify_embedding(shapes: Shapes, names: set[str]) -> Identity | None:
    """A handful of vectors as wide as a text encoder: `emb_params`, `clip_l` + `clip_g`, or the new word itself."""
    widths = {shape[-1] for shape in shapes.values() if 1 <= len(shape) <= 2}
    if not names or len(names) > 4 or any(len(shape) not in {1, 2} for shape in shapes.values()):
        return None
    if names & {"emb_params", "clip_l", "clip_g", "string_to_param"} or widths <= {768, 1024, 1280}:
        base = "sdxl" if {"clip_l", "clip_g"} <= names else _BASE_OF_WIDTH.get(max(widths))
        return _of("embedding", base=base)
    return None


# More telling ones first: a LoRA's names contain the names of the network it is for.
_RULES = (
    _identify_lora,
    _identify_other_family,
    _identify_ldm,
    _identify_controlnet,
    _identify_addons,
    _identify_diffusers_unet,
    _identify_vae,
    _identify_text_encoder,
    _identify_embedding,
)


def _base_of_context(shapes: Shapes) -> str | None:
    for name in sorted(shapes):
        if _CONTEXT_KEY.search(name) and len(shapes[name]) == 2:
            return _BASE_OF_WIDTH.get(shapes[name][1])
    return None


def _text_base(shapes: Shapes) -> str | None:
    width = next((shape[-1] for name, shape in shapes.items() if name.endswith("token_embedding.weight")), None)
    return {768: "sd1", 1024: "sd2", 1280: "sdxl"}.get(width or 0)


def _of(kind: str, description: str | None = None, *, advice: str | None = None, **facts: Any) -> Identity:
    if description is None:
        description = _KINDS[kind][0]
        base, in_channels = _BASE_NAMES.get(facts.get("base") or ""), facts.get("in_channels")
        extra = [base] if base else []
        if in_channels == 9:
            extra.append("inpainting")
        if extra and kind in {"checkpoint", "unet"}:
            description = f"an {' '.join(extra)} {description.split(' ', 1)[1]}"
    return Identity(kind, description, advice=_advice(kind) if advice is None else advice, **facts)


def _advice(kind: str) -> str:
    return _KINDS[kind][1]


def _checked_end(entry: Mapping[str, Any], shape: Iterable[int]) -> int:
    """Where a tensor ends, counted from the end of the header. Raises ValueError if its size does not fit its shape."""
    begin, end = entry["data_offsets"]
    count = 1
    for edge in shape:
        count *= edge
    bits = _DTYPE_BITS.get(entry["dtype"])
    if not 0 <= begin <= end or (bits is not None and (count * bits + 7) // 8 != end - begin):
        raise ValueError(f"tensor of shape {list(shape)} in bytes {begin} to {end}")
    return int(end)


def _cut_short(path: Path, promised: int, size: int) -> str:
    return (
        f"{path.name} is cut short: its header promises {promised:,} bytes and {size:,} are there. {_advice('damaged')}"
    )


def _without_name(message: str, path: Path) -> str:
    words = message.removeprefix(f"{path.name} ").removeprefix("is ").removesuffix(_advice("damaged")).strip(" .")
    return words if words.startswith("cut") else f"damaged: it {words}"
