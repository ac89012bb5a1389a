"""Whole workflows on a tiny random network: the examples run, repeat themselves, and say how they were made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from node_context import RecordingContext

from atoll.artifacts.infotext import parse_infotext
from atoll.artifacts.input_files import InputFiles
from atoll.artifacts.png import encode_png, read_png_text
from atoll.errors import InvalidRequest, JobCancelled
from atoll.graph.execute import ResultCache, run_graph
from atoll.graph.graph import Graph
from atoll.graph.validate import validate_graph
from atoll.models.catalogue import ModelCatalogue
from atoll.nodes.registry import core_registry

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
WORKFLOWS = sorted(EXAMPLES.glob("*.json"))


class Files:
    """What the catalogue and the inputs hold: a `Choices`."""

    def __init__(self, catalogue: ModelCatalogue, inputs: InputFiles) -> None:
        self.catalogue, self.inputs = catalogue, inputs

    def names(self, kind: str) -> list[str]:
        return self.inputs.names() if kind == "inputs" else self.catalogue.names(kind)

    def has(self, kind: str, name: str) -> bool:
        return name in self.names(kind)


@pytest.fixture
def run(context: RecordingContext, catalogue: ModelCatalogue, inputs: InputFiles) -> Callable[..., list[str]]:
    """Judge and run a workflow; gives the classes of the nodes that ran. Results are kept from one call to the next."""
    cache = ResultCache(2**26, lambda outputs: 1)

    def run_it(api: Any, cache: ResultCache = cache) -> list[str]:
        context.graph = validate_graph(api, core_registry(), Files(catalogue, inputs)).strict()
        context.saved.clear()
        context.steps.clear()
        ran: list[str] = []

        def note(node_id: str, state: str) -> None:
            if state == "running":
                ran.append(context.graph.nodes[node_id].class_type)

        run_graph(context.graph, core_registry(), cache, context, note)
        return ran

    return run_it


def no_cache() -> ResultCache:
    return ResultCache(0, lambda outputs: 1)


def txt2img(**changes: Any) -> dict[str, Any]:
    """A small picture; `changes` go to the sampler."""
    graph = Graph()
    checkpoint = graph.add("CheckpointLoaderSimple", ckpt_name="lagoon")
    sampled = graph.add(
        "KSampler",
        **{
            "model": checkpoint,
            "seed": 7,
            "steps": 3,
            "cfg": 5.0,
            "sampler_name": "euler",
            "scheduler": "normal",
            "positive": graph.add("CLIPTextEncode", text="a red apple", clip=checkpoint[1]),
            "negative": graph.add("CLIPTextEncode", text="blurry", clip=checkpoint[1]),
            "latent_image": graph.add("EmptyLatentImage", width=32, height=48, batch_size=2),
            "denoise": 1.0,
            **changes,
        },
    )
    graph.add("SaveImage", images=graph.add("VAEDecode", samples=sampled, vae=checkpoint[2]), filename_prefix="t")
    return graph.to_api()


def test_there_is_an_example_of_each_way_to_make_a_picture() -> None:
    assert [path.stem for path in WORKFLOWS] == ["hires", "img2img", "inpaint", "txt2img"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_an_example_runs_and_repeats_itself(
    path: Path, run: Callable[..., list[str]], context: RecordingContext, inputs: InputFiles
) -> None:
    for picture in EXAMPLES.glob("*.png"):
        inputs.save_upload(picture.name, picture.read_bytes())
    api = json.loads(path.read_text(encoding="utf-8"))
    for entry in api.values():
        if entry["class_type"] == "KSampler":
            entry["inputs"]["steps"] = 3  # the path through the nodes is what is tested here
    run(api)
    [first] = context.saved
    assert first.image.shape == ((192, 192, 3) if path.stem == "hires" else (128, 128, 3))
    assert first.image.std() > 0
    file = encode_png(first.image, first.metadata)
    said = parse_infotext(read_png_text(file)["parameters"])
    assert (said.parameters["Seed"], said.parameters["Model"]) == ("7", "lagoon")
    again = json.loads(read_png_text(file)["prompt"])
    assert again == api
    run(again, no_cache())
    assert np.array_equal(context.saved[0].image, first.image)


def test_inpainting_leaves_what_is_not_masked_byte_for_byte(
    run: Callable[..., list[str]], context: RecordingContext, inputs: InputFiles
) -> None:
    from PIL import Image

    inputs.save_upload("still-life-hole.png", (EXAMPLES / "still-life-hole.png").read_bytes())
    api = json.loads((EXAMPLES / "inpaint.json").read_text(encoding="utf-8"))
    api["5"]["inputs"]["radius"] = 0
    run(api)
    with Image.open(EXAMPLES / "still-life-hole.png") as picture:
        before = np.asarray(picture)
    kept = before[:, :, 3] == 255
    assert np.array_equal(context.saved[0].image[kept], before[kept][:, :3])
    assert (context.saved[0].image[~kept] != before[~kept][:, :3]).mean() > 0.5


def test_only_what_changed_runs_again(run: Callable[..., list[str]], context: RecordingContext) -> None:
    loader, encode, empty, sampler, decode, save = (
        "CheckpointLoaderSimple", "CLIPTextEncode", "EmptyLatentImage", "KSampler", "VAEDecode", "SaveImage",
    )  # fmt: skip
    assert sorted(run(txt2img())) == sorted([loader, encode, encode, empty, sampler, decode, save])
    first = [one.image for one in context.saved]
    assert run(txt2img()) == [save]
    assert all(np.array_equal(one.image, before) for one, before in zip(context.saved, first, strict=True))
    assert sorted(run(txt2img(seed=8))) == sorted([loader, sampler, decode, save])
    api = txt2img()
    api["3"]["inputs"]["text"] = "a green apple"
    ran = run(api)
    assert sorted(ran) == sorted([loader, encode, sampler, decode, save]) or "KSampler" in ran


def test_steps_are_told_with_a_picture_and_can_be_stopped(
    run: Callable[..., list[str]], context: RecordingContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(txt2img())
    sampler = next(node_id for node_id, node in context.graph.nodes.items() if node.class_type == "KSampler")
    assert context.steps == [(sampler, step, 3) for step in (1, 2, 3)]
    assert context.preview.startswith(b"\xff\xd8")  # a JPEG

    calls = []

    def stop(step: int, total: int, preview: object) -> None:
        calls.append(step)
        if step == 2:
            raise JobCancelled("enough")

    monkeypatch.setattr(context, "on_step", stop)
    with pytest.raises(JobCancelled):
        run(txt2img(seed=9))
    assert calls == [1, 2]
    assert context.saved == []


def test_two_samplers_in_a_row_are_one_in_two_parts(run: Callable[..., list[str]], context: RecordingContext) -> None:
    run(txt2img(steps=4))
    whole = context.saved[0].image
    api = txt2img(steps=4)
    sampler_id = next(node_id for node_id, entry in api.items() if entry["class_type"] == "KSampler")
    common = api[sampler_id]["inputs"]
    common["noise_seed"] = common.pop("seed")
    del common["denoise"]
    first = {"add_noise": "enable", "start_at_step": 0, "end_at_step": 2, "return_with_leftover_noise": "enable"}
    second = {"add_noise": "disable", "start_at_step": 2, "end_at_step": 10000, "return_with_leftover_noise": "disable"}
    api["first"] = {"class_type": "KSamplerAdvanced", "inputs": {**common, **first}}
    api[sampler_id] = {
        "class_type": "KSamplerAdvanced",
        "inputs": {**common, **second, "latent_image": ["first", 0]},
    }
    run(api)
    assert np.abs(context.saved[0].image.astype(int) - whole).max() <= 1


def test_parts_of_models_work_in_place_of_a_checkpoints(
    run: Callable[..., list[str]], context: RecordingContext
) -> None:
    run(txt2img())
    whole = context.saved[0].image
    api = txt2img()
    api["unet"] = {"class_type": "UNETLoader", "inputs": {"unet_name": "tiny", "weight_dtype": "default"}}
    api["clip"] = {"class_type": "CLIPLoader", "inputs": {"clip_name": "tiny", "type": "stable_diffusion"}}
    api["vae"] = {"class_type": "VAELoader", "inputs": {"vae_name": "tiny"}}
    replacements = {0: ["unet", 0], 1: ["clip", 0], 2: ["vae", 0]}
    for entry in list(api.values()):
        for name, value in entry["inputs"].items():
            if isinstance(value, list) and value[0] == "1":
                entry["inputs"][name] = replacements[value[1]]
    ran = run(api)
    assert "CheckpointLoaderSimple" not in ran and "UNETLoader" in ran
    assert np.abs(context.saved[0].image.astype(int) - whole).max() <= 1
    said = parse_infotext(context.saved[0].metadata["parameters"]).parameters
    assert (said["Model"], said["VAE"]) == ("tiny", "tiny")


def test_clip_skip_changes_the_picture_and_only_to_layers_that_exist(
    run: Callable[..., list[str]], context: RecordingContext
) -> None:
    run(txt2img())
    whole = context.saved[0].image
    api = txt2img()
    api["skip"] = {"class_type": "CLIPSetLastLayer", "inputs": {"clip": ["1", 1], "stop_at_clip_layer": -2}}
    for entry in api.values():
        if entry["class_type"] == "CLIPTextEncode":
            entry["inputs"]["clip"] = ["skip", 0]
    run(api)
    assert not np.array_equal(context.saved[0].image, whole)
    assert parse_infotext(context.saved[0].metadata["parameters"]).parameters["Clip skip"] == "2"
    api["skip"]["inputs"]["stop_at_clip_layer"] = -20
    with pytest.raises(InvalidRequest, match="layers 1 to 4"):
        run(api)


@pytest.mark.parametrize(
    ("class_type", "field", "value"), [("CLIPLoader", "type", "sd3"), ("UNETLoader", "weight_dtype", "fp8_e4m3fn")]
)
def test_what_is_not_supported_yet_says_so_before_the_job_runs(
    run: Callable[..., list[str]], class_type: str, field: str, value: str
) -> None:
    from atoll.graph.fault import InvalidGraph

    api = txt2img()
    fields = {"CLIPLoader": {"clip_name": "tiny"}, "UNETLoader": {"unet_name": "tiny"}}[class_type]
    api["part"] = {"class_type": class_type, "inputs": {**fields, field: value}}
    if class_type == "CLIPLoader":
        next(entry for entry in api.values() if entry["class_type"] == "CLIPTextEncode")["inputs"]["clip"] = ["part", 0]
    else:
        next(entry for entry in api.values() if entry["class_type"] == "KSampler")["inputs"]["model"] = ["part", 0]
    with pytest.raises(InvalidGraph, match="not supported yet"):
        run(api)


def test_what_the_infotext_says(run: Callable[..., list[str]], context: RecordingContext) -> None:
    run(txt2img(cfg=7.0, sampler_name="dpmpp_2m", scheduler="karras"))
    assert [one.metadata["parameters"] for one in context.saved] == [
        "a red apple\nNegative prompt: blurry\n"
        "Steps: 3, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 7, Size: 32x48, Model: lagoon, "
        f"Batch size: 2, Batch pos: {index}, Version: Atoll 0.1.0"
        for index in (0, 1)
    ]


def test_a_second_pass_is_told_as_hires_part(run: Callable[..., list[str]], context: RecordingContext) -> None:
    api = json.loads((EXAMPLES / "hires.json").read_text(encoding="utf-8"))
    for entry in api.values():
        if entry["class_type"] == "KSampler":
            entry["inputs"]["steps"] //= 5
    run(api)
    said = parse_infotext(context.saved[0].metadata["parameters"]).parameters
    shown = {name: said[name] for name in ("Steps", "Size", "Denoising strength", "Hires resize", "Hires steps")}
    assert shown == {
        "Steps": "4", "Size": "128x128", "Denoising strength": "0.6", "Hires resize": "192x192", "Hires steps": "2",
    }  # fmt: skip


def test_a_text_as_picture_stops_the_job_in_words(run: Callable[..., list[str]], inputs: InputFiles) -> None:
    inputs.root.mkdir()
    (inputs.root / "notes.png").write_text("I am a text.")
    graph = Graph()
    graph.add("PreviewImage", images=graph.add("LoadImage", image="notes.png"))
    with pytest.raises(InvalidRequest, match=r"notes\.png is not a picture in a known format"):
        run(graph.to_api())
