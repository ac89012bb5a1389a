"""Devices and number formats are picked from what is there; impossible ones are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from atoll.diffusion.checkpoint import load_checkpoint
from atoll.diffusion.precision import available_devices, cpu_has_bf16, pick_device, pick_dtype, pick_vae_dtype
from atoll.errors import InvalidRequest

CPU = torch.device("cpu")


def test_the_best_device_there_is_picked():
    assert pick_device("auto") == torch.device(available_devices()[0])
    assert pick_device("cpu") == CPU
    assert available_devices()[-1] == "cpu"


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "xpu", "", "cpu:x"])
def test_a_device_that_is_not_there_is_refused_in_words(device: str):
    with pytest.raises(InvalidRequest, match=r"This machine has: .*cpu"):
        pick_device(device)


def test_auto_on_a_cpu_is_bf16_only_with_its_instructions(monkeypatch: pytest.MonkeyPatch):
    for has_it, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("atoll.diffusion.precision.cpu_has_bf16", lambda has_it=has_it: has_it)
        assert pick_dtype("auto", CPU) == dtype


def test_the_cpus_flags_are_what_the_system_reports():
    flags = Path("/proc/cpuinfo")
    if not flags.is_file():
        pytest.skip("no /proc/cpuinfo on this system")
    words = set(flags.read_text(encoding="utf-8").split())
    assert cpu_has_bf16() == bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


def test_an_unknown_precision_is_refused_in_words():
    with pytest.raises(InvalidRequest, match=r'Precision "fp8" is unknown. Known: auto, fp32, fp16, bf16'):
        pick_dtype("fp8", CPU)


def test_the_vae_leaves_fp16_where_it_would_overflow():
    cuda = torch.device("cuda")
    assert pick_vae_dtype(torch.float16, cuda, fp16_is_safe=True) == torch.float16
    assert pick_vae_dtype(torch.float16, CPU, fp16_is_safe=False) == torch.float32
    for dtype in (torch.float32, torch.bfloat16):
        assert pick_vae_dtype(dtype, CPU, fp16_is_safe=False) == dtype


def test_a_checkpoint_loads_in_the_precision_asked_for(tiny_checkpoint: Path):
    checkpoint = load_checkpoint(tiny_checkpoint, device="cpu", precision="fp16")
    assert (checkpoint.model.dtype, checkpoint.model.unet.dtype) == (torch.float16, torch.float16)
    assert checkpoint.vae.dtype == torch.float32  # fp16 convolutions are slow on a CPU


@pytest.mark.gpu
def test_auto_on_a_gpu_is_fp16_with_a_vae_that_does_not_overflow(tmp_path: Path):
    from narrow_checkpoints import build_narrow_parts, ldm_state, save_ldm

    file = save_ldm(tmp_path / "xl.safetensors", ldm_state("sdxl", build_narrow_parts("sdxl")))
    checkpoint = load_checkpoint(file)
    assert (checkpoint.model.device.type, checkpoint.model.dtype) == ("cuda", torch.float16)
    assert checkpoint.vae.dtype in {torch.bfloat16, torch.float32}
    assert checkpoint.vae.decode_latents(torch.randn(1, 4, 8, 8)).isfinite().all()
