"""Running a graph: only what its outputs need, and of that only what has not been computed before."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from atoll.graph.cache_key import cache_keys
from atoll.graph.graph import Graph, Link
from atoll.graph.node import NodeContext, NodeSpec, Registry
from atoll.graph.order import execution_order, output_nodes, read_links

NodeState = Literal["cached", "running", "done"]
OnNode = Callable[[str, NodeState], None]


@dataclass(frozen=True)
class Many:
    """A list on a link. A node that does not take lists runs once for each value; a shorter list repeats its last."""

    values: tuple[Any, ...]


def ignore_node(node_id: str, state: NodeState) -> None:
    """For callers that want no news."""


class ResultCache:
    """Results of nodes by cache key; the least recently used leave when `max_bytes` is passed.

    sizeof: a node's tuple of outputs -> bytes; the graph room knows no tensors, so the caller measures.
    """

    def __init__(self, max_bytes: int, sizeof: Callable[[Any], int]) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._sizeof = sizeof
        self._entries: OrderedDict[str, tuple[tuple[Any, ...], int]] = OrderedDict()

    def get(self, key: str) -> tuple[Any, ...] | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: str, outputs: tuple[Any, ...]) -> None:
        size = self._sizeof(outputs)
        if size > self.max_bytes:
            return
        if key in self._entries:
            self.used_bytes -= self._entries.pop(key)[1]
        self._entries[key] = (outputs, size)
        self.used_bytes += size
        while self.used_bytes > self.max_bytes:
            _, (_, freed) = self._entries.popitem(last=False)
            self.used_bytes -= freed

    def clear(self) -> None:
        self._entries.clear()
        self.used_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)


def run_graph(
    graph: Graph, registry: Registry, cache: ResultCache, context: NodeContext, on_node: OnNode = ignore_node
) -> None:
    """Run a valid graph's output nodes and what they need; results leave through the context.

    A result in the cache stands for its node and everything only that node needed. Output nodes always run.
    `context.node_id` names the running node, also while an error of it rises through here.

    Args:
        on_node: told (node id, "cached" | "running" | "done"); it may raise JobCancelled.
    Raises: whatever a node raises.
    """
    keys = cache_keys(graph, registry, context)
    results: dict[str, tuple[Any, ...]] = {}
    to_run: set[str] = set()
    pending = output_nodes(graph, registry)
    while pending:
        node_id = pending.pop()
        if node_id in to_run or node_id in results:
            continue
        cached = cache.get(keys[node_id]) if registry[graph.nodes[node_id].class_type].cached else None
        if cached is not None:
            results[node_id] = cached
        else:
            to_run.add(node_id)
            pending += [link.node_id for _, link in read_links(graph, registry, node_id)]
    order = [node_id for node_id in execution_order(graph, registry) if node_id in to_run or node_id in results]
    for node_id in order:
        if node_id in results:
            on_node(node_id, "cached")

    readers_left: dict[str, int] = {}
    for node_id in to_run:
        for _, link in read_links(graph, registry, node_id):
            readers_left[link.node_id] = readers_left.get(link.node_id, 0) + 1
    for node_id in order:
        if node_id not in to_run:
            continue
        spec = registry[graph.nodes[node_id].class_type]
        context.node_id = node_id
        on_node(node_id, "running")
        outputs = _run_node(graph, registry, node_id, results, context)
        if spec.cached:
            cache.put(keys[node_id], outputs)
        results[node_id] = outputs
        for _, link in read_links(graph, registry, node_id):
            readers_left[link.node_id] -= 1
            if not readers_left[link.node_id]:
                results.pop(link.node_id, None)  # a big picture need not live until the job ends
        on_node(node_id, "done")


def _run_node(
    graph: Graph, registry: Registry, node_id: str, results: dict[str, tuple[Any, ...]], context: NodeContext
) -> tuple[Any, ...]:
    node = graph.nodes[node_id]
    spec = registry[node.class_type]
    arguments: dict[str, Any] = {}
    for input_spec in spec.inputs:
        if input_spec.name in node.inputs:
            value = node.inputs[input_spec.name]
            arguments[input_spec.name] = results[value.node_id][value.slot] if isinstance(value, Link) else value
    run = partial(spec.function, **{spec.context_parameter: context}) if spec.context_parameter else spec.function
    if spec.takes_lists:
        return _outputs(spec, run(**{name: _as_list(value) for name, value in arguments.items()}))
    lists = [value.values for value in arguments.values() if isinstance(value, Many)]
    if not lists:
        return _outputs(spec, run(**arguments))
    rounds = []
    for turn in range(max(map(len, lists))):
        each = {
            name: value.values[min(turn, len(value.values) - 1)] if isinstance(value, Many) else value
            for name, value in arguments.items()
        }
        rounds.append(_outputs(spec, run(**each)))
    return tuple(Many(tuple(item for one in slot for item in _as_list(one))) for slot in zip(*rounds, strict=True))


def _outputs(spec: NodeSpec, returned: Any) -> tuple[Any, ...]:
    """What a function returned, one value for each output."""
    if not spec.outputs:
        return ()
    values = returned if len(spec.outputs) > 1 else (returned,)
    return tuple(
        Many(tuple(value)) if output.is_list else value for output, value in zip(spec.outputs, values, strict=True)
    )


def _as_list(value: Any) -> list[Any]:
    return list(value.values) if isinstance(value, Many) else [value]
