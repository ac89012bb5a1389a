"""Which nodes run, in which order, and what is remembered."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Annotated, Any, cast

import pytest

from atoll.errors import JobCancelled
from atoll.graph.cache_key import cache_key
from atoll.graph.execute import ResultCache, run_graph
from atoll.graph.graph import Graph
from atoll.graph.node import NodeContext, Range, Registry, Socket, node
from atoll.graph.order import execution_order

Number = Annotated[int, Socket("NUMBER")]
Pair = tuple[Number, Number]
File = dict[str, str]

ran: list[str] = []
files: File = {}
saved: list[int] = []


def _file_content(context: NodeContext, fields: Mapping[str, Any]) -> str:
    return files[fields["name"]]


@node("Load", title="Load", category="test", cached=False, fingerprint=_file_content)
def load(context: NodeContext, *, name: str) -> Number:
    ran.append(context.node_id)
    return len(files[name])


@node("Add", title="Add", category="test", optional=("other",))
def add(number: Number, context: NodeContext, other: Number = 0, *, more: Annotated[int, Range(0, 99)] = 0) -> Number:
    ran.append(context.node_id)
    return number + other + more


@node("Split", title="Split", category="test")
def split(number: Number, context: NodeContext) -> Pair:
    ran.append(context.node_id)
    return number // 10, number % 10


@node("Fail", title="Fail", category="test")
def fail(number: Number) -> Number:
    raise JobCancelled("stopped")


@node("Save", title="Save", category="test", is_output=True)
def save(number: Number, context: NodeContext) -> None:
    ran.append(context.node_id)
    saved.append(number)


REGISTRY = Registry.of(load, add, split, fail, save)


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()
    saved.clear()
    files.clear()
    files["seven"] = "1234567"


def new_cache(max_bytes: int = 1000) -> ResultCache:
    return ResultCache(max_bytes, lambda outputs: 10)


def new_context() -> NodeContext:
    return cast(NodeContext, SimpleNamespace(node_id=""))


def run(graph: Graph, cache: ResultCache) -> list[str]:
    """The ids of the nodes that ran, in order."""
    ran.clear()
    run_graph(graph, REGISTRY, cache, new_context())
    return list(ran)


def sum_graph(*, name: str = "seven", first: int = 1, second: int = 2, third: int = 3) -> Graph:
    """1 load -> 2 add -> (3 add, 4 add) -> 5 add -> 6 save."""
    graph = Graph()
    loaded = graph.add("Load", name=name)
    base = graph.add("Add", number=loaded, more=first)
    left = graph.add("Add", number=base, more=second)
    right = graph.add("Add", number=base, more=third)
    graph.add("Save", number=graph.add("Add", number=left, other=right, more=0))
    return graph


def test_all_runs_once_and_inputs_run_before_their_readers() -> None:
    assert run(sum_graph(), new_cache()) == ["1", "2", "3", "4", "5", "6"]
    assert saved == [(7 + 1 + 2) + (7 + 1 + 3)]


def test_a_second_run_runs_only_the_output_and_a_changed_field_only_what_reads_it() -> None:
    cache = new_cache()
    run(sum_graph(), cache)
    assert run(sum_graph(), cache) == ["6"]
    assert run(sum_graph(third=4), cache) == ["4", "5", "6"]
    assert run(sum_graph(first=9), cache) == ["1", "2", "3", "4", "5", "6"]
    assert run(sum_graph(), cache) == ["6"]
    assert saved == [21, 21, 22, 37, 21]


def test_a_changed_file_is_noticed_under_the_same_name() -> None:
    cache = new_cache()
    run(sum_graph(), cache)
    files["seven"] = "7654321"
    assert run(sum_graph(), cache) == ["1", "2", "3", "4", "5", "6"]


def test_ids_titles_and_stray_inputs_do_not_count_but_versions_do() -> None:
    cache = new_cache()
    run(sum_graph(), cache)
    api = sum_graph().to_api()
    renamed = {
        f"node {node_id}": {
            "class_type": entry["class_type"],
            "inputs": {
                name: [f"node {value[0]}", value[1]] if isinstance(value, list) else value
                for name, value in entry["inputs"].items()
            }
            | {"stray": 5},
            "_meta": {"title": "mine"},
        }
        for node_id, entry in api.items()
    }
    assert run(Graph.from_api(renamed), cache) == ["node 6"]

    newer = Registry({**REGISTRY.specs, "Add": dataclasses.replace(REGISTRY["Add"], version=2)})
    old, new = (cache_key(sum_graph(), "5", registry, new_context()) for registry in (REGISTRY, newer))
    assert old != new


def test_equal_nodes_within_one_graph_share_a_key() -> None:
    graph = Graph()
    loaded = graph.add("Load", name="seven")
    one, two = graph.add("Add", number=loaded, more=1), graph.add("Add", number=loaded, more=1)
    graph.add("Save", number=graph.add("Add", number=one, other=two))
    keys = [cache_key(graph, node_id, REGISTRY, new_context()) for node_id in ("2", "3", "4")]
    assert keys[0] == keys[1] != keys[2]


def test_an_optional_input_left_out_and_given_its_default_are_one_field() -> None:
    graphs = []
    for extra in ({}, {"other": 0}):
        graph = Graph()
        graph.add("Save", number=graph.add("Add", number=graph.add("Load", name="seven"), more=1, **extra))
        graphs.append(cache_key(graph, "2", REGISTRY, new_context()))
    assert graphs[0] == graphs[1]


def test_each_output_of_a_node_goes_where_its_slot_says() -> None:
    graph = Graph()
    parts = graph.add("Split", number=graph.add("Add", number=graph.add("Load", name="seven"), more=35))
    graph.add("Save", number=parts[1])
    graph.add("Save", number=parts[0])
    assert run(graph, new_cache()) == ["1", "2", "3", "4", "5"]
    assert saved == [2, 4]


def test_what_no_output_needs_does_not_run() -> None:
    graph = sum_graph()
    graph.add("Fail", number=graph.add("Load", name="no such file"))
    assert run(graph, new_cache()) == ["1", "2", "3", "4", "5", "6"]


def test_the_cache_lets_the_least_recently_used_go_by_bytes() -> None:
    cache = ResultCache(25, lambda outputs: outputs[0])
    cache.put("ten", (10,))
    cache.put("eleven", (11,))
    assert cache.get("ten") == (10,)
    cache.put("twelve", (12,))
    assert (cache.get("ten"), cache.get("eleven"), cache.get("twelve")) == ((10,), None, (12,))
    assert cache.used_bytes == 22
    cache.put("giant", (26,))
    assert (len(cache), cache.get("giant")) == (2, None)
    cache.put("ten", (9,))
    assert cache.used_bytes == 21
    cache.clear()
    assert (len(cache), cache.used_bytes) == (0, 0)


def test_results_too_big_for_the_cache_still_reach_their_readers() -> None:
    run(sum_graph(), ResultCache(5, lambda outputs: 10))
    assert saved == [21]


def test_news_tell_what_was_cached_and_what_runs() -> None:
    cache = new_cache()
    run(sum_graph(), cache)
    news: list[tuple[str, str]] = []
    run_graph(sum_graph(third=4), REGISTRY, cache, new_context(), lambda *one: news.append(one))
    assert news == [
        ("2", "cached"), ("3", "cached"), ("4", "running"), ("4", "done"), ("5", "running"), ("5", "done"),
        ("6", "running"), ("6", "done"),
    ]  # fmt: skip


def test_an_error_rises_as_it_is_and_the_context_says_where() -> None:
    graph = Graph()
    graph.add("Save", number=graph.add("Fail", number=graph.add("Load", name="seven")))
    context = new_context()
    with pytest.raises(JobCancelled):
        run_graph(graph, REGISTRY, new_cache(), context)
    assert context.node_id == "2"
    assert saved == []


def test_a_node_can_be_stopped_before_it_starts() -> None:
    def stop_at_three(node_id: str, state: str) -> None:
        if node_id == "3":
            raise JobCancelled("enough")

    with pytest.raises(JobCancelled):
        run_graph(sum_graph(), REGISTRY, new_cache(), new_context(), stop_at_three)
    assert ran == ["1", "2"]


def test_the_order_is_the_same_however_long_the_chain() -> None:
    graph = Graph()
    last = graph.add("Load", name="seven")
    for _ in range(1500):  # deeper than Python's own recursion goes
        last = graph.add("Add", number=last, more=1)
    graph.add("Save", number=last)
    assert execution_order(graph, REGISTRY) == tuple(graph.nodes)
    run(graph, new_cache(10**6))
    assert saved == [1507]
