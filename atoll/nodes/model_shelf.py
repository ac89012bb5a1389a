"""Loaded models, kept warm between nodes and jobs until their room is needed."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil

from atoll.errors import NotFound
from atoll.models.catalogue import ModelCatalogue
from atoll.settings import Settings

if TYPE_CHECKING:
    from torch import nn

    from atoll.diffusion.checkpoint import Checkpoint
    from atoll.diffusion.model import Model
    from atoll.diffusion.text import TextEncoder
    from atoll.diffusion.vae import Vae

Part = TypeVar("Part")
DEVICE_SHARE = 0.5  # of the device's memory for warm models, where the settings do not say


@dataclass(frozen=True)
class _Warm:
    identity: str
    part: Any
    size_bytes: int


class ModelShelf:
    """Parts of checkpoints by name. The least recently used leave when `max_bytes` is passed.

    A file that has changed since it was loaded is loaded anew. Used from one thread.

    Args:
        device, precision: as for `load_checkpoint`.
        max_bytes: for all parts together; default is half of the device's memory. A single bigger one is still loaded.
    """

    def __init__(
        self, catalogue: ModelCatalogue, *, device: str = "auto", precision: str = "auto", max_bytes: int | None = None
    ) -> None:
        self._catalogue = catalogue
        self._device = device
        self._precision = precision
        self._max_bytes = max_bytes
        self._warm: OrderedDict[tuple[str, str, str], _Warm] = OrderedDict()  # (kind, name, device) -> part

    @classmethod
    def from_settings(cls, settings: Settings) -> ModelShelf:
        limit = None if settings.model_cache_mib is None else settings.model_cache_mib * 2**20
        catalogue = ModelCatalogue.from_settings(settings)
        return cls(catalogue, device=settings.device, precision=settings.precision, max_bytes=limit)

    def checkpoint(self, name: str) -> Checkpoint:
        """Raises: NotFound, NotACheckpoint."""
        from atoll.diffusion.checkpoint import load_checkpoint  # loads torch; the worker's start need not wait for it

        return self._get("checkpoints", name, self._device, load_checkpoint)

    def vae(self, name: str) -> Vae:
        """Raises: NotFound, NotACheckpoint."""
        from atoll.diffusion.checkpoint import load_vae  # loads torch

        return self._get("vae", name, self._device, load_vae)

    def text_encoder(self, name: str, *, device: str | None = None) -> TextEncoder:
        """`device` in place of the shelf's own. Raises: NotFound, NotACheckpoint."""
        from atoll.diffusion.checkpoint import load_text_encoder  # loads torch

        return self._get("text_encoders", name, device or self._device, load_text_encoder)

    def unet(self, name: str) -> Model:
        """Raises: NotFound, NotACheckpoint."""
        from atoll.diffusion.checkpoint import load_unet  # loads torch

        return self._get("diffusion_models", name, self._device, load_unet)

    def fingerprint(self, kind: str, name: str) -> str:
        """What changes when the model does: which files it has, their sizes and times. Raises: NotFound."""
        path = self._catalogue.resolve(kind, name)
        marks = []
        for file in _files_of(path):
            try:
                status = os.stat(file)  # noqa: PTH116 - asked for every picture: a Path for each file costs 1 ms in all
            except FileNotFoundError as error:
                raise NotFound(f"The model {name} is not there, or is being replaced: {file} is missing.") from error
            marks.append(f"{file}:{status.st_size}:{status.st_mtime_ns}")
        return "\n".join([*marks, self._device, self._precision])

    def warm_names(self) -> list[str]:
        """What is loaded now, the least recently used first."""
        return [name for _, name, _ in self._warm]

    def clear(self) -> None:
        """Let go of all; what is wanted next is loaded again."""
        self._warm.clear()

    def _get(self, kind: str, name: str, device: str, load: Callable[..., Part]) -> Part:
        key = (kind, name, device)
        identity = self.fingerprint(kind, name)
        warm = self._warm.pop(key, None)
        if warm is None or warm.identity != identity:
            path = self._catalogue.resolve(kind, name)
            self._make_room(_size_on_disk(path), device)
            part = load(path, device=device, precision=self._precision)
            warm = _Warm(identity, part, sum(map(_size_in_memory, _networks(part))))
        self._warm[key] = warm
        self._make_room(0, device)
        return warm.part

    def _make_room(self, size_bytes: int, device: str) -> None:
        """Let go of the least recently used until `size_bytes` more fit; the last one stays where nothing is added."""
        limit = self._max_bytes if self._max_bytes is not None else _default_limit(device)
        kept = 0 if size_bytes else 1
        freed = False
        while len(self._warm) > kept and sum(warm.size_bytes for warm in self._warm.values()) + size_bytes > limit:
            self._warm.popitem(last=False)
            freed = True
        if freed:
            import torch  # loaded by now, as something was warm

            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _files_of(path: Path) -> list[str]:
    """Every file of a model folder; a model file and the .yaml beside it that says what its U-Net predicts."""
    if path.is_dir():
        return sorted(os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)  # noqa: PTH118
    return [str(path), *(str(yaml) for yaml in map(path.with_suffix, (".yaml", ".yml")) if yaml.is_file())]


def _default_limit(device: str) -> int:
    from atoll.diffusion.precision import pick_device  # loads torch

    picked = pick_device(device)
    if picked.type == "cuda":
        import torch  # not at the top: this module is read where torch must not be

        return int(torch.cuda.get_device_properties(picked).total_memory * DEVICE_SHARE)
    return int(psutil.virtual_memory().total * DEVICE_SHARE)


def _networks(part: Any) -> list[nn.Module]:
    """The networks of a checkpoint or of one of its parts."""
    if hasattr(part, "text_encoder"):
        return [network for inner in (part.model, part.text_encoder, part.vae) for network in _networks(inner)]
    if hasattr(part, "encoders"):
        return [encoder.network for encoder in part.encoders]
    return [part.unet if hasattr(part, "unet") else part.network]


def _size_in_memory(network: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in [*network.parameters(), *network.buffers()])


def _size_on_disk(path: Path) -> int:
    return (
        sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else path.stat().st_size
    )
