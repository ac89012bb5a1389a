"""The API form of a workflow, read and written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.graph.fault import InvalidGraph
from atoll.graph.graph import MAX_NODES, Graph, Link

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)
nodes = st.fixed_dictionaries({"class_type": names, "inputs": st.dictionaries(names, values, max_size=4)})


@given(st.dictionaries(names, nodes, max_size=5))
def test_reading_and_writing_give_the_same_workflow(api: dict[str, Any]) -> None:
    assert Graph.from_api(api).to_api() == api
    assert Graph.from_api(Graph.from_api(api).to_api()) == Graph.from_api(api)


def test_a_reference_means_its_first_output_and_an_index_any_other() -> None:
    graph = Graph()
    checkpoint = graph.add("CheckpointLoaderSimple", ckpt_name="lagoon")
    graph.add("Reader", model=checkpoint, clip=checkpoint[1], size=3)
    assert graph.to_api()["2"] == {"class_type": "Reader", "inputs": {"model": ["1", 0], "clip": ["1", 1], "size": 3}}
    assert dict(graph.nodes["2"].links()) == {"model": Link("1", 0), "clip": Link("1", 1)}


def test_new_ids_do_not_collide_with_ids_that_were_read() -> None:
    graph = Graph.from_api({"7": {"class_type": "A", "inputs": {}}, "title": {"class_type": "B", "inputs": {}}})
    assert graph.add("C").node_id == "8"


def test_the_written_form_shares_nothing_with_the_graph() -> None:
    graph = Graph()
    graph.add("A", options={"deep": [1]})
    graph.to_api()["1"]["inputs"]["options"]["deep"].append(2)
    assert graph.to_api()["1"]["inputs"]["options"] == {"deep": [1]}


def test_titles_are_kept() -> None:
    api = {"1": {"class_type": "A", "inputs": {}, "_meta": {"title": "最初"}}}
    assert Graph.from_api(api).to_api() == api


deep: Any = 1
for _ in range(100_000):
    deep = [deep]


@pytest.mark.parametrize(
    ("api", "words"),
    [
        ([1, 2], "not a list"),
        ("graph", "not a text"),
        (3, "not a number"),
        ({"1": 5}, "Node 1 is a number"),
        ({"1": {"inputs": {}}}, 'Node 1 has no "class_type"'),
        ({"1": {"class_type": 5}}, 'Node 1 has no "class_type"'),
        ({"1": {"type": "KSampler"}}, "Export the workflow in API form"),
        ({"1": {"class_type": "A", "inputs": [1]}}, "must be JSON objects"),
        ({"1": {"class_type": "A", "inputs": {"x": deep}}}, "levels deep"),
        ({"1": {"class_type": "A", "inputs": {"x": float("nan")}}}, "x holds nan, which is not a finite number"),
        ({"1": {"class_type": "A", "inputs": {"x": [{"y": float("inf")}]}}}, "x holds inf"),
        ({"1": {"class_type": "A", "inputs": {"x": "a\0b"}}}, "NUL"),
        ({"1": {"class_type": "A", "inputs": {"x": "\ud800"}}}, "surrogate"),
        ({"1": {"class_type": "A", "inputs": {"x": object()}}}, "which JSON does not have"),
        ({1: {"class_type": "A"}}, "Node id 1 is a number"),
        ({str(number): {"class_type": "A"} for number in range(MAX_NODES + 1)}, "at most 2000"),
    ],
)
def test_what_is_no_workflow_is_refused_in_words(api: object, words: str) -> None:
    with pytest.raises(InvalidGraph) as refusal:
        Graph.from_api(api)
    assert words in refusal.value.message
    assert refusal.value.code == "invalid_graph"


def test_every_fault_of_form_is_reported_at_once() -> None:
    with pytest.raises(InvalidGraph) as refusal:
        Graph.from_api({"1": 5, "2": {}, "3": {"class_type": "A", "inputs": {"x": float("nan"), "y": "\0"}}})
    assert [(fault.node_id, fault.field) for fault in refusal.value.faults] == [
        ("1", None),
        ("2", None),
        ("3", "x"),
        ("3", "y"),
    ]
