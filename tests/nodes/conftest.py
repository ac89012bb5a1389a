"""The tiny model under every name that nodes may use, and a place for inputs."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from node_context import RecordingContext
from numpy.typing import NDArray
from PIL import Image

from atoll.artifacts.input_files import InputFiles
from atoll.models.catalogue import ModelCatalogue
from atoll.nodes.model_shelf import ModelShelf


@pytest.fixture
def catalogue(tiny_checkpoint: Path, tmp_path: Path) -> ModelCatalogue:
    """The tiny model under the built-in one's name, and under its parts' kinds."""
    built_in = tmp_path / "built in"
    built_in.mkdir()
    (built_in / "lagoon").symlink_to(tiny_checkpoint)
    for kind, part in (("vae", "vae"), ("text_encoders", "text_encoder"), ("diffusion_models", "unet")):
        (tmp_path / "models" / kind).mkdir(parents=True)
        (tmp_path / "models" / kind / "tiny").symlink_to(tiny_checkpoint / part)
    return ModelCatalogue([tmp_path / "models"], built_in=built_in)


@pytest.fixture
def inputs(tmp_path: Path) -> InputFiles:
    return InputFiles(tmp_path / "inputs")


@pytest.fixture
def context(catalogue: ModelCatalogue, inputs: InputFiles) -> RecordingContext:
    return RecordingContext(ModelShelf(catalogue, device="cpu", precision="fp32"), inputs)


@pytest.fixture
def upload(inputs: InputFiles) -> Callable[..., str]:
    """Keep an array of pixels, or a Pillow picture, as an input; gives its name."""

    def save(pixels: NDArray[np.uint8] | Image.Image, name: str = "picture.png") -> str:
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        file = io.BytesIO()
        image.save(file, "PNG")
        return inputs.save_upload(name, file.getvalue())

    return save
