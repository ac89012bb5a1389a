"""Checkpoints load whole or part by part, offline, and say plainly what stands in the way."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from narrow_checkpoints import build_narrow_parts, ldm_state, save_ldm
from safetensors.torch import load_file
from tiny_models import save_tiny_checkpoint

from atoll.diffusion.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_scheduler,
    load_text_encoder,
    load_unet,
    load_vae,
)
from atoll.diffusion.sigmas import NoiseSchedule
from atoll.errors import NotACheckpoint, NotFound


def load(path: Path, **options: object) -> Checkpoint:
    return load_checkpoint(path, device="cpu", precision="fp32", **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def other_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With other weights, and a U-Net that predicts v."""
    folder = tmp_path_factory.mktemp("models") / "other"
    return save_tiny_checkpoint(folder, seed=1, prediction_type="v_prediction")


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_folder_becomes_the_networks_that_diffusers_loads(tiny_checkpoint: Path):
    checkpoint = load(tiny_checkpoint)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_checkpoint, safety_checker=None)
    assert same(checkpoint.model.unet, pipeline.unet)
    assert same(checkpoint.vae.network, pipeline.vae)
    assert same(checkpoint.text_encoder.encoders[0].network, pipeline.text_encoder)
    assert checkpoint.model.unet.config.attention_head_dim == pipeline.unet.config.attention_head_dim
    assert (checkpoint.model.name, checkpoint.model.base) == (tiny_checkpoint.name, "sd1")
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in checkpoint.model.unet.parameters())
    assert not checkpoint.model.unet.training
    theirs = pipeline.scheduler.alphas_cumprod
    torch.testing.assert_close(checkpoint.model.noise_schedule.sigmas, ((1 - theirs) / theirs) ** 0.5)


def test_each_part_may_come_from_elsewhere(tiny_checkpoint: Path, other_checkpoint: Path):
    plain, other = load(tiny_checkpoint), load(other_checkpoint)

    mixed = load(tiny_checkpoint, vae=other_checkpoint)
    assert same(mixed.vae.network, other.vae.network)
    assert same(mixed.model.unet, plain.model.unet)

    mixed = load(tiny_checkpoint, text_encoder=other_checkpoint / "text_encoder")
    assert same(mixed.text_encoder.encoders[0].network, other.text_encoder.encoders[0].network)

    mixed = load(tiny_checkpoint, unet=other_checkpoint / "unet")
    assert same(mixed.model.unet, other.model.unet)
    assert mixed.model.noise_schedule.prediction_type == "v_prediction"  # goes with the U-Net
    assert same(mixed.vae.network, plain.vae.network)

    mixed = load(tiny_checkpoint, scheduler=other_checkpoint)
    assert (mixed.model.noise_schedule.prediction_type, same(mixed.model.unet, plain.model.unet)) == (
        "v_prediction",
        True,
    )


def test_parts_that_are_loaded_already_are_taken_as_they_are(tiny_checkpoint: Path, other_checkpoint: Path):
    other = load(other_checkpoint)
    schedule = load_scheduler(tiny_checkpoint / "scheduler")
    mixed = load(tiny_checkpoint, vae=other.vae, text_encoder=other.text_encoder, unet=other.model, scheduler=schedule)
    assert mixed.vae is other.vae
    assert mixed.text_encoder is other.text_encoder
    assert mixed.model.unet is other.model.unet
    assert mixed.model.noise_schedule is schedule
    assert other.model.noise_schedule is not schedule


def test_each_part_loads_alone(tiny_checkpoint: Path):
    whole = load(tiny_checkpoint)
    for path in (tiny_checkpoint, tiny_checkpoint / "unet"):
        assert same(load_unet(path, device="cpu", precision="fp32").unet, whole.model.unet)
    for path in (tiny_checkpoint, tiny_checkpoint / "vae"):
        assert same(load_vae(path, device="cpu", precision="fp32").network, whole.vae.network)
    for path in (tiny_checkpoint, tiny_checkpoint / "text_encoder"):
        encoder = load_text_encoder(path, device="cpu", precision="fp32").encoders[0]
        assert same(encoder.network, whole.text_encoder.encoders[0].network)
    for path in (tiny_checkpoint, tiny_checkpoint / "scheduler", tiny_checkpoint / "scheduler/scheduler_config.json"):
        assert isinstance(load_scheduler(path), NoiseSchedule)


def test_the_scale_of_latents_comes_from_the_folder(tiny_checkpoint: Path, tmp_path: Path):
    folder = tmp_path / "scaled"
    shutil.copytree(tiny_checkpoint, folder)
    config = json.loads((folder / "vae/config.json").read_text())
    (folder / "vae/config.json").write_text(json.dumps(config | {"scaling_factor": 0.5}))
    assert load(folder).model.scaling_factor == 0.5
    assert load(tiny_checkpoint).model.scaling_factor == 0.18215


def test_a_chinese_path_with_spaces_is_a_path(tiny_checkpoint: Path, tmp_path: Path):
    folder = tmp_path / "我的 模型" / "水墨 画 ①"
    shutil.copytree(tiny_checkpoint, folder)
    assert load(folder).model.name == "水墨 画 ①"
    parts = build_narrow_parts("sd1")
    file = save_ldm(tmp_path / "我的 模型" / "检查点 一.safetensors", ldm_state("sd1", parts))
    assert same(load(file).model.unet, parts["unet"])


def test_nothing_is_fetched(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With every socket refused, a folder and single files load; a folder without tokenizer takes the built-in one."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    folder = tmp_path / "without-tokenizer"
    shutil.copytree(tiny_checkpoint, folder)
    shutil.rmtree(folder / "tokenizer")
    assert load(folder).text_encoder.encoders[0].tokenizer("a cat").input_ids == [49406, 320, 2368, 49407]
    for family in ("sd1", "sd2", "sdxl"):
        state = ldm_state(family, build_narrow_parts(family))
        assert load(save_ldm(tmp_path / f"{family}.safetensors", state)).model.base == family


def test_half_precision_variants_and_pickles_in_folders_load(tiny_checkpoint: Path, tmp_path: Path):
    folder = tmp_path / "variants"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / "unet/diffusion_pytorch_model.safetensors").rename(
        folder / "unet/diffusion_pytorch_model.fp16.safetensors"
    )
    for stem, pickled_stem in (
        ("vae/diffusion_pytorch_model", "vae/diffusion_pytorch_model"),
        ("text_encoder/model", "text_encoder/pytorch_model"),
    ):
        file = folder / f"{stem}.safetensors"
        torch.save(load_file(file), folder / f"{pickled_stem}.bin")
        file.unlink()
    loaded, plain = load(folder), load(tiny_checkpoint)
    assert same(loaded.model.unet, plain.model.unet)
    assert same(loaded.vae.network, plain.vae.network)
    assert same(loaded.text_encoder.encoders[0].network, plain.text_encoder.encoders[0].network)


# --- what stands in the way -------------------------------------------------------------------------------------


def test_a_missing_file_is_not_found(tmp_path: Path):
    for loader in (load_checkpoint, load_unet, load_vae, load_text_encoder):
        with pytest.raises(NotFound, match=r"There is no model file .*none\.safetensors"):
            loader(tmp_path / "none.safetensors")
    with pytest.raises(NotFound, match="no scheduler configuration"):
        load_scheduler(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is an empty file"),
        (b"a text file\n", "is a text file"),
        (b"<html></html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (bytes(range(128, 250)) * 9, "is no safetensors file"),
        (b"\x00" * 100, "is no safetensors file"),
    ],
)
@pytest.mark.parametrize("ending", [".safetensors", ".ckpt"])
def test_garbage_is_named_as_what_it_is(content: bytes, words: str, ending: str, tmp_path: Path):
    path = tmp_path / f"model{ending}"
    path.write_bytes(content)
    for loader in (load_checkpoint, load_unet, load_vae, load_text_encoder):
        with pytest.raises(NotACheckpoint, match=words):
            loader(path)


def test_other_kinds_are_named_with_the_node_for_them(tiny_checkpoint: Path, tmp_path: Path):
    lora = save_ldm(tmp_path / "ink-wash.safetensors", {"lora_unet_x.lora_down.weight": torch.zeros(4, 320)})
    for loader, wanted in ((load_checkpoint, "checkpoint"), (load_unet, "U-Net"), (load_vae, "VAE")):
        with pytest.raises(NotACheckpoint) as caught:
            loader(lora)
        words = f'ink-wash.safetensors is a LoRA, not a {wanted}. It belongs in "loras"; Atoll cannot apply them yet.'
        assert str(caught.value) == words
    pickled = tmp_path / "ink-wash.pt"
    torch.save({"lora_unet_x.lora_down.weight": torch.zeros(4, 320)}, pickled)
    with pytest.raises(NotACheckpoint, match="is a LoRA, not a checkpoint"):
        load_checkpoint(pickled)
    with pytest.raises(NotACheckpoint, match=r'is a VAE, not a checkpoint\. Load it with the "Load VAE" node'):
        load_checkpoint(tiny_checkpoint / "vae")
    with pytest.raises(NotACheckpoint, match="not a text encoder"):
        load_text_encoder(tiny_checkpoint / "vae")


def test_a_truncated_file_says_how_much_is_missing(tmp_path: Path):
    file = save_ldm(tmp_path / "cut.safetensors", ldm_state("sd1", build_narrow_parts("sd1")))
    size = file.stat().st_size
    with file.open("r+b") as opened:
        opened.truncate(size - 1000)
    with pytest.raises(NotACheckpoint, match=f"cut short: its header promises {size:,} bytes and {size - 1000:,} are"):
        load_checkpoint(file)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("unet/config.json", "config.json is missing"),
        ("unet/diffusion_pytorch_model.safetensors", "holds no weights"),
        ("vae/config.json", "config.json is missing"),
        ("text_encoder/model.safetensors", "holds no weights"),
    ],
)
def test_a_folder_that_lacks_a_file_says_which(damage: str, words: str, tiny_checkpoint: Path, tmp_path: Path):
    folder = tmp_path / "incomplete"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / damage).unlink()
    with pytest.raises(NotACheckpoint, match=words):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"_class_name": "SD3Transformer2DModel"}', '{"block_out_channels": 7}']
)
@pytest.mark.parametrize("part", ["unet", "vae"])
def test_a_folder_with_a_broken_configuration_is_refused(
    content: str, part: str, tiny_checkpoint: Path, tmp_path: Path
):
    folder = tmp_path / "broken"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / part / "config.json").write_text(content)
    with pytest.raises(NotACheckpoint):
        load_checkpoint(folder)


LOAD_AND_MEASURE = """
import json, re, struct, sys
from pathlib import Path
import psutil, torch
from atoll.diffusion import weights

EDGE, LAYERS = 2048, 32  # 16 MiB each in fp32, 8 in bf16
path, size = Path(sys.argv[1]), EDGE * EDGE * 4
header = {
    f"{i}.weight": {"dtype": "F32", "shape": [EDGE, EDGE], "data_offsets": [i * size, (i + 1) * size]}
    for i in range(LAYERS)
}
with path.open("wb") as file:  # zeros that this process never held
    raw = json.dumps(header).encode()
    file.write(struct.pack("<Q", len(raw)) + raw)
    file.truncate(8 + len(raw) + LAYERS * size)
weights._REOPEN_AFTER_BYTES = 2 * size
layers = [lambda: torch.nn.Linear(EDGE, EDGE, bias=False)] * LAYERS
network = weights.build_on_meta(lambda: torch.nn.Sequential(*(layer() for layer in layers)))
before = psutil.Process().memory_info().rss // 1024
opened = weights.Weights(path)
plan = {name: weights.Piece(name) for name in opened.shapes}
weights.load_weights(network, opened, plan, device=torch.device("cpu"), dtype=torch.bfloat16, part="network")
# not ru_maxrss: a child inherits that of the process that started it
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
print((peak - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_loading_in_bf16_peaks_at_little_more_than_what_it_keeps(tmp_path: Path):
    """Of 512 MiB in fp32, 256 are kept in bf16; were the file's mapping kept open, the peak would be 768."""
    command = [sys.executable, "-c", LOAD_AND_MEASURE, str(tmp_path / "big.safetensors")]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert answer.returncode == 0, answer.stderr
    assert 200 < int(answer.stdout) < 256 + 100
