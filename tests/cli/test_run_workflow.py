"""`atoll run`: workflows in both forms, and the pictures that lie beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from editor_files import as_editor_file
from PIL import Image
from typer.testing import CliRunner, Result

from atoll.api.services import StudioServices
from atoll.artifacts.png import read_png_text
from atoll.cli.main import app
from atoll.cli.pictures import adopt_pictures
from atoll.errors import InvalidRequest
from atoll.graph.fault import InvalidGraph
from atoll.nodes.registry import core_registry
from atoll.settings import Settings


def save_picture(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def inverting(name: str) -> dict[str, Any]:
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
    }


def atoll_run(home: Path, file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["run", str(file), *arguments, "--home", str(home)])


@pytest.fixture
def services(tmp_path: Path) -> StudioServices:
    return StudioServices(Settings(home=tmp_path / "home"))


def adopted(services: StudioServices, name: str, folder: Path) -> str:
    graph = adopt_pictures(services, inverting(name), folder)
    return str(graph["1"]["inputs"]["image"])


def test_a_picture_beside_the_workflow_becomes_an_input(services: StudioServices, tmp_path: Path) -> None:
    picture = save_picture(tmp_path / "work" / "一只 cat.png")
    assert adopted(services, "一只 cat.png", tmp_path / "work") == "一只 cat.png"
    assert services.input_path("一只 cat.png").read_bytes() == picture.read_bytes()
    inner = save_picture(tmp_path / "work" / "masks" / "m.png", 1)
    assert adopted(services, "masks/m.png [input]", tmp_path / "work") == "masks/m.png"
    assert services.input_path("masks/m.png").read_bytes() == inner.read_bytes()
    services.submit_graph(inverting("masks/m.png"))


def test_an_input_that_is_there_is_used_and_another_one_beside_is_told(
    services: StudioServices, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = save_picture(tmp_path / "work" / "cat.png")
    first = picture.read_bytes()
    assert adopted(services, "cat.png", tmp_path / "work") == adopted(services, "cat.png", tmp_path / "work")
    assert capsys.readouterr().err == ""
    save_picture(picture, 5)
    assert adopted(services, "cat.png", tmp_path / "work") == "cat.png"
    assert "taken from the inputs" in capsys.readouterr().err
    assert services.input_path("cat.png").read_bytes() == first


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "none.png", "", "a\0b.png", ".", "x" * 5000])
def test_nothing_outside_the_workflows_folder_is_taken(services: StudioServices, tmp_path: Path, name: str) -> None:
    save_picture(tmp_path / "secret.png")
    (tmp_path / "work").mkdir()
    assert adopted(services, name, tmp_path / "work") == name
    assert services.inputs.names() == []


def test_what_lies_there_and_is_no_picture_is_told(services: StudioServices, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_text("words")
    with pytest.raises(InvalidRequest, match=r"cat\.png is not a picture"):
        adopted(services, "cat.png", tmp_path)


def test_every_door_takes_what_the_editor_saves_and_keeps_it(services: StudioServices, tmp_path: Path) -> None:
    adopted(services, save_picture(tmp_path / "cat.png").name, tmp_path)
    workflow = as_editor_file(inverting("cat.png"), core_registry()).saved("1.0")
    job = services.submit_graph(workflow, extra={"mine": 1})
    assert job.graph == inverting("cat.png")
    assert services.job(job.job_id).extra == {"workflow": workflow, "mine": 1}
    with pytest.raises(InvalidGraph, match="One of the nodes is a number"):
        services.submit_graph({"nodes": [3]})


@pytest.mark.parametrize("form", ["api", "editor"])
def test_a_workflow_runs_with_its_picture(tmp_path: Path, form: str) -> None:
    picture = save_picture(tmp_path / "work" / "cat.png")
    workflow = inverting("cat.png")
    if form == "editor":
        workflow = as_editor_file(workflow, core_registry()).saved()
    file = tmp_path / "work" / "invert.json"
    file.write_text(json.dumps(workflow))
    result = atoll_run(tmp_path / "home", file, "--out", str(tmp_path / "out.png"))
    assert result.exit_code == 0, result.output
    inverted = 255 - np.asarray(Image.open(picture)).astype(int)
    # SaveImage cuts off what is below a level, as ComfyUI does: one level may be lost on the way through floats.
    assert np.isin(inverted - np.asarray(Image.open(tmp_path / "out.png")), (0, 1)).all()
    chunks = read_png_text(tmp_path / "out.png")
    assert json.loads(chunks["prompt"]) == inverting("cat.png")
    assert ("workflow" in chunks) == (form == "editor")
    if form == "editor":
        assert json.loads(chunks["workflow"]) == workflow
