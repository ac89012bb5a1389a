"""Names for people, paths for loaders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from atoll.errors import InvalidRequest, NotFound
from atoll.models.catalogue import BUILT_IN_MODEL, ModelCatalogue
from atoll.settings import Settings


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"weights")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def catalogue(root: Path, tmp_path: Path) -> ModelCatalogue:
    return ModelCatalogue([root, tmp_path / "shared disk"])


def test_names_are_paths_below_the_folder_of_their_kind(root: Path, catalogue: ModelCatalogue):
    put(root / "checkpoints", "b.safetensors", "A.ckpt", "people/ink wash.safetensors", "notes.txt", ".hidden.ckpt")
    put(
        root / "checkpoints",
        "水墨 画/模型 一.safetensors",
        "photon/model_index.json",
        "photon/unet/weights.safetensors",
    )
    assert catalogue.names("checkpoints") == [
        BUILT_IN_MODEL,
        "A.ckpt",
        "b.safetensors",
        "people/ink wash.safetensors",
        "photon",
        "水墨 画/模型 一.safetensors",
    ]
    for name in catalogue.names("checkpoints")[1:]:
        assert catalogue.resolve("checkpoints", name) == root / "checkpoints" / name


def test_the_older_folder_names_of_comfyui_count_too(root: Path, catalogue: ModelCatalogue):
    put(root, "clip/l.safetensors", "text_encoders/g.safetensors", "unet/u.safetensors", "diffusers/x/model_index.json")
    assert catalogue.names("text_encoders") == ["g.safetensors", "l.safetensors"]
    assert catalogue.names("diffusion_models") == ["u.safetensors"]
    assert catalogue.names("checkpoints") == [BUILT_IN_MODEL, "x"]
    assert catalogue.resolve("text_encoders", "l.safetensors") == root / "clip/l.safetensors"


def test_further_roots_add_models_and_the_first_root_wins(tmp_path: Path):
    put(tmp_path / "home/models/vae", "same.safetensors")
    put(tmp_path / "disk/vae", "same.safetensors", "more.safetensors")
    catalogue = ModelCatalogue.from_settings(Settings(home=tmp_path / "home", model_dirs=(tmp_path / "disk",)))
    assert catalogue.names("vae") == ["more.safetensors", "same.safetensors"]
    assert catalogue.resolve("vae", "same.safetensors") == tmp_path / "home/models/vae/same.safetensors"
    assert catalogue.resolve("vae", "more.safetensors") == tmp_path / "disk/vae/more.safetensors"
    assert catalogue.folder("vae") == tmp_path / "home/models/vae"


def test_with_no_folder_at_all_there_is_the_built_in_model(catalogue: ModelCatalogue):
    assert catalogue.names("checkpoints") == [BUILT_IN_MODEL]
    assert catalogue.names("loras") == []
    assert catalogue.resolve("checkpoints", BUILT_IN_MODEL).name == BUILT_IN_MODEL


def test_a_new_file_is_there_at_once(root: Path, catalogue: ModelCatalogue):
    assert catalogue.names("loras") == []
    put(root / "loras", "new.safetensors")
    assert [(model.name, model.size_bytes) for model in catalogue.models("loras")] == [("new.safetensors", 7)]


def test_the_ending_may_be_left_out_where_that_is_clear(root: Path, catalogue: ModelCatalogue):
    put(root / "checkpoints", "sd15.safetensors", "two.safetensors", "two.ckpt", "v1.5.safetensors")
    assert catalogue.resolve("checkpoints", "sd15") == root / "checkpoints/sd15.safetensors"
    assert catalogue.resolve("checkpoints", "v1.5") == root / "checkpoints/v1.5.safetensors"
    with pytest.raises(NotFound, match=r'"two\.ckpt" or "two\.safetensors"'):
        catalogue.resolve("checkpoints", "two")


def test_names_written_on_windows_are_understood(root: Path, catalogue: ModelCatalogue):
    put(root / "loras", "people/ink.safetensors")
    assert catalogue.resolve("loras", r"people\ink.safetensors") == root / "loras/people/ink.safetensors"


def test_a_missing_model_lists_near_names_and_where_new_ones_belong(root: Path, catalogue: ModelCatalogue):
    put(root / "checkpoints", "dreamshaper_8.safetensors", "photon_v1.safetensors")
    with pytest.raises(NotFound) as caught:
        catalogue.resolve("checkpoints", "dreamshaper8.safetensors")
    assert 'Did you mean "dreamshaper_8.safetensors"?' in str(caught.value)
    assert str(root / "checkpoints") in str(caught.value)
    with pytest.raises(NotFound, match='Did you mean "photon_v1'):
        catalogue.resolve("checkpoints", "photon")
    with pytest.raises(NotFound, match="There are none yet"):
        catalogue.resolve("vae", "x.safetensors")


@pytest.mark.parametrize(
    "name",
    ["../secret.safetensors", "a/../../secret.safetensors", "/etc/passwd", r"..\secret.safetensors", "C:\\x", "", "\0"],
)
def test_a_name_cannot_lead_out_of_its_folder(name: str, root: Path, catalogue: ModelCatalogue):
    put(root, "secret.safetensors", "loras/x.safetensors")
    with pytest.raises(InvalidRequest, match="is not a name of a model"):
        catalogue.resolve("loras", name)


@pytest.mark.parametrize("name", ["x" * 5000, "notes.txt", "people", "?*<>|"])
def test_what_is_no_model_is_not_found(name: str, root: Path, catalogue: ModelCatalogue):
    put(root / "loras", "notes.txt", "people/x.safetensors")
    with pytest.raises(NotFound):
        catalogue.resolve("loras", name)


def test_links_are_followed_but_not_in_circles(root: Path, tmp_path: Path, catalogue: ModelCatalogue):
    put(tmp_path / "elsewhere", "linked.safetensors")
    (root / "loras").mkdir(parents=True)
    (root / "loras/disk").symlink_to(tmp_path / "elsewhere")
    (root / "loras/again").symlink_to(root / "loras")
    assert catalogue.names("loras") == ["disk/linked.safetensors"]


def test_an_unknown_kind_is_refused_in_words(catalogue: ModelCatalogue):
    with pytest.raises(InvalidRequest, match=r'no kind of model "lora"\. Known: checkpoints, '):
        catalogue.names("lora")


def test_the_catalogue_needs_no_torch():
    """The API server lists models, and must start in a second and stay small."""
    modules = "atoll.models.catalogue, atoll.models.identify, atoll.diffusion.prompt"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip() == "False"
