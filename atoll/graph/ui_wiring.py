"""Where an input of a saved workflow gets its value from, through all that only the editor knows.

Reroutes pass on what they get; primitives hold a value; a bypassed node passes on an input of the type that is asked of
it; a subgraph's inputs and outputs lead out and in; a muted node gives nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from atoll.graph.fault import InvalidGraph
from atoll.graph.graph import MAX_NODES, Link, malformed
from atoll.graph.node import Registry
from atoll.graph.ui_form import BYPASSED, MUTED, WIDGET_TYPES, UiGraph, UiInput, UiNode, UiWorkflow
from atoll.graph.ui_groups import group_definition, is_group_node

REROUTES = {"Reroute", "Reroute (rgthree)", "ReroutePrimitive|pysssss"}
NOTES = {"Note", "MarkdownNote", "Note Plus (mtb)", "Label (rgthree)", "Bookmark (rgthree)"}
SWITCHBOARDS = {  # they change the editor's modes when they are clicked, and do nothing when a workflow runs
    "Fast Groups Bypasser (rgthree)", "Fast Groups Muter (rgthree)", "Fast Bypasser (rgthree)", "Fast Muter (rgthree)",
    "Fast Actions Button (rgthree)", "Mute / Bypass Relay (rgthree)", "Mute / Bypass Repeater (rgthree)",
    "Node Collector (rgthree)",
}  # fmt: skip
SENDERS, RECEIVERS = {"SetNode"}, {"GetNode"}  # links without a line: the first value of each is the name they share
# Nodes that give the value typed into them. Where there are nodes of that name, these are used.
PRIMITIVES = {
    "PrimitiveNode", "PrimitiveInt", "PrimitiveFloat", "PrimitiveString", "PrimitiveStringMultiline",
    "PrimitiveBoolean",
}  # fmt: skip
EDITOR_ONLY = REROUTES | NOTES | SWITCHBOARDS | SENDERS | RECEIVERS | {"PrimitiveNode"}
MAX_NESTING = 16  # of subgraphs; real ones stay below five
MAX_PASSED = 200  # reroutes and the like on one way


@dataclass(frozen=True)
class Value:
    """A value that stands in place of a link."""

    value: Any


@dataclass(frozen=True)
class OwnValue:
    """Nothing arrives, and the node's own field holds."""


@dataclass(frozen=True)
class Nothing:
    """Nothing arrives. why: ends a sentence that names the input. is_damage: the file is broken, nobody meant it."""

    why: str
    is_damage: bool = False


Source = Link | Value | OwnValue | Nothing


@dataclass(eq=False)
class Scope:
    """A graph in its place: the workflow itself, or what stands behind one node of another scope.

    prefix: what the ids of its nodes begin with: node 3 behind node 12 is 12:3, as ComfyUI has it.
    """

    graph: UiGraph
    prefix: str = ""
    parent: Scope | None = None
    instance: UiNode | None = None
    children: dict[str, Scope] = field(default_factory=dict)

    def api_id(self, node: UiNode) -> str:
        return self.prefix + node.id


def unfold(workflow: UiWorkflow) -> list[Scope]:
    """Every scope that runs, the workflow first. Raises: InvalidGraph if one contains itself, or nodes get too many."""
    scopes = [Scope(workflow.graph)]
    total = len(workflow.graph.nodes)
    for scope in scopes:  # which grows as it goes
        for node in scope.graph.nodes.values():
            definition = None if node.mode in (MUTED, BYPASSED) else _definition(workflow, node)
            if definition is None:
                continue
            if any(above.graph is definition for above in _outwards(scope)):
                sentence = f"Node {node.label}: the subgraph {definition.name:.100} contains itself. Break the circle."
                raise InvalidGraph([malformed("definitions", sentence, scope.api_id(node))])
            if sum(1 for _ in _outwards(scope)) >= MAX_NESTING:
                sentence = f"Node {node.label}: subgraphs lie more than {MAX_NESTING} deep in each other."
                raise InvalidGraph([malformed("definitions", sentence, scope.api_id(node))])
            total += len(definition.nodes)
            if total > MAX_NODES:
                sentence = f"With its subgraphs unfolded, the workflow has more than the {MAX_NODES} nodes that may be."
                raise InvalidGraph([malformed("definitions", sentence)])
            child = Scope(definition, f"{scope.api_id(node)}:", scope, node)
            scope.children[node.id] = child
            scopes.append(child)
    return scopes


def _outwards(scope: Scope | None) -> Iterator[Scope]:
    while scope is not None:
        yield scope
        scope = scope.parent


def _definition(workflow: UiWorkflow, node: UiNode) -> UiGraph | None:
    if node.type in workflow.definitions:
        return workflow.definitions[node.type]
    if is_group_node(node):
        return group_definition(node, workflow.group_nodes)
    return None


def trace(scope: Scope, item: UiInput, registry: Registry) -> Source:
    """Where a linked input of a node in `scope` gets its value from."""
    passed: set[tuple[str, str]] = set()
    while item.link is not None:
        if (scope.prefix, item.link) in passed:
            return Nothing("runs in a circle of nodes that only pass on", is_damage=True)
        if len(passed) == MAX_PASSED:
            return Nothing(f"runs through more than {MAX_PASSED} nodes that only pass on", is_damage=True)
        passed.add((scope.prefix, item.link))
        wire = scope.graph.wires.get(item.link)
        if wire is None:
            return Nothing(f"names link {item.link:.100}, which is not in the file", is_damage=True)
        if scope.instance is not None and scope.parent is not None and wire.source == scope.graph.input_node:
            if not wire.slot < len(scope.graph.inputs):
                return Nothing(f"comes from input {wire.slot} of a subgraph that has fewer", is_damage=True)
            name = scope.graph.inputs[wire.slot][0]
            outer = scope.instance.input(name)
            if outer is None or outer.link is None:
                values = instance_values(scope.instance, scope.graph)
                return Value(values[name]) if name in values else OwnValue()
            scope, item = scope.parent, outer
            continue
        source = scope.graph.nodes.get(wire.source)
        if source is None:
            return Nothing(f"is linked to node {wire.source:.100}, which is not in the workflow", is_damage=True)
        if source.mode == MUTED:
            return Nothing(f"comes from node {source.label}, which is muted")
        if source.mode == BYPASSED:
            passed_on = _bypass(source, wire.slot)
            if passed_on is None:
                return Nothing(
                    f"comes from node {source.label}, which is bypassed and has nothing of that type to pass on"
                )
            item = passed_on
        elif source.id in scope.children:
            scope = scope.children[source.id]
            item = UiInput("", "*", scope.graph.feeds.get(wire.slot))
        elif source.type in REROUTES:
            item = source.inputs[0] if source.inputs else UiInput("", "*")
        elif source.type in RECEIVERS:
            sender = _sender(scope.graph, source)
            if sender is None:
                return Nothing(
                    f"comes from node {source.label}, whose counterpart is not in the workflow", is_damage=True
                )
            item = sender.inputs[0] if sender.inputs else UiInput("", "*")
        elif source.type in PRIMITIVES and registry.get(source.type) is None:
            typed = next((entry for entry in source.inputs if entry.link is not None), None)
            if typed is None:
                return _typed_value(source)
            item = typed
        else:
            return Link(scope.api_id(source), wire.slot)
    return Nothing("leads to an end that nothing is linked to")


def _bypass(node: UiNode, slot: int) -> UiInput | None:
    """The input that a bypassed node passes on: that beside the output if its type is the same, else the first such."""
    if not slot < len(node.output_types):
        return None
    type_ = node.output_types[slot]
    beside = [node.inputs[slot]] if slot < len(node.inputs) else []
    same = [item for item in [*beside, *node.inputs] if item.type == type_]
    return next(iter(same or [item for item in [*beside, *node.inputs] if "*" in (item.type, type_)]), None)


def _sender(graph: UiGraph, receiver: UiNode) -> UiNode | None:
    name = receiver.values[0] if isinstance(receiver.values, tuple) and receiver.values else receiver.title
    return next(
        (
            node
            for node in graph.nodes.values()
            if node.type in SENDERS and isinstance(node.values, tuple) and node.values[:1] == (name,)
        ),
        None,
    )


def _typed_value(node: UiNode) -> Source:
    if "value" in node.named:
        return Value(node.named["value"])
    values = list(node.values.values()) if isinstance(node.values, Mapping) else list(node.values)
    return Value(values[0]) if values else Nothing(f"comes from node {node.label}, which holds no value")


def instance_values(node: UiNode, definition: UiGraph) -> dict[str, Any]:
    """The values that a node gives to its subgraph's inputs, by name. Where it gives none, those inside hold.

    Newer editors name them. Others list them: by `proxyWidgets`, where "-1" marks an input of the subgraph (other
    entries show a field of a node inside, which keeps its own value); or in the order of the inputs that are fields.
    """
    named = node.named or (node.values if isinstance(node.values, Mapping) else None)
    if named is not None:
        return {name: value for name, value in named.items() if value is not None}
    assert isinstance(node.values, tuple)
    proxies = node.properties.get("proxyWidgets")
    if isinstance(proxies, list):
        return {
            str(proxy[1]): value
            for proxy, value in zip(proxies, node.values, strict=False)
            if isinstance(proxy, list) and len(proxy) > 1 and str(proxy[0]) == "-1" and value is not None
        }
    names = [item.name for item in node.inputs if item.is_widget]
    if len(names) != len(node.values):
        names = [name for name, type_ in definition.inputs if type_ in WIDGET_TYPES]
    if len(names) != len(node.values):
        return {}
    return {name: value for name, value in zip(names, node.values, strict=True) if value is not None}
