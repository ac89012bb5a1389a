"""Which models there are, and where: names for people, paths for the loaders.

Folders have the names that ComfyUI gives them, so that an existing collection works unchanged:

    HOME/models/checkpoints  vae  text_encoders (or clip)  diffusion_models (or unet)  loras  controlnet  ...

`Settings.model_dirs` adds more such roots. A name is the path below its folder with '/' between sub-folders, and for a
file it keeps the ending: `people/ink wash.safetensors`. A diffusers folder goes by its own name. The model that is
part of Atoll is called `lagoon` and comes first.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from atoll.errors import InvalidRequest, NotFound
from atoll.settings import Settings

BUILT_IN_MODEL = "lagoon"
BUILT_IN_MODELS_DIR = Path(__file__).parent

# Kind of model -> folders below a root. The first is where new files belong; the others are older names for it.
MODEL_FOLDERS: Mapping[str, tuple[str, ...]] = {
    "checkpoints": ("checkpoints", "diffusers"),
    "vae": ("vae",),
    "text_encoders": ("text_encoders", "clip"),
    "diffusion_models": ("diffusion_models", "unet"),
    "loras": ("loras",),
    "controlnet": ("controlnet", "t2i_adapter"),
    "embeddings": ("embeddings",),
    "upscale_models": ("upscale_models",),
    "clip_vision": ("clip_vision",),
    "hypernetworks": ("hypernetworks",),
    "vae_approx": ("vae_approx",),
    "style_models": ("style_models",),
    "gligen": ("gligen",),
    "configs": ("configs",),
}
WEIGHT_SUFFIXES = frozenset({".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".bin", ".pth", ".pkl"})
SUFFIXES_OF_KIND: Mapping[str, frozenset[str]] = {"configs": frozenset({".yaml", ".yml"})}


@dataclass(frozen=True)
class ModelFile:
    """A model that a workflow can name. `path` is a file, or the folder of a model in diffusers layout."""

    kind: str
    name: str
    path: Path

    @property
    def size_bytes(self) -> int:
        """Of the file, or of everything in the folder."""
        if self.path.is_file():
            return self.path.stat().st_size
        return sum(part.stat().st_size for part in self.path.rglob("*") if part.is_file())


class ModelCatalogue:
    """The models below some roots. Reads the folders at each call: a file that was just copied in is there."""

    def __init__(self, roots: Sequence[Path], *, built_in: Path = BUILT_IN_MODELS_DIR) -> None:
        """
        Args:
            roots: folders laid out like HOME/models, the first one where new models belong. They need not exist.
            built_in: the folder that holds `lagoon`.
        """
        self.roots = tuple(Path(root) for root in roots)
        self._built_in = built_in / BUILT_IN_MODEL

    @classmethod
    def from_settings(cls, settings: Settings) -> ModelCatalogue:
        return cls((settings.models_dir, *settings.model_dirs))

    def folder(self, kind: str) -> Path:
        """Where a new model of this kind belongs."""
        return self.roots[0] / _folders(kind)[0]

    def models(self, kind: str) -> list[ModelFile]:
        """All models of a kind, the built-in one first, then by name. Of two with one name, the first root's."""
        found: dict[str, ModelFile] = {}
        for folder in self._existing_folders(kind):
            for path in _walk_models(folder, SUFFIXES_OF_KIND.get(kind, WEIGHT_SUFFIXES)):
                name = path.relative_to(folder).as_posix()
                found.setdefault(name, ModelFile(kind, name, path))
        listed = [found[name] for name in sorted(found, key=lambda name: (name.casefold(), name))]
        if kind != "checkpoints":
            return listed
        return [
            ModelFile(kind, BUILT_IN_MODEL, self._built_in),
            *(model for model in listed if model.name != BUILT_IN_MODEL),
        ]

    def names(self, kind: str) -> list[str]:
        return [model.name for model in self.models(kind)]

    def resolve(self, kind: str, name: str) -> Path:
        """The file or diffusers folder that `name` means. The ending may be left out where that is clear.

        Raises:
            InvalidRequest: an unknown kind, or a name that would lead out of the folder of its kind.
            NotFound: no such model; the message lists near names and the folder to put the file in.
        """
        name = _checked_name(name)
        if kind == "checkpoints" and name == BUILT_IN_MODEL:
            return self._built_in
        for folder in self._existing_folders(kind):
            path = folder / name
            if _is_model(path, SUFFIXES_OF_KIND.get(kind, WEIGHT_SUFFIXES)):
                return path
        models = self.models(kind)
        without_ending = [model for model in models if _without_suffix(model.name) == name]
        if len(without_ending) == 1:
            return without_ending[0].path
        raise NotFound(self._not_found(kind, name, [model.name for model in without_ending or models]))

    def _not_found(self, kind: str, name: str, names: list[str]) -> str:
        stem_of = {other: _without_suffix(other).casefold() for other in names}  # common endings are no likeness
        asked = _without_suffix(name).casefold()
        stems = difflib.get_close_matches(asked, stem_of.values(), n=3, cutoff=0.6)
        near = [other for other, stem in stem_of.items() if stem in stems or (asked and asked in stem)][:5]
        if near:
            hint = "Did you mean " + " or ".join(f'"{other}"' for other in near) + "?"
        elif names:
            hint = "There are: " + ", ".join(names[:10]) + (", ..." if len(names) > 10 else "") + "."
        else:
            hint = "There are none yet."
        return f'There is no model "{name}" among the {kind}. {hint} New ones belong in {self.folder(kind)}.'

    def _existing_folders(self, kind: str) -> Iterator[Path]:
        for root in self.roots:
            for folder in _folders(kind):
                if (root / folder).is_dir():
                    yield root / folder


def is_diffusers_folder(path: Path) -> bool:
    """Whether this is a whole model (model_index.json) or one network (config.json) in diffusers layout."""
    return (path / "model_index.json").is_file() or (path / "config.json").is_file()


def _folders(kind: str) -> tuple[str, ...]:
    if kind not in MODEL_FOLDERS:
        raise InvalidRequest(f'There is no kind of model "{kind}". Known: {", ".join(MODEL_FOLDERS)}.')
    return MODEL_FOLDERS[kind]


def _checked_name(name: str) -> str:
    # Workflows made on Windows carry '\' between folders.
    parts = PurePosixPath(name.replace("\\", "/")).parts
    is_drive = bool(parts) and parts[0][1:2] == ":"  # of Windows: C:\\...
    if not parts or parts[0] == "/" or is_drive or ".." in parts or "\0" in name:
        raise InvalidRequest(
            f"{name!r} is not a name of a model. A name is a path below the models' folder, "
            "such as people/ink.safetensors."
        )
    return "/".join(parts)


def _without_suffix(name: str) -> str:
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a name, not a path of this system
    return stem if suffix.lower() in WEIGHT_SUFFIXES else name


def _is_model(path: Path, suffixes: frozenset[str]) -> bool:
    # os.path says False to a name that no file system can hold; Path would raise.
    if os.path.isdir(path):  # noqa: PTH112
        return is_diffusers_folder(path)
    return path.suffix.lower() in suffixes and os.path.isfile(path)  # noqa: PTH113


def _walk_models(folder: Path, suffixes: frozenset[str]) -> Iterator[Path]:
    """Model files and diffusers folders below `folder`, symlinks followed."""
    seen: set[str] = set()
    for current, subfolders, files in os.walk(folder, followlinks=True):
        here = Path(current)
        real = os.path.realpath(current)
        if real in seen:  # a symlink that leads back up
            subfolders.clear()
            continue
        seen.add(real)
        if here != folder and is_diffusers_folder(here):
            subfolders.clear()
            yield here
            continue
        subfolders[:] = sorted(name for name in subfolders if _is_shown(name))
        yield from (here / name for name in files if _is_shown(name) and Path(name).suffix.lower() in suffixes)


def _is_shown(name: str) -> bool:
    """Hidden entries are not models; names that are not UTF-8 could not be written into a workflow."""
    return not name.startswith(".") and name.isprintable()
