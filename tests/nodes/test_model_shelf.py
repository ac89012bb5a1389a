"""Loaded models: kept warm, let go when room is needed, loaded anew when their files change."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from atoll.errors import NotACheckpoint, NotFound
from atoll.models.catalogue import ModelCatalogue
from atoll.nodes.model_shelf import ModelShelf
from atoll.settings import Settings


@pytest.fixture
def models(tiny_checkpoint: Path, tmp_path: Path) -> ModelCatalogue:
    """Three copies of the tiny model, and a text file that calls itself one."""
    for name in ("one", "two", "three"):
        shutil.copytree(tiny_checkpoint, tmp_path / "models/checkpoints" / name)
    (tmp_path / "models/checkpoints/notes.safetensors").write_text("I am a text.")
    return ModelCatalogue([tmp_path / "models"])


def new_shelf(models: ModelCatalogue, **options: int) -> ModelShelf:
    return ModelShelf(models, device="cpu", precision="fp32", **options)


def test_a_model_is_loaded_once(models: ModelCatalogue) -> None:
    shelf = new_shelf(models)
    assert shelf.checkpoint("one") is shelf.checkpoint("one")
    assert shelf.checkpoint("two") is not shelf.checkpoint("one")
    assert shelf.warm_names() == ["two", "one"]


def test_the_least_recently_used_leaves_when_room_is_needed(models: ModelCatalogue) -> None:
    on_disk = sum(file.stat().st_size for file in models.resolve("checkpoints", "one").rglob("*.safetensors"))
    shelf = new_shelf(models, max_bytes=int(on_disk * 2.7))
    for name in ("one", "two", "one", "three"):
        shelf.checkpoint(name)
    assert shelf.warm_names() == ["one", "three"]


def test_a_model_bigger_than_all_room_still_loads_and_stays_until_the_next(models: ModelCatalogue) -> None:
    shelf = new_shelf(models, max_bytes=1)
    first = shelf.checkpoint("one")
    assert shelf.checkpoint("one") is first
    shelf.checkpoint("two")
    assert shelf.warm_names() == ["two"]


def test_a_changed_file_is_loaded_anew(models: ModelCatalogue) -> None:
    shelf = new_shelf(models)
    first, before = shelf.checkpoint("one"), shelf.fingerprint("checkpoints", "one")
    weights = next(models.resolve("checkpoints", "one").rglob("unet/*.safetensors"))
    os.utime(weights, (1, 1))
    assert shelf.fingerprint("checkpoints", "one") != before
    assert shelf.checkpoint("one") is not first
    assert shelf.warm_names() == ["one"]


def test_a_configuration_put_beside_a_file_counts_as_a_change(tmp_path: Path) -> None:
    file = tmp_path / "diffusion_models" / "unet.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"weights")
    shelf = new_shelf(ModelCatalogue([tmp_path]))
    before = shelf.fingerprint("diffusion_models", "unet.safetensors")
    file.with_suffix(".yaml").write_text("parameterization: v")
    assert shelf.fingerprint("diffusion_models", "unet.safetensors") != before


def test_what_cannot_be_loaded_leaves_the_shelf_as_it_was(models: ModelCatalogue) -> None:
    shelf = new_shelf(models)
    shelf.checkpoint("one")
    with pytest.raises(NotACheckpoint):
        shelf.checkpoint("notes.safetensors")
    with pytest.raises(NotFound, match="four"):
        shelf.checkpoint("four")
    assert shelf.warm_names() == ["one"]


def test_parts_load_by_themselves(models: ModelCatalogue, tiny_checkpoint: Path, tmp_path: Path) -> None:
    for kind, part in (("vae", "vae"), ("text_encoders", "text_encoder"), ("diffusion_models", "unet")):
        (tmp_path / "models" / kind).mkdir()
        (tmp_path / "models" / kind / "tiny").symlink_to(tiny_checkpoint / part)
    shelf = new_shelf(models)
    assert shelf.vae("tiny").latent_channels == 4
    assert shelf.unet("tiny").in_channels == 4
    assert shelf.text_encoder("tiny", device="cpu").clip_skip is None
    assert shelf.warm_names() == ["tiny"] * 3


def test_settings_say_where_and_on_what(models: ModelCatalogue, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, device="cpu", precision="fp32", model_cache_mib=1)
    shelf = ModelShelf.from_settings(settings)
    assert shelf.fingerprint("checkpoints", "one") == new_shelf(models).fingerprint("checkpoints", "one")
    other = ModelShelf.from_settings(settings.model_copy(update={"precision": "bf16"}))
    assert shelf.fingerprint("checkpoints", "one") != other.fingerprint("checkpoints", "one")
