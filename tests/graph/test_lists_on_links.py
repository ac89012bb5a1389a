"""A list on a link: later nodes run once for each value, unless they take lists."""

from __future__ import annotations

from typing import Annotated, Any

from atoll.graph.execute import Many, ResultCache, run_graph
from atoll.graph.graph import Graph
from atoll.graph.node import Registry, Socket, node

Number = Annotated[int, Socket("NUMBER")]
TOLD: list[Any] = []


@node("Count", title="Count", category="test", gives_lists=True)
def count(*, to: int = 3) -> Number:
    """0, 1 ... as a list."""
    return list(range(to))  # type: ignore[return-value]


@node("Add", title="Add", category="test")
def add(first: Number, second: Number, *, more: int = 0) -> Number:
    """One number."""
    return first + second + more


@node("Sum", title="Sum", category="test", takes_lists=True)
def add_all(numbers: Number, *, times: int = 1) -> Number:
    """One number of all."""
    return sum(numbers) * times[0]  # type: ignore[call-overload,index,no-any-return]


@node("Tell", title="Tell", category="test", is_output=True)
def tell(number: Number) -> None:
    """Remember a number."""
    TOLD.append(number)


REGISTRY = Registry.of(count, add, add_all, tell)


class Context:
    node_id = ""


def told(graph: Graph, cache: ResultCache | None = None) -> list[Any]:
    TOLD.clear()
    run_graph(graph, REGISTRY, cache or ResultCache(1000, lambda outputs: 1), Context())  # type: ignore[arg-type]
    return list(TOLD)


def test_a_node_runs_for_each_and_a_shorter_list_repeats_its_last() -> None:
    graph = Graph()
    graph.add("Tell", number=graph.add("Add", first=graph.add("Count", to=4), second=graph.add("Count", to=2), more=10))
    assert told(graph) == [10, 12, 13, 14]


def test_a_node_that_takes_lists_gets_all_at_once() -> None:
    graph = Graph()
    graph.add("Tell", number=graph.add("Sum", numbers=graph.add("Count", to=4), times=2))
    assert told(graph) == [12]


def test_a_list_is_remembered_as_a_list() -> None:
    cache = ResultCache(1000, lambda outputs: 1)
    graph = Graph()
    numbers = graph.add("Count", to=2)
    graph.add("Tell", number=numbers)
    assert told(graph, cache) == told(graph, cache) == [0, 1]
    assert Many((0, 1)) == Many((0, 1))
