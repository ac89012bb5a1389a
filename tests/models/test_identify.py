"""What a file is, from its header alone, and the words that refuse it."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

import pytest

from atoll.errors import NotACheckpoint, NotFound
from atoll.models.identify import DamagedFile, identify, identify_tensors, read_safetensors_header, refusal

UNET = "model.diffusion_model."
SD1_UNET = {
    f"{UNET}input_blocks.0.0.weight": (320, 4, 3, 3),
    f"{UNET}input_blocks.1.1.proj_in.weight": (320, 320, 1, 1),
    f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
    f"{UNET}output_blocks.0.0.in_layers.0.weight": (2560,),
}
LINEAR = {f"{UNET}input_blocks.1.1.proj_in.weight": (320, 320)}
VAE = {"encoder.down.0.block.0.norm1.weight": (128,), "decoder.up.0.block.0.norm1.weight": (128,)}
WITH_VAE = {f"first_stage_model.{name}": shape for name, shape in VAE.items()}
OPENCLIP = {"transformer.resblocks.0.attn.in_proj_weight": (3840, 1280), "token_embedding.weight": (49408, 1280)}
CLIP = {"text_model.encoder.layers.0.self_attn.q_proj.weight": (768, 768)}
CLIP |= {"text_model.embeddings.token_embedding.weight": (49408, 768)}


def renamed(shapes: dict[str, tuple[int, ...]], old: str, new: str) -> dict[str, tuple[int, ...]]:
    return {name.replace(old, new): shape for name, shape in shapes.items()}


def write_safetensors(path: Path, shapes: dict[str, tuple[int, ...]], *, dtype: str = "F16") -> Path:
    """The real format, without the tensors' values: the file has a hole where they would be."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2
        for edge in shape:
            size *= edge
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)
    return path


@pytest.mark.parametrize(
    ("shapes", "kind", "base", "description"),
    [
        (SD1_UNET | WITH_VAE, "checkpoint", "sd1", "an SD 1.x checkpoint"),
        (SD1_UNET | LINEAR | WITH_VAE, "checkpoint", "sd2", "an SD 2.x checkpoint"),
        (
            SD1_UNET | LINEAR | WITH_VAE | {f"{UNET}label_emb.0.0.weight": (1280, 2816)},
            "checkpoint",
            "sdxl",
            "an SDXL checkpoint",
        ),
        (
            SD1_UNET | WITH_VAE | {f"{UNET}input_blocks.0.0.weight": (320, 9, 3, 3)},
            "checkpoint",
            "sd1",
            "an SD 1.x inpainting checkpoint",
        ),
        (SD1_UNET, "unet", "sd1", "an SD 1.x U-Net alone"),
        (renamed(SD1_UNET, UNET, ""), "unet", "sd1", "an SD 1.x U-Net alone"),
        (VAE, "vae", None, "a VAE"),
        (WITH_VAE, "vae", None, "a VAE"),
        (
            {
                "encoder.down_blocks.0.resnets.0.conv1.weight": (128, 128, 3, 3),
                "decoder.up_blocks.0.resnets.0.conv1.weight": (512, 512, 3, 3),
            },
            "vae",
            None,
            "a VAE",
        ),
        (CLIP, "text_encoder", "sd1", "a text encoder"),
        (renamed(CLIP, "text_model.", ""), "text_encoder", "sd1", "a text encoder"),
        (OPENCLIP, "text_encoder", "sdxl", "a text encoder"),
        (
            {
                "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": (8, 768),
                "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_up.weight": (640, 8),
            },
            "lora",
            "sd1",
            "a LoRA",
        ),
        (
            {"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": (8, 2048)},
            "lora",
            "sdxl",
            "a LoRA",
        ),
        (
            {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_k_lora.down.weight": (4, 320)},
            "lora",
            None,
            "a LoRA",
        ),
        ({"lora_unet_mid_block_attentions_0_proj_in.hada_w1_a": (1280, 8)}, "lora", None, "a LoRA"),
        ({"lora_te2_text_model_encoder_layers_0_mlp_fc1.lokr_w1": (8, 8)}, "lora", "sdxl", "a LoRA"),
        ({"emb_params": (8, 768)}, "embedding", "sd1", "a textual inversion embedding"),
        ({"clip_l": (4, 768), "clip_g": (4, 1280)}, "embedding", "sdxl", "a textual inversion embedding"),
        ({"<my-cat>": (1024,)}, "embedding", "sd2", "a textual inversion embedding"),
        ({"control_model.input_blocks.0.0.weight": (320, 4, 3, 3)}, "controlnet", None, "a ControlNet"),
        (
            {
                "controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3),
                "conv_in.weight": (320, 4, 3, 3),
                "down_blocks.0.resnets.0.conv1.weight": (320, 320, 3, 3),
                "time_embedding.linear_1.weight": (1280, 320),
            },
            "controlnet",
            None,
            "a ControlNet",
        ),
        (
            {"model.0.weight": (64, 3, 3, 3), "model.1.sub.0.RDB1.conv1.0.weight": (32, 64, 3, 3)},
            "upscaler",
            None,
            "an upscaler (ESRGAN family)",
        ),
        ({"conv_first.weight": (64, 3, 3, 3)}, "upscaler", None, "an upscaler (ESRGAN family)"),
        ({"body.0.weight": (64, 3, 3, 3), "body.1.weight": (64,)}, "upscaler", None, "an upscaler (ESRGAN family)"),
        (
            {f"{UNET}double_blocks.0.img_attn.qkv.weight": (9, 3)},
            "other_family",
            "Flux or Hunyuan",
            "a Flux or Hunyuan model",
        ),
        (
            {f"{UNET}joint_blocks.0.context_block.attn.qkv.weight": (9, 3)},
            "other_family",
            "Stable Diffusion 3",
            "a Stable Diffusion 3 model",
        ),
        ({"some.layer.weight": (3, 3)}, "unknown", None, "no kind of model that Atoll knows"),
        ({}, "unknown", None, "no kind of model that Atoll knows"),
    ],
)
def test_a_file_is_known_by_its_header(
    shapes: dict[str, tuple[int, ...]], kind: str, base: str | None, description: str, tmp_path: Path
):
    identity = identify(write_safetensors(tmp_path / "file.safetensors", shapes))
    assert (identity.kind, identity.base, identity.description) == (kind, base, description)
    assert identity == identify_tensors(shapes)


def test_the_parts_inside_a_checkpoint_are_told(tmp_path: Path):
    text = {"cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": (49408, 768)}
    identity = identify_tensors(SD1_UNET | WITH_VAE)
    assert (identity.has_vae, identity.has_text_encoder, identity.in_channels) == (True, False, 4)
    identity = identify_tensors(SD1_UNET | text)
    assert (identity.kind, identity.has_vae, identity.has_text_encoder) == ("checkpoint", False, True)


def test_a_lora_handed_in_as_a_checkpoint_is_named_as_what_it_is(tmp_path: Path):
    path = write_safetensors(tmp_path / "ink-wash.safetensors", {"lora_unet_x.lora_down.weight": (4, 320)})
    assert str(refusal(path, "a checkpoint")) == (
        'ink-wash.safetensors is a LoRA, not a checkpoint. It belongs in "loras"; Atoll cannot apply them yet.'
    )


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (b"", "damaged", "is an empty file, not a checkpoint. Download or copy it again."),
        (b"dear diary\n", "not_weights", "is a text file, not a checkpoint. Download the model itself"),
        ("亲爱的日记".encode() * 2000, "not_weights", "is a text file, not a checkpoint"),
        (b"<!DOCTYPE html><html>log in</html>", "not_weights", "is a web page that was saved under a model's name"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4265146304\n",
            "not_weights",
            'stands for the real file, not a checkpoint. Fetch the file itself: "git lfs pull"',
        ),
        (b"\x89PNG\r\n\x1a\n", "not_weights", "is a PNG picture, not a checkpoint"),
        (b"GGUF\x03\0\0\0", "not_weights", "is a GGUF file"),
        (b"\x80\x02}q\x00.", "pickle", "is a Python pickle"),
        (b"PK\x03\x04 and then nothing", "damaged", "is cut short or damaged"),
        (bytes(range(128, 250)) * 9, "unreadable", "is no safetensors file and no other format that Atoll knows"),
        (
            struct.pack("<Q", 20) + b"{not json, no header",
            "damaged",
            "damaged: it has a safetensors header that makes no",
        ),
    ],
)
def test_what_is_no_model_is_named_with_what_to_do(content: bytes, kind: str, words: str, tmp_path: Path):
    path = tmp_path / "模型 一.safetensors"
    path.write_bytes(content)
    assert identify(path).kind == kind
    assert words in str(refusal(path, "a checkpoint"))
    assert str(refusal(path, "a checkpoint")).startswith("模型 一.safetensors is ")


@pytest.mark.parametrize("keep", [9, 40, 300, 5000])
def test_a_file_cut_short_is_seen_at_any_point(keep: int, tmp_path: Path):
    path = write_safetensors(tmp_path / "big.safetensors", {f"layer.{index}.weight": (64, 64) for index in range(5)})
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(keep)
    assert identify(path).kind == "damaged"
    with pytest.raises(DamagedFile, match=rf"cut short: its header promises [\d,]+ bytes and {keep:,} are there"):
        read_safetensors_header(path)
    assert keep < size


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2, 2], "data_offsets": [16, 0]},
        {"dtype": "F32", "shape": "2x2", "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [2, 2]},
        ["F32"],
        7,
    ],
)
def test_a_header_that_contradicts_itself_is_damaged(entry: object, tmp_path: Path):
    raw = json.dumps({"weight": entry}).encode()
    path = tmp_path / "odd.safetensors"
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(16))
    assert identify(path).kind == "damaged"


def test_a_file_of_any_size_takes_only_its_header(tmp_path: Path):
    path = write_safetensors(tmp_path / "huge.safetensors", SD1_UNET | WITH_VAE | {"x": (50_000, 1_000_000)})
    assert path.stat().st_size > 90 * 2**30  # a hole in the file
    assert identify(path).kind == "checkpoint"
    assert read_safetensors_header(path).dtypes["x"] == "F16"


def test_zip_archives_are_told_from_pickles(tmp_path: Path):
    for inside, kind in (("model/data.pkl", "pickle"), ("readme.md", "not_weights")):
        with zipfile.ZipFile(tmp_path / "file.ckpt", "w") as archive:
            archive.writestr(inside, b"")
        assert identify(tmp_path / "file.ckpt").kind == kind


def test_folders_are_known_by_their_configuration(tiny_checkpoint: Path, tmp_path: Path):
    whole, unet = identify(tiny_checkpoint), identify(tiny_checkpoint / "unet")
    assert (whole.kind, whole.base, whole.in_channels, whole.has_vae) == ("diffusers_folder", "sd1", 4, True)
    assert (unet.kind, unet.base) == ("unet", "sd1")
    assert identify(tiny_checkpoint / "vae").kind == "vae"
    assert identify(tiny_checkpoint / "text_encoder").kind == "text_encoder"
    assert identify(tmp_path).kind == "not_weights"
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline", "transformer": ["diffusers", "X"]}')
    assert str(refusal(tmp_path, "a checkpoint")).startswith(f"{tmp_path.name} is a model folder for FluxPipeline, not")
    (tmp_path / "model_index.json").write_text("[1")
    assert identify(tmp_path).kind == "damaged"


def test_a_missing_file_is_not_found(tmp_path: Path):
    with pytest.raises(NotFound, match="There is no file"):
        identify(tmp_path / "none.safetensors")


def test_refusals_are_errors_of_one_code(tmp_path: Path):
    (tmp_path / "x.safetensors").write_bytes(b"")
    error = refusal(tmp_path / "x.safetensors", "a VAE")
    assert isinstance(error, NotACheckpoint)
    assert error.code == "not_a_checkpoint"
