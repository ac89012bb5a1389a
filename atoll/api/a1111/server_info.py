"""What the server says of itself: memory, flags; and the making of networks, which has its own place in Atoll."""

from __future__ import annotations

from typing import Any

import psutil
from fastapi import APIRouter

from atoll.api.a1111.scope import A1111Route, Doorway, From
from atoll.errors import NotPossibleYet

router = APIRouter(route_class=A1111Route)


@router.get("/sdapi/v1/memory")
def memory(door: Doorway, caller: From) -> dict[str, Any]:
    """ram: of the machine, in bytes. cuda: of the worker's device."""
    ram = psutil.virtual_memory()
    return {
        "ram": {"free": ram.available, "used": ram.total - ram.available, "total": ram.total},
        "cuda": _cuda(door.services.device()),
    }


def _cuda(device: dict[str, Any] | None) -> dict[str, Any]:
    if device is None or device.get("type") != "cuda":
        return {"error": "unavailable"}
    total, free = device.get("vram_total", 0), device.get("vram_free", 0)
    used = {"current": total - free, "peak": total - free}
    return {
        "system": {"free": free, "used": total - free, "total": total},
        "active": used,
        "allocated": used,
        "reserved": used,
        "inactive": {"current": 0, "peak": 0},
        "events": {"retries": 0, "oom": 0},
    }


@router.get("/sdapi/v1/cmd-flags")
def command_flags(door: Doorway, caller: From) -> dict[str, Any]:
    """Those that mean something here; no secrets."""
    settings = door.services.settings
    return {
        "api": True,
        "nowebui": False,
        "listen": False,
        "share": False,
        "port": settings.port,
        "server_name": settings.host,
        "data_dir": str(settings.home),
        "models_dir": str(settings.models_dir),
        "ckpt_dir": str(door.services.catalogue.folder("checkpoints")),
        "vae_dir": str(door.services.catalogue.folder("vae")),
        "lora_dir": str(door.services.catalogue.folder("loras")),
        "api_server_stop": False,
        "use_cpu": ["all"] if settings.device == "cpu" else [],
        "precision": settings.precision,
    }


@router.post("/sdapi/v1/create/embedding")
@router.post("/sdapi/v1/create/hypernetwork")
@router.post("/sdapi/v1/train/embedding")
@router.post("/sdapi/v1/train/hypernetwork")
def train(caller: From) -> None:
    raise NotPossibleYet("Embeddings and hypernetworks can't be made over this API. Atoll trains with `atoll train`.")
