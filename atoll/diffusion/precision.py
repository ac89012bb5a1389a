"""Which device runs the networks and in which number format, picked from what is there."""

from __future__ import annotations

from functools import lru_cache

import torch

from atoll.errors import InvalidRequest

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """ "auto" is the first CUDA device, else Apple's MPS, else the CPU; any other name must be there.

    Raises: InvalidRequest, listing what this machine has.
    """
    there = available_devices()
    if str(device) == "auto":
        return torch.device(there[0])
    try:
        wanted = torch.device(device)
    except (RuntimeError, ValueError, TypeError) as error:
        raise InvalidRequest(f'"{device}" is no device. This machine has: {", ".join(there)}.') from error
    name = f"cuda:{wanted.index or 0}" if wanted.type == "cuda" else wanted.type
    if name not in there:
        reason = "" if wanted.type != "cuda" or torch.cuda.is_available() else " This PyTorch sees no CUDA device."
        raise InvalidRequest(f'Device "{device}" is not there.{reason} This machine has: {", ".join(there)}.')
    return torch.device(name)


def available_devices() -> list[str]:
    """Names for `pick_device`, the best one first."""
    devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        devices.append("mps")
    return [*devices, "cpu"]


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The number format of text encoder and U-Net.

    "auto" is fp16 on a GPU; on a CPU bf16 where it has the instructions (twice as fast as fp32), else fp32.
    Raises: InvalidRequest for a precision that is unknown or that the device cannot compute with.
    """
    if precision == "auto":
        if device.type == "cpu":
            return torch.bfloat16 if cpu_has_bf16() else torch.float32
        if device.type == "cuda" and "GTX 16" in torch.cuda.get_device_name(device):
            return torch.float32  # these answer NaN to fp16 convolutions
        return torch.float16
    if precision not in DTYPES:
        raise InvalidRequest(f'Precision "{precision}" is unknown. Known: auto, {", ".join(DTYPES)}.')
    if precision == "bf16" and not device_has_bf16(device):
        raise InvalidRequest(f"{device} cannot compute in bf16. Choose fp16 or fp32.")
    return DTYPES[precision]


def pick_vae_dtype(dtype: torch.dtype, device: torch.device, *, fp16_is_safe: bool) -> torch.dtype:
    """The number format of the VAE beside a U-Net in `dtype`.

    SDXL's VAE overflows fp16 (black pictures), so unless `fp16_is_safe` it gets bf16 where there is that, else fp32.
    """
    if dtype != torch.float16 or (fp16_is_safe and device.type != "cpu"):
        return dtype
    return torch.bfloat16 if device.type == "cuda" and device_has_bf16(device) else torch.float32


def device_has_bf16(device: torch.device) -> bool:
    """Whether it computes in bf16 at all, fast or not."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" or torch.backends.mps.is_macos_or_newer(14, 0)


@lru_cache
def cpu_has_bf16() -> bool:
    """Whether the CPU has bf16 instructions. Without them bf16 is emulated, slower than fp32."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # the last one is ARM's
