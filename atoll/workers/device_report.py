"""What a worker tells the server of its device, since the server never loads torch."""

from __future__ import annotations

import sys
from typing import Any

import psutil


def device_report(device: str) -> dict[str, Any] | None:
    """Name, type, index and memory in bytes, under the names of ComfyUI's /system_stats; None before torch is loaded.

    device: as in the settings ("auto", "cuda:1", ...).
    """
    if "torch" not in sys.modules:
        return None
    import torch

    from atoll.diffusion.precision import pick_device

    picked = pick_device(device)
    if picked.type == "cuda":
        free, total = torch.cuda.mem_get_info(picked)
        reserved = torch.cuda.memory_reserved(picked)
        unused = reserved - torch.cuda.memory_allocated(picked)
        index = picked.index or 0
        name = f"cuda:{index} {torch.cuda.get_device_name(picked)}"
    else:  # CPU and MPS share the machine's memory
        memory = psutil.virtual_memory()
        free, total, reserved, unused = memory.available, memory.total, memory.total, memory.available
        index, name = None, picked.type
    return {
        "name": name,
        "type": picked.type,
        "index": index,
        "vram_total": total,
        "vram_free": free + (unused if picked.type == "cuda" else 0),
        "torch_vram_total": reserved,
        "torch_vram_free": unused,
    }
