"""Files of weights: the tensors inside by name, read one after the other, and put into a network as they come.

A network is first built without memory (torch's meta device); then each tensor is read, cast and given to it. So a
model of 4.3 GB in fp32 that runs in bf16 peaks at little more than the 2.1 GB that it keeps.
"""

from __future__ import annotations

import json
import logging
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from atoll.errors import NotACheckpoint
from atoll.models.identify import Identity, identify, identify_tensors, read_safetensors_header, refusal

log = logging.getLogger(__name__)

# The library maps the file, and every page that was touched counts as this process's memory until the file is closed.
_REOPEN_AFTER_BYTES = 256 * 2**20

Network = TypeVar("Network", bound=nn.Module)


class Weights:
    """The tensors of one model file, or of the shards of one: safetensors, or a pickle of tensors alone.

    shapes: tensor name -> shape. metadata: the free-form words in a safetensors header.
    """

    def __init__(self, path: Path) -> None:
        """Open a file (or an index of shards, *.index.json) and read what is in it, but no tensor yet.

        Raises: NotACheckpoint for a file that is damaged, no model, or a pickle that holds more than tensors.
        """
        self.path = path
        self.metadata: dict[str, str] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._file_of: dict[str, Path] = {}
        self._pickled: dict[str, Tensor] | None = None
        self.identity: Identity
        if path.name.endswith(".index.json"):
            for shard in _shards(path):
                self._read_header(shard)
            self.identity = identify_tensors(self.shapes)
            return
        self.identity = identify(path)
        if self.identity.kind in {"damaged", "not_weights", "unreadable"}:
            raise refusal(path, "a model that can be loaded", self.identity)
        if self.identity.kind == "pickle":
            self._pickled = _load_pickle(path)
            self.shapes = {name: tuple(tensor.shape) for name, tensor in self._pickled.items()}
            self.identity = identify_tensors(self.shapes)
        else:
            self._read_header(path)

    def tensors(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """The named tensors, in the order of the file. One may lie in the file's mapping: copy it to keep it."""
        wanted = set(names)
        if self._pickled is not None:
            yield from ((name, tensor) for name, tensor in self._pickled.items() if name in wanted)
            return
        for file in dict.fromkeys(self._file_of.values()):
            here = [name for name, place in self._file_of.items() if place == file and name in wanted]
            for batch in _batches(here, self.shapes):
                try:
                    with safe_open(file, framework="pt") as opened:
                        for name in batch:
                            yield name, opened.get_tensor(name)
                except SafetensorError as error:
                    raise NotACheckpoint(f"{file.name} cannot be read: {error}. Download or copy it again.") from error

    def _read_header(self, file: Path) -> None:
        header = read_safetensors_header(file)
        self.metadata |= header.metadata
        self.shapes |= header.shapes
        self._file_of |= dict.fromkeys(header.shapes, file)


@dataclass(frozen=True)
class Piece:
    """Where a network's tensor comes from: the name in the file, and what is to be done to it, if anything."""

    source: str
    take: Callable[[Tensor], Tensor] | None = None


# Name in the network -> where it comes from.
Plan = Mapping[str, Piece]


def load_weights(
    network: Network, weights: Weights, plan: Plan, *, device: torch.device, dtype: torch.dtype, part: str
) -> Network:
    """Give a network that was built on the meta device its tensors, cast to `dtype` and on `device`, ready for use.

    Args:
        part: what the network is, for messages: "U-Net".
    Raises: NotACheckpoint if tensors are missing or have other shapes than the network.
    """
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in plan or plan[name].source not in weights.shapes]
    if missing:
        raise NotACheckpoint(
            f"{weights.path.name} lacks {len(missing)} of the {len(wanted)} tensors of its {part}, {missing[0]} for "
            "one. It is incomplete, or a variant that Atoll does not know."
        )
    targets: dict[str, list[str]] = {}
    for name in wanted:
        targets.setdefault(plan[name].source, []).append(name)
    state: dict[str, Tensor] = {}
    for source, tensor in weights.tensors(targets):
        for name in targets[source]:
            take = plan[name].take
            piece = tensor if take is None else take(tensor)
            if piece.shape != wanted[name].shape:
                raise NotACheckpoint(
                    f"{weights.path.name}: {source} has shape {list(piece.shape)} where the {part} wants "
                    f"{list(wanted[name].shape)}. The file is a variant that Atoll does not know."
                )
            # A copy in any case: the file may be replaced while this network is in use.
            state[name] = piece.to(device=device, dtype=dtype, copy=True).contiguous()
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def build_on_meta(build: Callable[[], Network]) -> Network:
    """A network whose tensors have shapes but no memory and were never filled with random numbers."""
    with torch.device("meta"):
        return build()


def find_weights(folder: Path, stem: str) -> Path:
    """The file of weights in a diffusers folder: `stem`.safetensors, its shards, its fp16 variant, or a pickle.

    Raises: NotACheckpoint if there is none.
    """
    names = [f"{stem}{middle}" for middle in (".safetensors", ".safetensors.index.json", ".fp16.safetensors")]
    names += [f"{stem}.fp16.safetensors.index.json", f"{stem}.safetensors.index.fp16.json"]
    pickle_stem = "pytorch_model" if stem == "model" else stem
    names += [f"{pickle_stem}.bin", f"{pickle_stem}.fp16.bin"]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise NotACheckpoint(f"{folder} holds no weights: {names[0]} is missing. Copy or download the folder again.")


def read_json(path: Path) -> dict[str, Any]:
    """A configuration in a diffusers folder. Raises: NotACheckpoint if it is missing or no JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotACheckpoint(f"{path} is missing. Copy or download the folder again.") from error
    except (OSError, ValueError) as error:
        raise NotACheckpoint(f"{path} cannot be read: {error}. Copy or download the folder again.") from error
    if not isinstance(value, dict):
        raise NotACheckpoint(f"{path} is not a configuration. Copy or download the folder again.")
    return value


def _shards(index: Path) -> list[Path]:
    files = read_json(index).get("weight_map", {})
    shards = [index.parent / name for name in dict.fromkeys(files.values())]
    for shard in shards:
        if shard.parent != index.parent or not shard.is_file():
            raise NotACheckpoint(
                f"{index} names {shard.name}, which is not beside it. Copy or download the folder again."
            )
    return shards


def _batches(names: list[str], shapes: Mapping[str, tuple[int, ...]]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for name in names:
        batch.append(name)
        size += 4 * torch.Size(shapes[name]).numel()  # bytes at most, of the usual formats
        if size >= _REOPEN_AFTER_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _load_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors of a .ckpt, .pt or .bin, by torch's restricted unpickler: nothing in the file is ever run."""
    log.warning("%s is a Python pickle. Opening it with the restricted loader, which runs none of it.", path.name)
    try:
        value = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise NotACheckpoint(
            f"{path.name} is a Python pickle that holds more than tensors"
            + (f' (it asks for "{found.group(1)}")' if found else "")
            + ". Such a file can run programs, so Atoll opens it no further; nothing of it was run. "
            "Get the model as .safetensors."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        raise NotACheckpoint(f"{path.name} is a damaged pickle. Download or copy it again.") from error
    while isinstance(value, dict) and isinstance(value.get("state_dict"), dict):
        value = value["state_dict"]
    tensors = (
        {str(name): item for name, item in value.items() if isinstance(item, Tensor)} if isinstance(value, dict) else {}
    )
    if not tensors:
        raise NotACheckpoint(f"{path.name} is a pickle without named tensors, so not a model that Atoll knows.")
    return tensors
