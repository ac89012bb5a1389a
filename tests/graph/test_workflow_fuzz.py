"""Whatever is sent in place of a workflow, in either form, is answered in words and at once; nothing escapes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from editor_files import as_editor_file
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from atoll.graph.fault import MOST_FAULTS, InvalidGraph
from atoll.graph.graph import MAX_NODES
from atoll.graph.order import execution_order
from atoll.graph.ui_format import api_form
from atoll.graph.validate import Validation, validate_graph
from atoll.nodes.registry import core_registry

NODES = core_registry()
CLASSES = sorted(NODES.specs)
AT_ONCE_S = 1.0  # of computing: other programs may slow the clock

relaxed = settings(
    deadline=None,
    max_examples=40,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


class SomeFiles:
    def names(self, kind: str) -> Sequence[str]:
        return ["lagoon"] if kind == "checkpoints" else ["cat.png"]

    def has(self, kind: str, name: str) -> bool:
        return name in self.names(kind)


def answer(workflow: object) -> Validation | InvalidGraph:
    """What a door does with a workflow. Holds it to the promises that hold for every one."""
    started = time.thread_time()
    result: Validation | InvalidGraph
    try:
        result = validate_graph(api_form(workflow, NODES), NODES, SomeFiles())
    except InvalidGraph as refused:
        result = refused
    assert time.thread_time() - started < AT_ONCE_S
    for fault in result.faults:
        assert fault.sentence and len(fault.sentence) < 4000
        json.dumps([fault.as_dict(), fault.extra_info], allow_nan=False).encode()  # it can be sent
    assert len(result.faults) <= MOST_FAULTS + 1
    if isinstance(result, Validation):
        json.dumps([result.comfy_error(), result.comfy_node_errors()], allow_nan=False).encode()
        if not result.faults:
            json.dumps(result.strict().to_api(), allow_nan=False)
        if result.good_outputs:
            execution_order(result.lenient(), NODES)  # what is taken can be put in order
    return result


ids = st.sampled_from(["1", "2", "3", "4", "5"])
texts = st.text(max_size=12) | st.sampled_from(["euler", "lagoon", "cat.png", "../x", "\0", "\ud800", "x" * 200_000])
numbers = st.integers() | st.floats() | st.sampled_from([0, -1, 2**64, 10**400, True])
leaves = st.none() | st.booleans() | numbers | texts
json_values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
links = st.tuples(ids, st.integers(-1, 4)).map(list)
names = st.sampled_from(sorted({item.name for spec in NODES for item in spec.inputs})) | texts


@st.composite
def nodes_of_a_known_class(draw: st.DrawFn) -> dict[str, Any]:
    """A node with its own inputs, most of them filled with something of the kind."""
    spec = NODES[draw(st.sampled_from(CLASSES))]
    inputs: dict[str, Any] = {}
    for item in spec.inputs:
        if item.is_socket:
            inputs[item.name] = draw(links)
        elif draw(st.integers(0, 9)):
            default = item.default if isinstance(item.default, int | float | str | bool) else "euler"
            inputs[item.name] = draw(st.just(default) | leaves | links)
    return {"class_type": spec.class_type, "inputs": inputs}


wild_nodes = st.fixed_dictionaries(
    {"class_type": st.sampled_from(CLASSES) | json_values},
    optional={"inputs": st.dictionaries(names, json_values | links, max_size=5) | json_values, "_meta": json_values},
)
api_forms = st.dictionaries(ids | texts, nodes_of_a_known_class() | wild_nodes | json_values, max_size=6)


@relaxed
@given(api_forms | json_values)
def test_any_api_form_is_answered_in_words(workflow: Any) -> None:
    answer(workflow)


numbers_of_nodes = st.integers(-20, 6)
editor_types = ["Reroute", "PrimitiveNode", "Note", "GetNode", "SetNode", "PrimitiveInt", "sub", "deeper", "workflow>g"]
ports = st.lists(
    st.fixed_dictionaries(
        {"name": names, "type": st.sampled_from(["MODEL", "CLIP", "LATENT", "INT", "*"]) | json_values},
        optional={"link": st.integers(0, 8) | json_values, "widget": st.just({"name": "seed"}) | json_values},
    ),
    max_size=4,
)
editor_nodes = st.fixed_dictionaries(
    {"id": numbers_of_nodes, "type": st.sampled_from([*CLASSES, *editor_types]) | texts},
    optional={
        "mode": st.sampled_from([0, 2, 4, 7]) | json_values,
        "inputs": ports | json_values,
        "outputs": ports | json_values,
        "widgets_values": st.lists(leaves, max_size=8) | json_values,
        "widgets_values_named": json_values,
        "title": json_values,
        "properties": json_values | st.just({"proxyWidgets": [["-1", "seed"], [3], 4]}),
    },
)
wires = st.tuples(*[st.integers(-20, 8)] * 5, st.just("MODEL")).map(list) | st.fixed_dictionaries(
    {name: st.integers(-20, 8) for name in ("id", "origin_id", "origin_slot", "target_id", "target_slot")}
)
graphs = {
    "nodes": st.lists(editor_nodes, max_size=6, unique_by=lambda node: node["id"]) | st.lists(json_values, max_size=2),
    "links": st.lists(wires, max_size=9) | json_values,
}
subgraphs = st.fixed_dictionaries(
    {"id": st.sampled_from(["sub", "deeper"]), "inputs": ports, "outputs": ports, **graphs}
)
groups = st.fixed_dictionaries({"g": st.fixed_dictionaries({**graphs, "external": json_values, "config": json_values})})
editor_forms = st.fixed_dictionaries(
    graphs,
    optional={
        "definitions": st.fixed_dictionaries({"subgraphs": st.lists(subgraphs, max_size=3) | json_values}),
        "extra": st.fixed_dictionaries({"groupNodes": groups | json_values}) | json_values,
        "version": json_values,
    },
)


@relaxed
@given(editor_forms)
def test_any_editor_file_is_answered_in_words(workflow: Any) -> None:
    answer(workflow)


def sound() -> dict[str, Any]:
    sampler = {
        "model": ["1", 0], "positive": ["2", 0], "negative": ["2", 0], "latent_image": ["3", 0], "seed": 1, "steps": 2,
        "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
    }  # fmt: skip
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "lagoon"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a {red|green} apple", "clip": ["1", 1]}},
        "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "4": {"class_type": "KSampler", "inputs": sampler},
        "5": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
        "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "x"}},
    }


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to everything inside a JSON value."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in children for place in places(child, (*path, key)))]


def replaced(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    if not place:
        return new
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[place[0]] = replaced(value[place[0]], place[1:], new)
    return changed


@pytest.mark.parametrize("form", ["api", "0.4", "1.0"])
@relaxed
@given(st.data())
def test_a_sound_workflow_with_one_thing_changed_is_answered_in_words(form: Any, data: st.DataObject) -> None:
    workflow = sound() if form == "api" else as_editor_file(sound(), NODES).saved(form)
    place = data.draw(st.sampled_from(places(workflow)))
    answer(replaced(workflow, place, data.draw(json_values | links)))


def test_the_sound_workflow_is_sound() -> None:
    for workflow in (sound(), as_editor_file(sound(), NODES).saved("1.0")):
        judged = answer(workflow)
        assert isinstance(judged, Validation) and judged.faults == () and judged.good_outputs == ("6",)


# --- as much as can be sent


def many(make: Callable[[int], Mapping[str, Any]]) -> dict[str, Any]:
    return {str(number): make(number) for number in range(MAX_NODES)}


def in_circles(number: int) -> dict[str, Any]:
    def other(step: int) -> list[Any]:
        return [str((number * step + 1) % MAX_NODES), 0]

    if number % 2:
        return {"class_type": "PreviewImage", "inputs": {"images": other(7)}}
    values = {"seed": -1, "steps": 0, "cfg": "x", "sampler_name": "eulr", "scheduler": "nope", "denoise": 5}
    sockets = ("model", "positive", "negative", "latent_image")
    return {"class_type": "KSampler", "inputs": {**values, **{name: other(n + 1) for n, name in enumerate(sockets)}}}


def fan(number: int) -> dict[str, Any]:
    """Half of them a chain of faults, the other half outputs that need all of it."""
    if number >= MAX_NODES // 2:
        return {"class_type": "PreviewImage", "inputs": {"images": ["0", 0]}}
    inputs = {"image": [str(number + 1), 0], "upscale_method": "x", "scale_by": -1}
    return {"class_type": "ImageScaleBy", "inputs": inputs}


GIANTS: Mapping[str, Callable[[], Any]] = {
    "10,000 nodes": lambda: {str(number): {"class_type": "KSampler", "inputs": {}} for number in range(10_000)},
    "10,000 nodes of the editor": lambda: {
        "nodes": [{"id": n, "type": "KSampler"} for n in range(10_000)],
        "links": [],
    },
    "unknown classes": lambda: many(lambda n: {"class_type": f"NoSuchNode{n}", "inputs": {}}),
    "links into nowhere": lambda: many(lambda n: {"class_type": "PreviewImage", "inputs": {"images": [f"no {n}", 0]}}),
    "misspelt fields": lambda: many(
        lambda n: {"class_type": "SaveImage", "inputs": {f"imagess{m}": m for m in range(100)}}
    ),
    "circles": lambda: many(in_circles),
    "a chain into a circle": lambda: {
        **many(lambda n: {"class_type": "ImageInvert", "inputs": {"image": [str(n // 2), 0]}}),
        "0": {"class_type": "PreviewImage", "inputs": {"images": [str(MAX_NODES - 1), 0]}},
    },
    "faults that all outputs need": lambda: many(fan),
    "reroutes in a row": lambda: {
        "nodes": [
            {"id": n, "type": "Reroute", "inputs": [{"name": "", "type": "*", "link": n}], "outputs": [{"type": "*"}]}
            for n in range(MAX_NODES - 1)
        ]
        + [{"id": -1, "type": "PreviewImage", "inputs": [{"name": "images", "type": "IMAGE", "link": MAX_NODES - 1}]}],
        "links": [[n, n - 1, 0, n, 0, "*"] for n in range(MAX_NODES)],
    },
    "braces in braces": lambda: {
        "nodes": [{"id": 1, "type": "CLIPTextEncode", "widgets_values": ["{a|" * 30_000 + "}" * 30_000]}],
        "links": [],
    },
    "nested lists": lambda: {"1": {"class_type": "KSampler", "inputs": {"steps": json.loads("[" * 900 + "]" * 900)}}},
}


@pytest.mark.parametrize("name", GIANTS)
def test_giants_are_answered_at_once(name: str) -> None:
    assert answer(GIANTS[name]()).faults
