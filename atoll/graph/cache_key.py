"""A node's cache key: what it is, what it was told, and the keys of what it reads. Never its id, never the clock."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from atoll.graph.graph import Graph, Link
from atoll.graph.node import NodeContext, Registry
from atoll.graph.order import execution_order


def cache_keys(graph: Graph, registry: Registry, context: NodeContext) -> dict[str, str]:
    """The key of every node that the outputs need. The graph must be valid."""
    keys: dict[str, str] = {}
    for node_id in execution_order(graph, registry):
        node = graph.nodes[node_id]
        spec = registry[node.class_type]
        inputs: dict[str, Any] = {}
        for input_spec in spec.inputs:
            if input_spec.name in node.inputs:
                value = node.inputs[input_spec.name]
                linked = isinstance(value, Link)
                inputs[input_spec.name] = {"link": [keys[value.node_id], value.slot]} if linked else {"value": value}
            elif input_spec.required is False:
                inputs[input_spec.name] = {"value": input_spec.default}
        fingerprint = spec.fingerprint(context, node.inputs) if spec.fingerprint else None
        text = json.dumps([node.class_type, spec.version, inputs, fingerprint], sort_keys=True, ensure_ascii=False)
        keys[node_id] = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return keys


def cache_key(graph: Graph, node_id: str, registry: Registry, context: NodeContext) -> str:
    """The key of one node that the outputs need."""
    return cache_keys(graph, registry, context)[node_id]
