"""Nodes as editors see them: what ComfyUI's nodes of the same name are, no more and no less."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from atoll.diffusion.samplers import SAMPLERS
from atoll.diffusion.sigmas import DIFFUSERS_SCHEDULES, SCHEDULES
from atoll.graph.object_info import object_info
from atoll.nodes.registry import core_registry
from atoll.nodes.sampling import SAMPLER_NAMES, SCHEDULE_NAMES

COMFYUI: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "data/comfy/object_info.core.json").read_text(encoding="utf-8")
)
# What needs kinds of model files, or media, that Atoll does not read yet. Everything else of the recording is there.
ABSENT = {
    "LoraLoader", "LoraLoaderModelOnly", "ControlNetLoader", "DiffControlNetLoader", "ControlNetApply",
    "ControlNetApplyAdvanced", "UpscaleModelLoader", "ImageUpscaleWithModel", "CLIPVisionLoader", "CLIPVisionEncode",
    "unCLIPConditioning", "unCLIPCheckpointLoader", "ImageOnlyCheckpointLoader", "StyleModelLoader", "StyleModelApply",
    "GLIGENLoader", "GLIGENTextBoxApply", "HypernetworkLoader", "LoadAudio", "SaveAudio", "PreviewAudio",
    "SaveLatent", "LoadLatent", "CheckpointSave", "CLIPSave", "VAESave",
}  # fmt: skip
SAME = (
    "name", "display_name", "category", "input", "input_order", "output", "output_is_list", "output_name",
    "output_node", "deprecated", "experimental", "api_node",
)  # fmt: skip
FILES = {
    ("CheckpointLoaderSimple", "ckpt_name"): "checkpoints",
    ("CheckpointLoader", "ckpt_name"): "checkpoints",
    ("VAELoader", "vae_name"): "vae",
    ("CLIPLoader", "clip_name"): "text_encoders",
    ("DualCLIPLoader", "clip_name1"): "text_encoders",
    ("DualCLIPLoader", "clip_name2"): "text_encoders",
    ("UNETLoader", "unet_name"): "diffusion_models",
    ("LoadImage", "image"): "inputs",
    ("LoadImageMask", "image"): "inputs",
}


class NamedFiles:
    def names(self, kind: str) -> Sequence[str]:
        return [f"a file of {kind}"]

    def has(self, kind: str, name: str) -> bool:
        return name in self.names(kind)


def expected(class_type: str) -> dict[str, Any]:
    """ComfyUI's declaration, with the files and samplers that are here instead of there."""
    info = json.loads(json.dumps(COMFYUI[class_type]))
    required = info["input"]["required"]
    for (owner, field), kind in FILES.items():
        if owner == class_type:
            required[field][0] = [f"a file of {kind}"]
    if "sampler_name" in required:
        required["sampler_name"][0] += ["pndm", "plms"]  # which ComfyUI does not have
    if "scheduler" in required:
        required["scheduler"][0] += DIFFUSERS_SCHEDULES
    return {key: info[key] for key in SAME if key in info}


def without_tooltips(value: Any) -> Any:
    """The recording was made without ComfyUI's texts."""
    if isinstance(value, dict):
        return {name: without_tooltips(item) for name, item in value.items() if name != "tooltip"}
    return [without_tooltips(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("class_type", [spec.class_type for spec in core_registry() if spec.class_type in COMFYUI])
def test_a_node_is_declared_as_comfyui_declares_it(class_type: str) -> None:
    info = object_info(core_registry(), NamedFiles())[class_type]
    assert without_tooltips({key: info[key] for key in SAME if key in info}) == expected(class_type)


def test_every_promised_node_is_there_and_every_node_explains_itself() -> None:
    registry = core_registry()
    assert {name for name in COMFYUI if registry.get(name) is None} == ABSENT
    for spec in registry:
        assert spec.description, spec.class_type
        assert spec.class_type in COMFYUI or spec.class_type.startswith("Atoll")


def test_the_names_that_nodes_offer_are_those_of_the_engine() -> None:
    assert tuple(SAMPLERS) == SAMPLER_NAMES
    assert tuple(SCHEDULES) == SCHEDULE_NAMES


def test_declarations_load_without_torch() -> None:
    program = (
        "import sys; from atoll.nodes.registry import core_registry; core_registry(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_the_manual_names_every_node_with_its_inputs() -> None:
    manual = (Path(__file__).parent.parent.parent / "docs/nodes.md").read_text(encoding="utf-8")
    described = re.findall(r"\*\*(\w+)\*\*\s+\(([^)]*)\)", manual)
    said = {name: re.findall(r"`(\w+)`", inputs) for name, inputs in described}
    assert said == {spec.class_type: [item.name for item in spec.inputs] for spec in core_registry()}
