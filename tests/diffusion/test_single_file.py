"""Files in the original layout become the very networks they were written from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from ldm_layout import clip_to_openclip, unet_to_ldm, vae_to_ldm
from narrow_checkpoints import FAMILIES, build_narrow_parts, ldm_state, save_ldm
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from atoll.diffusion.checkpoint import load_checkpoint, load_scheduler, load_text_encoder, load_unet, load_vae
from atoll.diffusion.single_file import plan_text_encoders, plan_unet, plan_vae
from atoll.diffusion.text import encode_prompt
from atoll.errors import NotACheckpoint

# What the published models' config.json say, where it differs from UNet2DConditionModel's defaults.
SD1 = {"cross_attention_dim": 768, "attention_head_dim": 8}
SD2 = {"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True}
SDXL = {
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "cross_attention_dim": 2048,
    "attention_head_dim": [5, 10, 20],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def shapes_of(state: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def narrow(family: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A whole checkpoint of the family as a file, and the networks that it was written from."""
    parts = build_narrow_parts(family)
    return save_ldm(tmp_path_factory.mktemp("ldm") / f"{family}.safetensors", ldm_state(family, parts)), parts


@pytest.mark.parametrize(
    ("published", "parameters"), [(SD1, 859_520_964), (SD2, 865_910_724), (SDXL, 2_567_463_684)], ids=FAMILIES
)
def test_the_published_unets_are_recognised_by_shape(published: dict[str, Any], parameters: int):
    """At full size, without memory: each tensor finds its place, and the configuration is the published one."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**published)
    ldm = unet_to_ldm(unet)
    config, plan = plan_unet(shapes_of(ldm))
    with torch.device("meta"):
        rebuilt = UNet2DConditionModel.from_config(config)
    assert sum(tensor.numel() for tensor in rebuilt.state_dict().values()) == parameters
    assert shapes_of(rebuilt.state_dict()) == {name: tuple(ldm[piece.source].shape) for name, piece in plan.items()}
    for key, value in published.items():
        found = rebuilt.config[key]
        assert (list(found) if isinstance(found, list | tuple) else found) == value, key
    # diffusers' own converter agrees that these are the original names
    theirs = convert_ldm_unet_checkpoint(ldm, dict(unet.config))
    assert {name: id(tensor) for name, tensor in theirs.items()} == {
        name: id(ldm[piece.source]) for name, piece in plan.items()
    }


def test_the_published_vae_is_recognised_by_shape():
    channels = [128, 256, 512, 512]
    with torch.device("meta"):
        vae = AutoencoderKL(
            block_out_channels=channels, layers_per_block=2, latent_channels=4,
            down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        )  # fmt: skip
    ldm = vae_to_ldm(vae)
    config, plan = plan_vae(shapes_of(ldm))
    assert sum(tensor.numel() for tensor in vae.state_dict().values()) == 83_653_863
    assert (config["block_out_channels"], config["layers_per_block"], config["latent_channels"]) == (channels, 2, 4)
    placed = {name: piece.take(ldm[piece.source]) if piece.take else ldm[piece.source] for name, piece in plan.items()}
    assert shapes_of(placed) == shapes_of(vae.state_dict())
    assert set(convert_ldm_vae_checkpoint(ldm, dict(vae.config))) == set(plan)


@pytest.mark.parametrize(
    ("width", "layers", "heads", "projection"), [(1024, 24, 16, 1024), (1280, 32, 20, 1280)], ids=["CLIP-H", "CLIP-G"]
)
def test_the_published_text_encoders_are_recognised_by_shape(width: int, layers: int, heads: int, projection: int):
    config = CLIPTextConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=heads,
        projection_dim=projection, hidden_act="gelu",
    )  # fmt: skip
    with torch.device("meta"):
        network = CLIPTextModelWithProjection(config)
    ldm = clip_to_openclip(network, "conditioner.embedders.1.model.")
    [(found, plan)] = plan_text_encoders(shapes_of(ldm))
    for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act"):
        assert found[key] == getattr(config, key), key
    placed = {name: piece.take(ldm[piece.source]) if piece.take else ldm[piece.source] for name, piece in plan.items()}
    wanted = {name.removeprefix("text_model."): shape for name, shape in shapes_of(network.state_dict()).items()}
    assert shapes_of(placed) == wanted


def test_every_network_computes_what_it_did_before(family: str, narrow: tuple[Path, dict[str, Any]]):
    path, parts = narrow
    checkpoint = load_checkpoint(path, device="cpu", precision="fp32")
    assert (checkpoint.model.base, checkpoint.model.name, checkpoint.model.in_channels) == (family, path.name, 4)
    assert checkpoint.model.scaling_factor == (0.13025 if family == "sdxl" else 0.18215)

    latents, image = torch.randn(1, 4, 8, 8), torch.rand(1, 3, 32, 32)
    context = torch.randn(1, 77, parts["unet"].config.cross_attention_dim)
    added = {"text_embeds": torch.randn(1, 128), "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]])}
    call = {"encoder_hidden_states": context, "added_cond_kwargs": added if family == "sdxl" else None}
    with torch.no_grad():
        torch.testing.assert_close(
            checkpoint.model.unet(latents, 500, **call).sample,
            parts["unet"](latents, 500, **call).sample,
            rtol=0,
            atol=0,
        )
        expected = parts["vae"].encode(image * 2 - 1).latent_dist.mode()
        torch.testing.assert_close(checkpoint.vae.encode_image(image), expected, rtol=0, atol=0)
        ids = torch.tensor([[49406, 320, 736, 3055, *[49407] * 73]])
        for encoder, name in zip(checkpoint.text_encoder.encoders, ("text_encoder", "text_encoder_2"), strict=False):
            ours, theirs = encoder.network(ids), parts[name](ids)
            torch.testing.assert_close(ours.last_hidden_state, theirs.last_hidden_state, rtol=0, atol=0)
    assert len(checkpoint.text_encoder.encoders) == (2 if family == "sdxl" else 1)


def test_each_family_takes_the_layer_it_was_trained_with(family: str, narrow: tuple[Path, dict[str, Any]]):
    """SD 1.x: the last, normalised; SD 2.x: the last but one, normalised; SDXL: the last but one, as it is."""
    path, parts = narrow
    text_encoder = load_text_encoder(path, device="cpu", precision="fp32")
    conditioning = encode_prompt(text_encoder, "a red apple")
    expected = []
    for encoder, name in zip(text_encoder.encoders, ("text_encoder", "text_encoder_2"), strict=False):
        pad = 49407 if encoder is text_encoder.encoders[0] and family != "sd2" else 0
        ids = torch.tensor([[49406, 320, 736, 3055, 49407, *[pad] * 72]])
        with torch.no_grad():
            network = parts[name]
            hidden = network(ids, output_hidden_states=True).hidden_states[-1 if family == "sd1" else -2]
            expected.append(hidden if family == "sdxl" else network.final_layer_norm(hidden))
    torch.testing.assert_close(conditioning.embeds, torch.cat(expected, dim=-1))
    assert (conditioning.pooled is not None) == (family == "sdxl")


def test_parts_load_alone_and_from_files_of_their_own(family: str, narrow: tuple[Path, dict[str, Any]], tmp_path: Path):
    """A U-Net or VAE alone may have either layout, with or without the prefix that it has in a checkpoint."""
    path, parts = narrow
    files = {
        "prefixed": save_ldm(tmp_path / "unet-prefixed.safetensors", unet_to_ldm(parts["unet"])),
        "bare": save_ldm(tmp_path / "unet-bare.safetensors", unet_to_ldm(parts["unet"], prefix="")),
        "diffusers": save_ldm(tmp_path / "unet-diffusers.safetensors", parts["unet"].state_dict()),
    }
    reference = load_unet(path, device="cpu", precision="fp32")
    for file in files.values():
        model = load_unet(file, device="cpu", precision="fp32")
        assert model.base == family
        assert_same_weights(model.unet, reference.unet)
        assert model.unet.config.attention_head_dim == reference.unet.config.attention_head_dim
    for prefix in ("", "first_stage_model."):
        file = save_ldm(tmp_path / "vae.safetensors", vae_to_ldm(parts["vae"], prefix))
        assert_same_weights(load_vae(file, device="cpu", precision="fp32").network, parts["vae"])
    file = save_ldm(tmp_path / "vae-diffusers.safetensors", parts["vae"].state_dict())
    assert_same_weights(load_vae(file, device="cpu", precision="fp32").network, parts["vae"])


def test_text_encoders_of_sdxl_load_from_two_files(tmp_path: Path):
    parts = build_narrow_parts("sdxl")
    whole = save_ldm(tmp_path / "whole.safetensors", ldm_state("sdxl", parts))
    narrow_l = save_ldm(tmp_path / "clip_l.safetensors", parts["text_encoder"].state_dict())
    narrow_g = save_ldm(tmp_path / "clip_g.safetensors", clip_to_openclip(parts["text_encoder_2"], ""))
    together = load_text_encoder([narrow_g, narrow_l], device="cpu", precision="fp32")
    expected = encode_prompt(load_text_encoder(whole, device="cpu", precision="fp32"), "a (red:1.2) apple")
    conditioning = encode_prompt(together, "a (red:1.2) apple")
    torch.testing.assert_close(conditioning.embeds, expected.embeds, rtol=0, atol=0)
    torch.testing.assert_close(conditioning.pooled, expected.pooled, rtol=0, atol=0)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("wanted", ["fp32", "bf16"])
def test_files_of_any_precision_load_in_any(stored: torch.dtype, wanted: str, tmp_path: Path):
    parts = build_narrow_parts("sd1")
    file = save_ldm(tmp_path / "half.safetensors", ldm_state("sd1", parts), dtype=stored)
    checkpoint = load_checkpoint(file, device="cpu", precision=wanted)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[wanted]
    weight = checkpoint.model.unet.conv_in.weight
    assert (weight.dtype, checkpoint.vae.dtype, checkpoint.text_encoder.dtype) == (dtype, dtype, dtype)
    torch.testing.assert_close(weight, parts["unet"].conv_in.weight.to(stored).to(dtype), rtol=0, atol=0)


def test_an_inpainting_unet_is_one(tmp_path: Path):
    parts = build_narrow_parts("sd1", in_channels=9)
    model = load_checkpoint(save_ldm(tmp_path / "inpaint.safetensors", ldm_state("sd1", parts)), device="cpu").model
    assert (model.in_channels, model.is_inpainting) == (9, True)


def test_a_unet_for_other_inputs_is_refused_in_words(tmp_path: Path):
    parts = build_narrow_parts("sd1", in_channels=8)
    file = save_ldm(tmp_path / "pix2pix.safetensors", ldm_state("sd1", parts))
    with pytest.raises(NotACheckpoint, match="8 input channels"):
        load_checkpoint(file)


def test_a_file_without_vae_says_so_and_loads_with_another_one(tmp_path: Path):
    parts = build_narrow_parts("sd1")
    without = {name: part for name, part in parts.items() if name != "vae"}
    file = save_ldm(tmp_path / "no-vae.safetensors", ldm_state("sd1", without))
    with pytest.raises(NotACheckpoint, match=r"no-vae\.safetensors: it holds no VAE; take one from another file"):
        load_checkpoint(file, device="cpu")
    vae = save_ldm(tmp_path / "vae.safetensors", vae_to_ldm(parts["vae"], ""))
    assert_same_weights(load_checkpoint(file, device="cpu", precision="fp32", vae=vae).vae.network, parts["vae"])


def test_a_unet_alone_is_a_checkpoint_once_the_other_parts_are_given(tmp_path: Path):
    parts = build_narrow_parts("sd1")
    unet = save_ldm(tmp_path / "unet.safetensors", unet_to_ldm(parts["unet"]))
    vae = save_ldm(tmp_path / "vae.safetensors", vae_to_ldm(parts["vae"], ""))
    text = save_ldm(tmp_path / "clip.safetensors", parts["text_encoder"].state_dict())
    with pytest.raises(NotACheckpoint, match=r'is an SD 1\.x U-Net alone, not a checkpoint. .*"Load Diffusion Model"'):
        load_checkpoint(unet)
    checkpoint = load_checkpoint(unet, vae=vae, text_encoder=text, device="cpu", precision="fp32")
    assert_same_weights(checkpoint.text_encoder.encoders[0].network, parts["text_encoder"])


def test_a_checkpoint_with_a_tensor_missing_or_odd_is_refused_in_words(tmp_path: Path):
    state = ldm_state("sd1", build_narrow_parts("sd1"))
    name = "model.diffusion_model.middle_block.0.in_layers.0.weight"
    lacking = save_ldm(tmp_path / "lacking.safetensors", {key: value for key, value in state.items() if key != name})
    with pytest.raises(NotACheckpoint, match=r"lacks 1 of the \d+ tensors of its U-Net, mid_block.resnets.0.norm1"):
        load_checkpoint(lacking)
    odd = save_ldm(tmp_path / "odd.safetensors", state | {name: torch.zeros(7)})
    with pytest.raises(NotACheckpoint, match=r"has shape \[7\] where the U-Net wants \[64\]"):
        load_checkpoint(odd)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_a_pickle_of_tensors_loads_and_says_what_it_is(zipped: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    parts = build_narrow_parts("sd1")
    file = tmp_path / "model.ckpt"
    content = {"state_dict": ldm_state("sd1", parts), "global_step": 470_000}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    checkpoint = load_checkpoint(file, device="cpu", precision="fp32")
    assert_same_weights(checkpoint.model.unet, parts["unet"])
    assert "restricted loader" in caplog.text


class TouchesAFile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_a_pickle_that_runs_a_program_is_refused_and_never_run(zipped: bool, tmp_path: Path):
    owned = tmp_path / "owned"
    file = tmp_path / "nice-model.ckpt"
    content = {"state_dict": {"model.diffusion_model.input_blocks.0.0.weight": TouchesAFile(owned)}}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        NotACheckpoint, match=r"more than tensors .* nothing of it was run. Get the model as .safetensors"
    ):
        load_checkpoint(file)
    assert not owned.exists()


def test_what_a_unet_predicts_is_found_where_files_say_it(tmp_path: Path):
    def predicts(file: Path, **options: Any) -> str:
        return load_unet(file, device="cpu", precision="fp32", **options).noise_schedule.prediction_type

    unet = build_narrow_parts("sd2")["unet"]
    state = unet_to_ldm(unet)
    plain = save_ldm(tmp_path / "plain.safetensors", state)
    assert predicts(plain) == "epsilon"
    assert predicts(plain, scheduler={"prediction_type": "v_prediction"}) == "v_prediction"

    keyed = save_ldm(tmp_path / "keyed.safetensors", state | {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])})
    assert predicts(keyed) == "v_prediction"
    assert load_unet(keyed, device="cpu", precision="fp32").noise_schedule.sigma_max > 1000  # zero terminal SNR
    told = save_ldm(tmp_path / "told.safetensors", state, metadata={"modelspec.prediction_type": "v"})
    assert predicts(told) == "v_prediction"

    spread = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
    guessed = save_ldm(tmp_path / "v.safetensors", state | {spread: torch.linspace(-0.3, 0.3, 32)})
    assert predicts(guessed) == "v_prediction"
    guessed.with_suffix(".yaml").write_text("model:\n  params:\n    parameterization: eps\n    linear_start: 0.001\n")
    assert predicts(guessed) == "epsilon"
    plain.with_suffix(".yaml").write_text('model:\n  params:\n    parameterization: "v"\n    linear_start: 0.00085\n')
    assert predicts(plain) == "v_prediction"
    assert load_scheduler(plain.with_suffix(".yaml")).prediction_type == "v_prediction"


def test_loading_keeps_no_hold_on_the_file(tmp_path: Path):
    """A model in use is not changed by what happens to its file."""
    parts = build_narrow_parts("sd1")
    file = save_ldm(tmp_path / "unet.safetensors", unet_to_ldm(parts["unet"]))
    model = load_unet(file, device="cpu", precision="fp32")
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2)
        opened.write(b"\0" * (file.stat().st_size // 2))
    assert_same_weights(model.unet, parts["unet"])


def test_shards_beside_an_index_are_one_file(tmp_path: Path):
    unet = build_narrow_parts("sd1")["unet"]
    unet.save_pretrained(tmp_path / "unet", max_shard_size="2MB")
    assert len(list((tmp_path / "unet").glob("*.safetensors"))) > 1
    assert_same_weights(load_unet(tmp_path / "unet", device="cpu", precision="fp32").unet, unet)
    next((tmp_path / "unet").glob("*00001*.safetensors")).unlink()
    with pytest.raises(NotACheckpoint, match="which is not beside it"):
        load_unet(tmp_path / "unet")


def test_a_vae_with_the_names_of_old_diffusers_loads(tmp_path: Path):
    vae = build_narrow_parts("sd1")["vae"]
    vae.save_pretrained(tmp_path / "vae")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for name, tensor in vae.state_dict().items():
        for new, former in old.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{former}.")
        state[name] = tensor.contiguous()
    save_file(state, tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    assert_same_weights(load_vae(tmp_path / "vae", device="cpu", precision="fp32").network, vae)


def assert_same_weights(network: torch.nn.Module, expected: torch.nn.Module) -> None:
    ours, theirs = network.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def test_a_text_model_in_the_checkpoint_of_the_first_days_loads(tmp_path: Path):
    """Some SD 1.x files lack the "text_model." between prefix and name."""
    parts = build_narrow_parts("sd1")
    state = ldm_state("sd1", parts)
    old = {name.replace("transformer.text_model.", "transformer."): tensor for name, tensor in state.items()}
    encoder = load_text_encoder(save_ldm(tmp_path / "old.safetensors", old), device="cpu", precision="fp32")
    assert isinstance(encoder.encoders[0].network, CLIPTextModel)
    assert_same_weights(encoder.encoders[0].network, parts["text_encoder"])
