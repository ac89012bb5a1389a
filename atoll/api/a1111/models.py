"""What there is to choose from: checkpoints, VAEs, upscalers, LoRAs and so on, in A1111's words."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from fastapi import APIRouter

from atoll.api.a1111.scope import A1111Route, Doorway, From, Refused
from atoll.api.faults import nearest
from atoll.api.services import StudioServices

router = APIRouter(route_class=A1111Route)

OWN_VAE = ("", "automatic", "none")  # the checkpoint's own
LANCZOS, NEAREST = "Lanczos", "Nearest"
# A1111's name -> (how latents are interpolated, with the antialiasing of PyTorch).
LATENT_UPSCALERS = {
    "Latent": ("bilinear", False),
    "Latent (antialiased)": ("bilinear", True),
    "Latent (bicubic)": ("bicubic", False),
    "Latent (bicubic antialiased)": ("bicubic", True),
    "Latent (nearest)": ("nearest", False),
    "Latent (nearest-exact)": ("nearest-exact", False),
}


@dataclass(frozen=True)
class Checkpoint:
    """A model under A1111's names. name is the catalogue's; hash the short one that older A1111s show."""

    name: str
    path: Path
    hash: str
    inpainting: bool

    @property
    def title(self) -> str:
        return f"{self.name} [{self.hash}]"

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem if self.path.is_file() else self.name

    def is_called(self, name: str) -> bool:
        """By title, with or without its hash, by file name with or without folders and ending, or by hash."""
        file = PurePosixPath(self.name)
        spellings = {self.title, self.name, self.stem, file.name, str(self.path), self.hash, f"{self.name}.safetensors"}
        return name in spellings or name.rpartition(" [")[0] in spellings


def checkpoints(services: StudioServices) -> list[Checkpoint]:
    """Those that can be used, the default one first."""
    found = []
    for info in services.models("checkpoints"):
        if info.fault is None:
            path = services.catalogue.resolve("checkpoints", info.name)
            found.append(Checkpoint(info.name, path, _short_hash(path), info.inpainting))
    return found


def find_checkpoint(services: StudioServices, name: str | None) -> Checkpoint:
    """The one that a client means; None is the default one. Raises: Refused 404."""
    known = checkpoints(services)
    wanted = (name or services.settings.default_model).strip()
    found = next((checkpoint for checkpoint in known if checkpoint.is_called(wanted)), None)
    if found is None:
        hint = nearest(wanted, [checkpoint.name for checkpoint in known])
        folder = services.catalogue.folder("checkpoints")
        raise Refused(f'There is no model "{wanted[:120]}" here.{hint} New ones belong in {folder}.', 404)
    return found


def find_vae(services: StudioServices, name: str | None) -> str | None:
    """The catalogue's name of a VAE; None for the checkpoint's own. Raises: Refused 404."""
    wanted = (name or "").strip()
    if wanted.lower() in OWN_VAE:
        return None
    names = services.catalogue.names("vae")
    for known in names:
        file = PurePosixPath(known)
        if wanted in (known, file.name, file.stem, str(services.catalogue.resolve("vae", known))):
            return known
    raise Refused(
        f'There is no VAE "{wanted[:120]}" here.{nearest(wanted, names)} "Automatic" is the model\'s own.', 404
    )


def _short_hash(path: Path) -> str:
    weights = path if path.is_file() else next(iter(sorted((path / "unet").glob("*.safetensors"))), None)
    if weights is None:
        return "00000000"
    status = weights.stat()
    return _hash_of(weights, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4096)
def _hash_of(path: Path, _mtime_ns: int, size: int) -> str:
    """A1111's first short hash ("AutoV1"): of 64 KiB at 1 MiB, so it costs nothing; of a smaller file, all of it."""
    with path.open("rb") as file:
        if size > 0x110000:
            file.seek(0x100000)
        return hashlib.sha256(file.read(0x10000)).hexdigest()[:8]


@router.get("/sdapi/v1/sd-models")
def list_checkpoints(door: Doorway, caller: From) -> list[dict[str, Any]]:
    return [
        {
            "title": checkpoint.title,
            "model_name": checkpoint.stem,
            "hash": checkpoint.hash,
            "sha256": None,
            "filename": str(checkpoint.path),
            "config": None,
        }
        for checkpoint in checkpoints(door.services)
    ]


@router.get("/sdapi/v1/sd-vae")
@router.get("/sdapi/v1/sd-modules")
def list_vaes(door: Doorway, caller: From) -> list[dict[str, Any]]:
    models = door.services.catalogue.models("vae")
    return [{"model_name": PurePosixPath(model.name).name, "filename": str(model.path)} for model in models]


@router.get("/sdapi/v1/upscalers")
def list_upscalers(door: Doorway, caller: From) -> list[dict[str, Any]]:
    """`None` first: clients count on it."""
    names = ["None", LANCZOS, NEAREST, *upscale_models(door.services)]
    return [
        {"name": name, "model_name": None, "model_path": None, "model_url": None, "scale": 4.0 if name != "None" else 1}
        for name in names
    ]


@router.get("/sdapi/v1/latent-upscale-modes")
def list_latent_upscalers(caller: From) -> list[dict[str, str]]:
    return [{"name": name} for name in LATENT_UPSCALERS]


def upscale_models(services: StudioServices) -> list[str]:
    """Upscaling networks, where there are nodes that run them."""
    can = {"UpscaleModelLoader", "ImageUpscaleWithModel"} <= set(services.registry.specs)
    return services.catalogue.names("upscale_models") if can else []


@router.get("/sdapi/v1/loras")
def list_loras(door: Doorway, caller: From) -> list[dict[str, Any]]:
    """Only where they can be applied."""
    if door.services.registry.get("LoraLoader") is None:
        return []
    return [
        {
            "name": PurePosixPath(model.name).stem,
            "alias": PurePosixPath(model.name).stem,
            "path": str(model.path),
            "metadata": {},
        }
        for model in door.services.catalogue.models("loras")
    ]


@router.get("/sdapi/v1/embeddings")
def list_embeddings(door: Doorway, caller: From) -> dict[str, dict[str, Any]]:
    """All of them are skipped: prompts can't name them yet."""
    nothing = {"step": None, "sd_checkpoint": None, "sd_checkpoint_name": None, "shape": 0, "vectors": 0}
    names = door.services.catalogue.names("embeddings")
    return {"loaded": {}, "skipped": {PurePosixPath(name).stem: nothing for name in names}}


@router.get("/sdapi/v1/hypernetworks")
@router.get("/sdapi/v1/face-restorers")
@router.get("/sdapi/v1/realesrgan-models")
def list_nothing(caller: From) -> list[dict[str, Any]]:
    """There are none that could be used."""
    return []


@router.post("/sdapi/v1/refresh-checkpoints")
@router.post("/sdapi/v1/refresh-vae")
@router.post("/sdapi/v1/refresh-loras")
@router.post("/sdapi/v1/refresh-embeddings")
def refresh(caller: From) -> None:
    """The folders are read at each request: there is nothing to refresh."""


@router.post("/sdapi/v1/reload-checkpoint")
def reload_checkpoint(caller: From) -> dict[str, Any]:
    """A model is loaded when a job needs it."""
    return {}


@router.post("/sdapi/v1/unload-checkpoint")
def unload_checkpoint(door: Doorway, caller: From) -> dict[str, Any]:
    """Between two jobs the worker lets go of its models; jobs that need them load them again."""
    door.services.free_memory(models=True)
    return {}
