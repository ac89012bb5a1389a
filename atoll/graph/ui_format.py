"""A workflow as ComfyUI's editor saves it, turned into the API form as the editor does when it queues a job.

What only the editor knows is resolved: notes, reroutes, primitives, muted and bypassed nodes, subgraphs, group nodes,
fields turned into sockets. Node 3 in a subgraph that node 12 stands for becomes 12:3.

What depends on a muted node does not run either: it is left out as long as there is another output. The editor sends
such nodes without the input, which the server then refuses one by one, and runs the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from atoll.graph.fault import GraphFault, InvalidGraph
from atoll.graph.graph import Graph, Link, Node, malformed
from atoll.graph.node import NOTHING, NodeSpec, Registry
from atoll.graph.order import output_nodes, walk_graph
from atoll.graph.ui_form import BYPASSED, MUTED, UiNode, is_ui_format, read_ui_form
from atoll.graph.ui_widgets import as_sent, default_value, widget_values
from atoll.graph.ui_wiring import EDITOR_ONLY, PRIMITIVES, Nothing, Scope, Value, trace, unfold

Gaps = dict[str, Nothing]  # input -> why nothing arrives there


def api_form(workflow: object, registry: Registry) -> Any:
    """A workflow in either form, in API form; what is neither is given back as it is, for `validate_graph` to judge.

    Raises: InvalidGraph, for the editor's form alone.
    """
    if isinstance(workflow, Mapping) and is_ui_format(workflow):
        return graph_from_ui(workflow, registry).to_api()
    return workflow


def graph_from_ui(workflow: Mapping[str, Any], registry: Registry, *, now: datetime | None = None) -> Graph:
    """The graph that the editor would send for a workflow it saved, in the form 0.4 or 1.0.

    Nodes of unknown classes stay in it, with their titles and where they come from, for `validate_graph` to name.

    Args:
        now: for `%date:...%` in the prefix of file names; default is the local time.
    Raises: InvalidGraph with every fault of the form, or if nothing is left to run.
    """
    scopes = unfold(read_ui_form(workflow))
    time = now or datetime.now()
    nodes: dict[str, Node] = {}
    gaps: dict[str, Gaps] = {}
    for scope in scopes:
        prefixes = _by_name(scope, registry)
        for node in scope.graph.nodes.values():
            if _runs(scope, node, registry):
                node_id = scope.api_id(node)
                nodes[node_id], gaps[node_id] = _converted(scope, node, registry, prefixes, time)
    return _without_dead_ends(nodes, gaps, registry)


def _runs(scope: Scope, node: UiNode, registry: Registry) -> bool:
    if node.mode in (MUTED, BYPASSED) or node.id in scope.children or node.type in EDITOR_ONLY:
        return False
    return node.type not in PRIMITIVES or registry.get(node.type) is not None


def _by_name(scope: Scope, registry: Registry) -> dict[str, dict[str, Any]]:
    """The fields of a scope's nodes, under the names by which a prefix may call them: class first, then title."""
    found: dict[str, dict[str, Any]] = {}
    known = [(node, registry.get(node.type)) for node in scope.graph.nodes.values()]
    values = [(node, widget_values(node, spec)) for node, spec in known if spec is not None]
    for node, fields in values:
        found.setdefault(str(node.properties.get("Node name for S&R", node.type)), fields)
    for node, fields in values:
        found.setdefault(node.title or node.type, fields)
    return found


def _converted(
    scope: Scope, node: UiNode, registry: Registry, others: Mapping[str, Mapping[str, Any]], now: datetime
) -> tuple[Node, Gaps]:
    spec = registry.get(node.type)
    if spec is None:
        return _unknown(scope, node, registry), {}
    node_id, held = scope.api_id(node), widget_values(node, spec)
    inputs: dict[str, Any] = {}
    gaps: Gaps = {}
    for item in spec.inputs:
        value = held.get(item.name, NOTHING)
        entry = node.input(item.name)
        if entry is not None and entry.link is not None:
            source = trace(scope, entry, registry)
            if isinstance(source, Link):
                inputs[item.name] = source
                continue
            if isinstance(source, Value):
                value = source.value
            elif isinstance(source, Nothing) and (item.is_socket or source.is_damage):
                gaps[item.name] = source
                continue
        if value is NOTHING and item.required and not item.is_socket:
            value = default_value(item)
        if value is not NOTHING:
            inputs[item.name] = as_sent(item, value, node_id, others, now)
    return Node(node.type, inputs, {"title": node.title} if node.title else {}), gaps


def _unknown(scope: Scope, node: UiNode, registry: Registry) -> Node:
    """A node of a class that is not here: its links, its title, and the package that the editor noted for it."""
    links = {item.name: trace(scope, item, registry) for item in node.inputs if item.link is not None}
    origin = node.properties.get("cnr_id") or node.properties.get("aux_id")
    meta = {"title": node.title} if node.title else {}
    meta |= {"origin": origin} if isinstance(origin, str) and origin != "comfy-core" else {}
    return Node(node.type, {name: link for name, link in links.items() if isinstance(link, Link)}, meta)


def _without_dead_ends(nodes: dict[str, Node], gaps: dict[str, Gaps], registry: Registry) -> Graph:
    """Leave out what lacks an input that it can't do without, because something before it is muted."""
    dead: dict[str, str] = {}  # node -> why, as a sentence
    pending: list[str] = []
    readers: dict[str, list[tuple[str, str]]] = {}
    for node_id, node in nodes.items():
        for name, link in node.links():
            readers.setdefault(link.node_id, []).append((node_id, name))
        for name, gap in gaps[node_id].items():
            if not gap.is_damage and _needs(registry.get(node.class_type), name) and node_id not in dead:
                dead[node_id] = f"{name} {gap.why}."
                pending.append(node_id)
    graph = Graph(nodes)
    ends = output_nodes(graph, registry)
    while pending:
        gone = pending.pop()
        for node_id, name in readers.get(gone, []):
            if node_id not in dead and _needs(registry.get(nodes[node_id].class_type), name):
                dead[node_id] = dead[gone]
                pending.append(node_id)
    if ends and all(end in dead for end in ends):
        raise InvalidGraph([_gap_fault(end, graph.nodes[end], registry, dead[end]) for end in ends])
    alive = {
        node_id: Node(
            node.class_type,
            {name: v for name, v in node.inputs.items() if not isinstance(v, Link) or v.node_id not in dead},
            node.meta,
        )
        for node_id, node in nodes.items()
        if node_id not in dead
    }
    graph = Graph(alive)
    faults = [
        malformed(f"Node ID '#{node_id}'", f'Node {node_id} "{nodes[node_id].class_type}": {name} {gap.why}.', node_id)
        for node_id in walk_graph(graph, registry).order
        for name, gap in gaps[node_id].items()
        if gap.is_damage
    ]
    if faults:
        raise InvalidGraph(faults)
    return graph


def _needs(spec: NodeSpec | None, name: str) -> bool:
    item = spec.input(name) if spec else None
    return item is not None and item.required


def _gap_fault(node_id: str, node: Node, registry: Registry, why: str) -> GraphFault:
    title = registry[node.class_type].title
    sentence = f'Node {node_id} "{title}" can\'t run, nor can any other output: {why} Unmute what it needs.'
    message = "Required input is missing"
    return GraphFault("required_input_missing", message, node_id, sentence, node_id, node.class_type)
