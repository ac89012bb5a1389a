"""Workflows as ComfyUI's editor saves them become the graph that it would send."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from editor_files import EditorFile, as_editor_file

from atoll.graph.fault import InvalidGraph
from atoll.graph.graph import MAX_NODES, Graph
from atoll.graph.ui_form import is_ui_format
from atoll.graph.ui_format import api_form, graph_from_ui
from atoll.graph.validate import validate_graph
from atoll.nodes.registry import core_registry

NODES = core_registry()
EXAMPLES = Path(__file__).parent.parent.parent / "examples"
NOW = datetime(2026, 3, 4, 5, 6, 7)


def txt2img() -> dict[str, Any]:
    """Its nodes in the order in which the editor keeps them, fields in that of the declaration."""
    return {
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "lagoon"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 128, "batch_size": 2}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red apple", "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["4", 1]}},
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["4", 0], "seed": 7, "steps": 20, "cfg": 7.5, "sampler_name": "euler", "scheduler": "karras",
                "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0], "denoise": 0.9,
            },
            "_meta": {"title": "My sampler"},
        },
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "x"}},
    }  # fmt: skip


def read(workflow: dict[str, Any]) -> dict[str, Any]:
    """As it comes from a file, through JSON."""
    return graph_from_ui(json.loads(json.dumps(workflow)), NODES, now=NOW).to_api()


def saved(change: Callable[[EditorFile], None] | None = None, **more: Any) -> dict[str, Any]:
    file = as_editor_file(txt2img(), NODES)
    if change is not None:
        change(file)
    return file.saved(**more)


def node_of(file: EditorFile | dict[str, Any], node_id: int) -> dict[str, Any]:
    nodes = file["nodes"] if isinstance(file, dict) else file.nodes
    return next(node for node in nodes if node["id"] == node_id)


def refusal(workflow: dict[str, Any]) -> str:
    with pytest.raises(InvalidGraph) as refused:
        read(workflow)
    assert len(refused.value.message) < 2000
    return refused.value.message


# --- the way there and back


@pytest.mark.parametrize("version", ["0.4", "1.0"])
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("name", ["txt2img", "img2img", "inpaint", "hires"])
def test_what_the_editor_would_save_of_an_example_is_that_example(name: str, named: bool, version: Any) -> None:
    api = json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))
    workflow = as_editor_file(api, NODES, named=named).saved(version)
    assert is_ui_format(workflow) and not is_ui_format(api)
    assert Graph.from_api(read(workflow)) == Graph.from_api(api)
    assert api_form(workflow, NODES) == read(workflow)


def test_the_api_form_is_left_as_it_is() -> None:
    for anything in (txt2img(), {}, {"nodes": {"class_type": "A"}}, [1], "text", None):
        assert api_form(anything, NODES) is anything


def test_ids_may_be_texts_and_links_objects_in_one_file() -> None:
    workflow = saved(version="1.0")
    for node in workflow["nodes"]:
        node["id"] = f"n{node['id']}"
    for link in workflow["links"]:
        link["origin_id"], link["target_id"] = f"n{link['origin_id']}", f"n{link['target_id']}"
    assert read(workflow)["n3"]["inputs"]["model"] == ["n4", 0]


# --- values


def test_values_that_an_old_file_lacks_are_those_of_a_new_node() -> None:
    def as_of_old(file: EditorFile) -> None:
        node_of(file, 3)["widgets_values"] = [7, True, 20]  # the oldest files say true for "randomize"
        node_of(file, 9)["widgets_values"] = None

    inputs = read(saved(as_of_old))["3"]["inputs"]
    assert (inputs["seed"], inputs["steps"], inputs["cfg"], inputs["denoise"]) == (7, 20, 8.0, 1.0)
    assert (inputs["sampler_name"], inputs["scheduler"]) == ("euler", "simple")


def test_values_may_be_an_object_by_name_and_lack_what_comes_after_a_seed() -> None:
    def by_name(file: EditorFile) -> None:
        node_of(file, 3)["widgets_values"] = {"seed": 1, "steps": 2, "cfg": 3.0, "denoise": 0.5}
        node_of(file, 5)["widgets_values"] = {"width": 8, "videopreview": {"hidden": True}}

    api = read(saved(by_name))
    assert [api["3"]["inputs"][name] for name in ("seed", "steps", "cfg", "denoise")] == [1, 2, 3.0, 0.5]
    assert api["5"]["inputs"] == {"width": 8, "height": 512, "batch_size": 1}

    bare = saved(lambda file: node_of(file, 3).update(widgets_values=[7, 20, 7.5, "euler", "karras", 0.9]))
    assert read(bare)["3"] == txt2img()["3"]


def test_the_upload_button_is_no_value() -> None:
    file = EditorFile()
    outputs = [{"name": "MASK", "type": "MASK"}]
    file.node(1, "LoadImageMask", widgets_values=["cat.png", "red", "image"], outputs=outputs)
    assert read(file.saved())["1"]["inputs"] == {"image": "cat.png", "channel": "red"}


def test_a_prompt_in_braces_is_one_of_them_and_always_the_same() -> None:
    def with_text(text: str) -> dict[str, Any]:
        return saved(lambda file: node_of(file, 6).update(widgets_values=[text]))

    texts = {
        read(with_text(f"a {{red|green|{{light |dark }}blue}} apple {n}"))["6"]["inputs"]["text"] for n in range(40)
    }
    colours = {text.removeprefix("a ").split(" apple")[0] for text in texts}
    assert colours == {"red", "green", "light blue", "dark blue"}
    assert read(with_text("{a|b|c|d} x")) == read(with_text("{a|b|c|d} x"))
    assert read(with_text("a /* not this */ b // nor this"))["6"]["inputs"]["text"] == "a  b "
    assert read(with_text("a \\{b|c\\} {d"))["6"]["inputs"]["text"] == "a {b|c} {d"


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("%date:yyyy-MM-dd%/x", "2026-03-04/x"),
        ("%date:yy-M-d_hh-mm-ss%", "26-3-4_05-06-07"),
        ("%KSampler.seed%-%My sampler.steps%", "7-20"),
        ("%CheckpointLoaderSimple.ckpt_name%", "lagoon"),
        ("%width%x%height% %year% %Nobody.seed% 100%", "%width%x%height% %year% %Nobody.seed% 100%"),
    ],
)
def test_a_prefix_is_filled_in_as_the_editor_does_it(prefix: str, expected: str) -> None:
    api = read(saved(lambda file: node_of(file, 9).update(widgets_values=[prefix])))
    assert api["9"]["inputs"]["filename_prefix"] == expected


# --- what only the editor knows


def test_reroutes_and_notes_leave_nothing_behind() -> None:
    def reroute(file: EditorFile) -> None:
        """Two reroutes, one after the other, between the loader and what reads its text encoder."""
        for number in (20, 21):
            file.node(number, "Reroute", inputs=[{"name": "", "type": "*"}], outputs=[{"name": "", "type": "CLIP"}])
        file.wire(4, 1, 20, 0)
        file.wire(20, 0, 21, 0)
        for node_id in (6, 7):
            file.wire(21, 0, node_id, 0)
        file.node(22, "Note", widgets_values=["Remember"])
        file.node(23, "MarkdownNote", widgets_values=["# Remember"], title="Read me")
        file.node(24, "Fast Groups Bypasser (rgthree)", outputs=[{"name": "OPT_CONNECTION", "type": "*"}])

    assert read(saved(reroute)) == txt2img()


def test_links_without_a_line_are_followed_by_their_name() -> None:
    def by_name(file: EditorFile) -> None:
        file.node(20, "SetNode", inputs=[{"name": "VAE", "type": "VAE"}], widgets_values=["the vae"])
        file.node(21, "GetNode", outputs=[{"name": "VAE", "type": "VAE"}], widgets_values=["the vae"])
        file.wire(4, 2, 20, 0)
        file.wire(21, 0, 8, 1)

    assert read(saved(by_name)) == txt2img()


@pytest.mark.parametrize(
    ("type_", "parts"),
    [
        ("PrimitiveNode", {"widgets_values": [1234, "randomize"]}),
        ("PrimitiveNode", {"widgets_values": [1, "fixed"], "widgets_values_named": {"value": 1234}}),
        ("PrimitiveInt", {"widgets_values": [1234, "fixed"]}),
    ],
)
def test_a_primitive_is_the_value_typed_into_it(type_: str, parts: dict[str, Any]) -> None:
    def primitive(file: EditorFile) -> None:
        file.node(20, type_, outputs=[{"name": "INT", "type": "INT"}], **parts)
        sampler = node_of(file, 3)
        sampler["inputs"].append({"name": "seed", "type": "INT", "link": None, "widget": {"name": "seed"}})
        file.wire(20, 0, 3, len(sampler["inputs"]) - 1)

    assert read(saved(primitive))["3"]["inputs"] == txt2img()["3"]["inputs"] | {"seed": 1234}


def test_a_field_turned_into_a_socket_keeps_its_value_while_nothing_is_linked() -> None:
    def converted(file: EditorFile) -> None:
        node_of(file, 3)["inputs"].append({"name": "cfg", "type": "FLOAT", "link": None, "widget": {"name": "cfg"}})

    assert read(saved(converted)) == txt2img()


def test_a_bypassed_node_passes_on_what_comes_in_beside_each_output() -> None:
    """SetLatentNoiseMask between the empty latents and the sampler; a decoder and encoder of the same type in a row."""

    def bypassed(file: EditorFile) -> None:
        file.node(
            20, "SetLatentNoiseMask", mode=4,
            inputs=[{"name": "mask", "type": "MASK"}, {"name": "samples", "type": "LATENT"}],
            outputs=[{"name": "LATENT", "type": "LATENT"}],
        )  # fmt: skip
        file.wire(5, 0, 20, 1)
        file.wire(20, 0, 3, 3)

    assert read(saved(bypassed)) == txt2img()


def test_of_two_inputs_of_one_type_the_one_beside_the_output_is_passed_on() -> None:
    def bypassed(file: EditorFile) -> None:
        both = [{"name": name, "type": "CONDITIONING"} for name in ("positive", "negative")]
        file.node(20, "ControlNetApplyAdvanced", mode=4, inputs=both, outputs=[dict(item) for item in both])
        file.wire(6, 0, 20, 0)
        file.wire(7, 0, 20, 1)
        file.wire(20, 0, 3, 1)
        file.wire(20, 1, 3, 2)

    assert read(saved(bypassed)) == txt2img()


def second_output(file: EditorFile) -> None:
    decoder = [{"name": "samples", "type": "LATENT"}, {"name": "vae", "type": "VAE"}]
    file.node(20, "VAEDecode", inputs=decoder, outputs=[{"name": "IMAGE", "type": "IMAGE"}])
    file.node(21, "PreviewImage", inputs=[{"name": "images", "type": "IMAGE"}])
    file.wire(5, 0, 20, 0)
    file.wire(4, 2, 20, 1)
    file.wire(20, 0, 21, 0)


@pytest.mark.parametrize("mode", [2, 4])
def test_what_depends_on_a_muted_node_does_not_run_and_the_rest_does(mode: int) -> None:
    def muted(file: EditorFile) -> None:
        second_output(file)
        node_of(file, 20)["mode"] = mode  # bypassed, it has no picture to pass on

    assert read(saved(muted)) == txt2img()


def test_a_muted_output_is_left_out_and_its_unread_inputs_hurt_nobody() -> None:
    def muted(file: EditorFile) -> None:
        second_output(file)
        node_of(file, 21)["mode"] = 2

    api = read(saved(muted))
    assert "21" not in api and "20" in api
    assert {name: entry for name, entry in api.items() if name != "20"} == txt2img()


def test_an_input_that_may_be_absent_is_absent_when_its_source_is_muted() -> None:
    def muted(file: EditorFile) -> None:
        inputs = [{"name": name, "type": type_} for name, type_ in (("images", "IMAGE"), ("stray", "MASK"))]
        file.node(20, "SolidThing", mode=2, outputs=[{"name": "MASK", "type": "MASK"}])
        node_of(file, 9)["inputs"] = inputs
        file.wire(8, 0, 9, 0)
        file.wire(20, 0, 9, 1)

    assert read(saved(muted)) == txt2img()


def test_nothing_left_to_run_is_told_with_its_cause() -> None:
    said = refusal(saved(lambda file: node_of(file, 3).update(mode=2)))
    assert said == (
        'Node 9 "Save Image" can\'t run, nor can any other output: samples comes from node 3 "My sampler", which is '
        "muted. Unmute what it needs."
    )
    said = refusal(saved(lambda file: node_of(file, 8).update(mode=4)))
    assert "images comes from node 8" in said and "bypassed and has nothing of that type" in said


# --- subgraphs


def sampling_subgraph() -> dict[str, Any]:
    """A sampler and a decoder; the seed and the decoder's VAE come from outside, twice used or not."""
    file = EditorFile()
    latents = as_editor_file(txt2img(), NODES)
    sampler, decoder = node_of(latents, 3), node_of(latents, 8)
    for node in (sampler, decoder):
        node["inputs"] = [{**item, "link": None} for item in node["inputs"]]
        node["outputs"] = [{**item, "links": []} for item in node["outputs"]]
        file.nodes.append(node)
    sampler["inputs"].append({"name": "seed", "type": "INT", "link": None, "widget": {"name": "seed"}})
    file.wire(-10, 0, 3, 0)
    file.wire(-10, 1, 3, 1)
    file.wire(-10, 2, 3, 2)
    file.wire(-10, 3, 3, 3)
    file.wire(-10, 4, 8, 1)
    file.wire(-10, 5, 3, 4)
    file.wire(3, 0, 8, 0)
    file.wire(8, 0, -20, 0)
    ports = [("model", "MODEL"), ("positive", "CONDITIONING"), ("negative", "CONDITIONING")]
    ports += [("latent_image", "LATENT"), ("vae", "VAE"), ("seed", "INT")]
    return file.as_subgraph("sampling", ports, [("IMAGE", "IMAGE")])


def with_subgraph(**parts: Any) -> dict[str, Any]:
    """txt2img with sampler and decoder behind node 12."""
    definition = sampling_subgraph()
    file = as_editor_file({key: txt2img()[key] for key in ("4", "5", "6", "7")}, NODES)
    file.node(9, "SaveImage", inputs=[{"name": "images", "type": "IMAGE"}], widgets_values=["x"])
    inputs = [{"name": port["name"], "type": port["type"]} for port in definition["inputs"]]
    inputs[-1]["widget"] = {"name": "seed"}
    outputs = [{"name": "IMAGE", "type": "IMAGE"}]
    file.node(12, "sampling", **{"inputs": inputs, "outputs": outputs, **parts})
    for slot, (source, output) in enumerate([(4, 0), (6, 0), (7, 0), (5, 0), (4, 2)]):
        file.wire(source, output, 12, slot)
    file.wire(12, 0, 9, 0)
    return file.saved(definitions={"subgraphs": [definition]})


def unfolded(seed: int) -> dict[str, Any]:
    api = txt2img()
    sampler, decoder = api.pop("3"), api.pop("8")
    sampler["inputs"]["seed"] = seed
    decoder["inputs"]["samples"] = ["12:3", 0]
    api["9"]["inputs"]["images"] = ["12:8", 0]
    return {**api, "12:3": sampler, "12:8": decoder}


@pytest.mark.parametrize(
    ("parts", "seed"),
    [
        ({}, 7),  # the value inside holds
        ({"widgets_values": [99]}, 99),
        ({"widgets_values": [99], "properties": {"proxyWidgets": [["-1", "seed"]]}}, 99),
        ({"widgets_values": [None, 99], "properties": {"proxyWidgets": [["3", "steps"], ["-1", "seed"]]}}, 99),
        ({"widgets_values": [], "properties": {"proxyWidgets": [["3", "seed"]]}}, 7),
        ({"widgets_values": [1], "widgets_values_named": {"seed": 99}}, 99),
    ],
)
def test_a_subgraph_is_unfolded_and_its_values_go_in(parts: dict[str, Any], seed: int) -> None:
    api = read(with_subgraph(**parts))
    assert api == unfolded(seed)


def test_subgraphs_lie_in_each_other() -> None:
    """The whole of the sampling behind one more border, and that one used twice."""
    inner = sampling_subgraph()
    file = EditorFile()
    names = [(port["name"], port["type"]) for port in inner["inputs"]]
    inputs = [{"name": name, "type": type_} for name, type_ in names]
    inputs[-1]["widget"] = {"name": "seed"}
    file.node(1, "sampling", inputs=inputs, outputs=[{"name": "IMAGE", "type": "IMAGE"}], widgets_values=[55])
    for slot in range(5):
        file.wire(-10, slot, 1, slot)
    file.wire(1, 0, -20, 0)
    outer = file.as_subgraph("outer", names[:5], [("IMAGE", "IMAGE")])

    workflow = with_subgraph(type="outer")
    node_of(workflow, 12)["inputs"].pop()
    workflow["definitions"]["subgraphs"] = [outer, inner]
    api = read(workflow)
    assert api["12:1:3"]["inputs"]["seed"] == 55
    assert api["9"]["inputs"]["images"] == ["12:1:8", 0]
    assert api["12:1:8"]["inputs"] == {"samples": ["12:1:3", 0], "vae": ["4", 2]}

    outer["definitions"] = {"subgraphs": [workflow["definitions"]["subgraphs"].pop()]}  # as some files have it
    assert read(workflow) == api


def test_a_muted_subgraph_does_not_run_and_a_bypassed_one_passes_on() -> None:
    assert 'node 12 "sampling", which is muted' in refusal(with_subgraph(mode=2))
    assert "has nothing of that type to pass on" in refusal(with_subgraph(mode=4))
    workflow = with_subgraph(mode=4)
    file = as_editor_file(txt2img(), NODES)
    picture = {"name": "picture", "type": "IMAGE", "link": 90}
    node_of(workflow, 12)["inputs"] = [picture]
    workflow["nodes"] += [node_of(file, 3), node_of(file, 8)]
    workflow["nodes"][-1]["inputs"][0]["link"], workflow["nodes"][-1]["inputs"][1]["link"] = 91, 92
    workflow["nodes"][-2]["inputs"] = [{**item, "link": 100 + n} for n, item in enumerate(node_of(file, 3)["inputs"])]
    workflow["links"] += [[90, 8, 0, 12, 0, "IMAGE"], [91, 3, 0, 8, 0, "LATENT"], [92, 4, 2, 8, 1, "VAE"]]
    sources = [(4, 0), (6, 0), (7, 0), (5, 0)]
    workflow["links"] += [[100 + n, node, slot, 3, n, "*"] for n, (node, slot) in enumerate(sources)]
    assert read(workflow)["9"]["inputs"]["images"] == ["8", 0]


def test_a_subgraph_that_contains_itself_is_refused() -> None:
    workflow = with_subgraph()
    workflow["definitions"]["subgraphs"][0]["nodes"].append({"id": 5, "type": "sampling"})
    assert "contains itself" in refusal(workflow)


def test_subgraphs_that_multiply_are_refused_before_they_fill_the_memory() -> None:
    workflow: dict[str, Any] = {"nodes": [{"id": 1, "type": "s0"}], "links": [], "definitions": {"subgraphs": []}}
    for level in range(12):
        nodes = [{"id": number, "type": f"s{level + 1}"} for number in range(10)]
        workflow["definitions"]["subgraphs"].append({"id": f"s{level}", "nodes": nodes, "links": []})
    assert f"more than the {MAX_NODES} nodes" in refusal(workflow)


def test_a_group_node_is_unfolded() -> None:
    """Sampler and decoder in one node of the editor's older kind, their values in a row."""
    sampler, decoder = node_of(as_editor_file(txt2img(), NODES), 3), node_of(as_editor_file(txt2img(), NODES), 8)
    group = {"nodes": [sampler, decoder], "links": [[0, 0, 1, 0, 3, "LATENT"]], "external": []}
    file = as_editor_file({key: txt2img()[key] for key in ("4", "5", "6", "7")}, NODES)
    file.node(9, "SaveImage", inputs=[{"name": "images", "type": "IMAGE"}], widgets_values=["x"])
    names = [("model", "MODEL"), ("positive", "CONDITIONING"), ("negative", "CONDITIONING")]
    names += [("latent_image", "LATENT"), ("VAEDecode vae", "VAE")]
    inputs = [{"name": name, "type": type_} for name, type_ in names]
    values = [99, "fixed", *sampler["widgets_values"][2:]]
    outputs = [{"name": "IMAGE", "type": "IMAGE"}]
    file.node(12, "workflow>both", inputs=inputs, outputs=outputs, widgets_values=values)
    for slot, (source, output) in enumerate([(4, 0), (6, 0), (7, 0), (5, 0), (4, 2)]):
        file.wire(source, output, 12, slot)
    file.wire(12, 0, 9, 0)
    workflow = file.saved(extra={"groupNodes": {"both": group}})
    renamed = json.dumps(unfolded(99)).replace("12:3", "12:0").replace("12:8", "12:1")
    assert read(workflow) == json.loads(renamed)

    node_of(workflow, 12)["inputs"].pop()
    assert "its sockets are not those" in refusal(workflow)
    workflow["extra"] = {}
    assert "is not in the file" in refusal(workflow)


# --- what is wrong with a file


def test_an_unknown_node_is_named_with_its_title_and_where_it_comes_from() -> None:
    def unknown(file: EditorFile) -> None:
        properties = {"cnr_id": "comfyui-impact-pack", "Node name for S&R": "FaceDetailer"}
        picture = [{"name": "image", "type": "IMAGE"}]
        file.node(30, "FaceDetailer", title="Better face", properties=properties, inputs=picture, outputs=picture[:])
        file.wire(8, 0, 30, 0)
        file.wire(30, 0, 9, 0)

    api = read(saved(unknown))
    assert api["30"]["inputs"] == {"image": ["8", 0]}

    class NoFiles:
        def names(self, kind: str) -> list[str]:
            return ["lagoon"]

        def has(self, kind: str, name: str) -> bool:
            return False

    (fault,) = validate_graph(api, NODES, NoFiles()).faults
    assert fault.sentence == (
        'Node 30 "Better face" is of class "FaceDetailer", which Atoll does not have. It belongs to the custom nodes '
        '"comfyui-impact-pack".'
    )


deep: Any = 1
for _ in range(100_000):
    deep = [deep]


@pytest.mark.parametrize(
    ("workflow", "words"),
    [
        ({"nodes": [3]}, "One of the nodes is a number"),
        ({"nodes": [{"type": "A"}]}, "has no id"),
        ({"nodes": [{"id": True, "type": "A"}]}, "has no id"),
        ({"nodes": [{"id": 1}]}, 'Node 1 has no "type"'),
        ({"nodes": [{"id": 1, "type": "A"}, {"id": 1, "type": "B"}]}, "two nodes have the id 1"),
        ({"nodes": [], "links": [[1, 2]]}, "the link a list can't be read"),
        ({"nodes": [], "links": [{"id": 1}]}, "the link a JSON object can't be read"),
        ({"nodes": [], "links": [[1, 2, "x", 3, 0, "A"]]}, "can't be read"),
        ({"nodes": [], "links": ["x"]}, "the link 'x' can't be read"),
        ({"nodes": [], "definitions": {"subgraphs": [{"id": 5}]}}, "A subgraph's id is a number"),
        ({"nodes": [{"id": 1, "type": "A", "widgets_values": [deep]}]}, "levels deep"),
        ({"nodes": [{"id": 1, "type": "A", "widgets_values": [float("nan")]}]}, "nan"),
        ({"nodes": [{"id": n, "type": "A"} for n in range(10_000)]}, "has 10000 nodes; at most"),
    ],
)
def test_a_file_that_is_broken_is_refused_in_words(workflow: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidGraph) as refused:
        graph_from_ui(workflow, NODES)
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w["links"].pop(0), "which is not in the file"),
        (lambda w: w["nodes"].remove(node_of(w, 5)), "latent_image is linked to node 5, which is not in the workflow"),
    ],
)
def test_a_wire_that_leads_nowhere_is_told_where_it_matters(change: Callable[[Any], Any], words: str) -> None:
    workflow = saved()
    change(workflow)
    assert words in refusal(workflow)
    second = saved(second_output)
    node_of(second, 9)["mode"] = 2
    change(second)  # now only the second output runs, which needs the latents and the VAE
    if words.endswith("file"):
        assert "21" in read(second)
    else:
        assert "samples is linked to node 5" in refusal(second)


def test_reroutes_in_a_circle_are_refused() -> None:
    def circle(file: EditorFile) -> None:
        for number in (20, 21):
            file.node(number, "Reroute", inputs=[{"name": "", "type": "*"}], outputs=[{"name": "", "type": "*"}])
        file.wire(20, 0, 21, 0)
        file.wire(21, 0, 20, 0)
        file.wire(21, 0, 8, 1)

    assert "runs in a circle" in refusal(saved(circle))
