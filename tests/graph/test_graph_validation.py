"""Every fault of a workflow at once, in ComfyUI's form and in words."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pytest

from atoll.graph.fault import GraphFault, InvalidGraph
from atoll.graph.node import OneFile, OneOf, Range, Registry, Text, Tooltip, node
from atoll.graph.validate import Validation, validate_graph
from atoll.nodes.latents import MAX_BATCH_PIXELS
from atoll.nodes.registry import core_registry
from atoll.nodes.sampling import SAMPLER_NAMES

RECORDED = json.loads((Path(__file__).parent.parent / "data/comfy/errors.json").read_text(encoding="utf-8"))


class SomeFiles:
    """What exists, for the fields that choose a file."""

    def names(self, kind: str) -> Sequence[str]:
        return {"checkpoints": ["lagoon", "ink-wash.safetensors"], "inputs": ["cat.png"]}.get(kind, [])

    def has(self, kind: str, name: str) -> bool:
        return name in self.names(kind) or name == "cat.png [input]"


def txt2img() -> dict[str, Any]:
    return {
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["4", 0], "seed": 7, "steps": 20, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal",
                "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0], "denoise": 1.0,
            },
        },
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "lagoon"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red apple", "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["4", 1]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "x"}},
    }  # fmt: skip


def judge(api: object) -> Validation:
    return validate_graph(api, core_registry(), SomeFiles())


def changed(node_id: str, field: str, value: object) -> dict[str, Any]:
    api = txt2img()
    api[node_id]["inputs"][field] = value
    return api


def without(node_id: str, field: str) -> dict[str, Any]:
    api = txt2img()
    del api[node_id]["inputs"][field]
    return api


def of_class(node_id: str, class_type: str | None) -> dict[str, Any]:
    api = txt2img()
    api[node_id] = {"class_type": class_type, "inputs": {}} if class_type else {"inputs": {}}
    return api


def in_a_circle() -> dict[str, Any]:
    return changed("3", "latent_image", ["3", 0])


def no_outputs() -> dict[str, Any]:
    api = txt2img()
    del api["9"]
    return api


BROKEN: Mapping[str, Callable[[], Any]] = {
    "missing input": lambda: without("3", "seed"),
    "link to missing node": lambda: changed("3", "latent_image", ["99", 0]),
    "wrong type link": lambda: changed("3", "model", ["4", 1]),
    "unknown node": lambda: of_class("3", "NoSuchNode"),
    "too small": lambda: changed("3", "steps", 0),
    "too big": lambda: changed("3", "steps", 99999),
    "not in list": lambda: changed("3", "sampler_name", "nope"),
    "bad conversion": lambda: changed("3", "cfg", "abc"),
    "no outputs": no_outputs,
    "no class_type": lambda: of_class("3", None),
    "cycle": in_a_circle,
    "no prompt": lambda: None,
}


def without_tooltips(value: Any) -> Any:
    """The recording was made without ComfyUI's texts."""
    if isinstance(value, dict):
        return {name: without_tooltips(item) for name, item in value.items() if name != "tooltip"}
    return [without_tooltips(item) for item in value] if isinstance(value, list) else value


def test_a_sound_workflow_has_no_faults() -> None:
    judged = judge(txt2img())
    assert (judged.faults, judged.good_outputs, judged.comfy_error(), judged.comfy_node_errors()) == (
        (),
        ("9",),
        None,
        {},
    )
    assert judged.strict().to_api() == judged.lenient().to_api() == txt2img()


@pytest.mark.parametrize("name", RECORDED)
def test_faults_are_worded_as_comfyui_words_them(name: str) -> None:
    recorded = json.dumps(RECORDED[name]["reply"]).replace("length 42", f"length {len(SAMPLER_NAMES)}")
    judged = judge(BROKEN[name]())
    reply = {"error": judged.comfy_error(), "node_errors": judged.comfy_node_errors()}
    assert without_tooltips(json.loads(json.dumps(reply))) == json.loads(recorded)
    with pytest.raises(InvalidGraph):
        judged.strict()
    with pytest.raises(InvalidGraph):
        judged.lenient()


@pytest.mark.parametrize(
    ("node_id", "field", "value", "type_", "words"),
    [
        ("3", "cfg", float("nan"), "invalid_input_type", "cfg holds nan"),
        ("3", "cfg", "nan", "invalid_input_type", "cfg wants a finite number and got 'nan'"),
        ("3", "cfg", float("inf"), "invalid_input_type", "cfg holds inf"),
        ("3", "cfg", True, "invalid_input_type", "cfg wants a finite number and got 'True'"),
        ("3", "steps", True, "invalid_input_type", "steps wants a whole number and got 'True'"),
        ("3", "steps", 20.5, "invalid_input_type", "steps wants a whole number and got '20.5'"),
        ("3", "steps", None, "invalid_input_type", "steps wants a whole number and got 'None'"),
        ("3", "steps", {}, "invalid_input_type", "steps wants a whole number"),
        ("3", "steps", [], "bad_linked_input", "steps wants a value or a link to INT"),
        ("3", "steps", 10**300, "value_bigger_than_max", "is out of range; it goes from 1 to 10000"),
        ("3", "seed", -1, "value_smaller_than_min", "seed -1 is out of range; it goes from 0 to 18446744073709551615"),
        ("3", "sampler_name", "eulr", "value_not_in_list", 'sampler_name "eulr" is not known. Near it: euler'),
        ("3", "sampler_name", 5, "value_not_in_list", 'sampler_name "5" is not known. There are: euler,'),
        ("4", "ckpt_name", "lagon", "value_not_in_list", 'ckpt_name "lagon" is not known. Near it: lagoon'),
        ("5", "width", 100_000, "value_bigger_than_max", "width 100000 is out of range; it goes from 16 to 16384"),
        ("5", "height", 517, None, ""),
        ("6", "text", 5.0, None, ""),
        ("6", "text", None, "invalid_input_type", "text wants a text and got 'None'"),
        ("6", "text", "x" * 100_001, "custom_validation_failed", "text is 100,001 characters long; at most 100,000"),
        ("6", "clip", "lagoon", "bad_linked_input", "clip wants a link to another node's output"),
        ("6", "clip", ["4", 7], "bad_linked_input", 'output 7 of node 4 "Load Checkpoint", which has 3'),
        ("6", "clip", ["4", -1], "bad_linked_input", "output -1"),
        ("6", "clip", ["4"], "bad_linked_input", "clip wants a link"),
        ("9", "images", ["99", 0], "exception_during_validation", "images is linked to node 99, which is not in"),
        ("9", "filename_prefix", "../../etc/x", "custom_validation_failed", "leads out of the folder for results"),
    ],
)
def test_each_bad_value_is_named_with_its_node_and_field(
    node_id: str, field: str, value: object, type_: str | None, words: str
) -> None:
    faults = judge(changed(node_id, field, value)).faults
    if type_ is None:
        assert not faults
        return
    [fault] = faults
    assert (fault.node_id, fault.field, fault.type) == (node_id, field, type_)
    assert words in fault.sentence
    assert fault.sentence.startswith(f"Node {node_id} ")
    json.dumps(fault.extra_info, allow_nan=False)
    assert len(fault.sentence) < 500


def test_every_fault_is_reported_at_once() -> None:
    api = txt2img()
    api["3"]["inputs"] |= {"steps": 0, "cfg": float("nan"), "sampler_name": "nope", "model": ["4", 2]}
    del api["3"]["inputs"]["seed"]
    api["5"]["inputs"]["height"] = 8
    api["6"]["inputs"]["clip"] = ["99", 1]
    found = [(fault.node_id, fault.field) for fault in judge(api).faults]
    assert sorted(found) == [
        ("3", "cfg"), ("3", "model"), ("3", "sampler_name"), ("3", "seed"), ("3", "steps"), ("5", "height"),
        ("6", "clip"),
    ]  # fmt: skip
    with pytest.raises(InvalidGraph) as refusal:
        judge(api).strict()
    assert len(refusal.value.message.splitlines()) == 7


def test_unknown_classes_and_bad_forms_are_reported_beside_bad_values() -> None:
    api = changed("3", "steps", 0)
    api["5"] = {"class_type": "EmptyLatentImag", "inputs": {}}
    api["7"] = 3
    found = {(fault.node_id, fault.type) for fault in judge(api).faults}
    assert found == {("3", "value_smaller_than_min"), ("5", "invalid_prompt"), ("7", "invalid_prompt")}
    [unknown] = [fault for fault in judge(api).faults if fault.node_id == "5"]
    assert "which Atoll does not have. Near it: EmptyLatentImage" in unknown.sentence


def test_values_are_converted_as_comfyui_converts_them() -> None:
    api = txt2img()
    api["3"]["inputs"] |= {"steps": "12", "cfg": 7, "seed": 3.0}
    inputs = judge(api).strict().nodes["3"].inputs
    assert (inputs["steps"], inputs["cfg"], inputs["seed"]) == (12, 7.0, 3)
    assert [type(inputs[name]) for name in ("steps", "cfg", "seed")] == [int, float, int]


def test_inputs_that_a_node_does_not_know_are_left_alone() -> None:
    api = changed("4", "choose file to upload", "image")
    api["4"]["inputs"]["stray"] = ["99", 0]
    assert judge(api).strict().to_api() == api


def test_a_misspelt_field_is_pointed_out() -> None:
    api = without("3", "steps")
    api["3"]["inputs"]["stepz"] = 20
    [fault] = judge(api).faults
    assert fault.sentence.endswith("steps is missing. It has stepz.")


def test_one_sound_output_is_enough_for_comfyui_and_not_for_us() -> None:
    api = txt2img()
    api["10"] = {"class_type": "PreviewImage", "inputs": {"images": ["99", 0]}}
    judged = judge(api)
    assert (judged.good_outputs, judged.bad_outputs, judged.comfy_error()) == (("9",), ("10",), None)
    assert judged.comfy_node_errors()["10"]["dependent_outputs"] == ["10"]
    assert judged.lenient().to_api() == txt2img()
    with pytest.raises(InvalidGraph):
        judged.strict()


def test_what_no_output_needs_is_not_judged() -> None:
    api = txt2img()
    api["11"] = {"class_type": "KSampler", "inputs": {}}
    assert judge(api).faults == ()


def test_a_circle_names_its_nodes() -> None:
    api = changed("6", "clip", ["7", 0])
    api["7"]["inputs"]["clip"] = ["6", 0]
    circle = [fault for fault in judge(api).faults if fault.type == "dependency_cycle"]
    assert "6 -> 7 -> 6" in circle[0].sentence
    assert judge(api).good_outputs == ()


def test_a_missing_input_picture_is_what_comfyui_calls_invalid_image_file() -> None:
    api = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "cut.png"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    [fault] = judge(api).faults
    assert (fault.type, fault.details) == ("custom_validation_failed", "image - Invalid image file: cut.png")
    assert 'there is no input picture "cut.png". Near it: cat.png.' in fault.sentence
    api["1"]["inputs"]["image"] = "cat.png [input]"
    assert judge(api).faults == ()


def test_a_giant_batch_is_refused_with_its_numbers() -> None:
    api = txt2img()
    api["5"]["inputs"] = {"width": 16384, "height": 16384, "batch_size": 4096}
    [fault] = judge(api).faults
    sizes = "16384 x 16384 x 4096 (width x height x batch_size)"
    assert f"{sizes} are more than {MAX_BATCH_PIXELS:,} pixels" in fault.sentence


def test_judging_changes_nothing_of_the_callers() -> None:
    api = changed("3", "steps", "12")
    before = copy.deepcopy(api)
    judge(api)
    assert api == before


@node("Counting", title="Counting", category="test", is_output=True, optional=("note",))
def counting(
    *,
    count: Annotated[int, Range(0, 9)],
    kind: Annotated[str, OneOf(("a", "b"))],
    file: Annotated[str, OneFile("vae"), Tooltip("Which.")],
    flag: bool = True,
    note: Annotated[str, Text(max_length=5)] = "",
) -> None:
    """A node with every kind of field."""


def judge_counting(inputs: dict[str, Any]) -> tuple[GraphFault, ...]:
    api = {"1": {"class_type": "Counting", "inputs": inputs}}
    return validate_graph(api, Registry.of(counting), SomeFiles()).faults


def test_optional_fields_flags_and_short_lists() -> None:
    inputs = {"count": 3, "kind": "c", "file": "x", "flag": "maybe", "note": "too long"}
    faults = judge_counting(inputs)
    assert [fault.field for fault in faults] == ["kind", "file", "flag", "note"]
    assert faults[0].details == "kind: 'c' not in ['a', 'b']"
    assert faults[0].extra_info["input_config"] == [["a", "b"]]
    assert "There are none yet." in faults[1].sentence
    assert [fault.field for fault in judge_counting({"count": 3, "kind": "a", "flag": False})] == ["file"]


def test_a_declaration_that_contradicts_its_function_is_refused() -> None:
    with pytest.raises(TypeError, match="keyword-only"):

        @node("Wrong", title="Wrong", category="test")
        def wrong(image: int) -> None: ...

    with pytest.raises(TypeError, match="order"):

        @node("Wrong", title="Wrong", category="test", order=("b",))
        def disordered(*, a: int) -> None: ...

    with pytest.raises(TypeError, match="share a class type"):
        Registry.of(counting, counting)
