"""What ComfyUI's editor saves (versions 0.4 and 1.0), read as it lies in the file: nodes, wires, subgraphs.

The form: https://docs.comfy.org/specs/workflow_json. Links are lists or objects, ids numbers or texts; a subgraph is a
graph of its own under `definitions.subgraphs`, and a node whose type is its id stands for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from atoll.graph.fault import GraphFault, InvalidGraph
from atoll.graph.graph import MAX_NAME, MAX_NODES, first_flaw, kind_of, malformed

MUTED, BYPASSED = 2, 4  # of a node's modes; with every other one it runs
WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
INPUT_NODE, OUTPUT_NODE = "-10", "-20"  # where a subgraph's own inputs and outputs begin and end


@dataclass(frozen=True)
class UiInput:
    """A socket of a node. link: the id of the wire that ends here. widget: it stands for a field, too."""

    name: str
    type: str
    link: str | None = None
    is_widget: bool = False


@dataclass(frozen=True)
class UiNode:
    """values: of its fields in order, or by name; named: by name, which only newer editors write."""

    id: str
    type: str
    title: str | None = None
    mode: int = 0
    inputs: tuple[UiInput, ...] = ()
    output_types: tuple[str, ...] = ()
    values: tuple[Any, ...] | Mapping[str, Any] = ()
    named: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)

    def input(self, name: str) -> UiInput | None:
        return next((item for item in self.inputs if item.name == name), None)

    @property
    def label(self) -> str:
        """How messages name it."""
        return f'{self.id} "{(self.title or self.type)[:100]}"'


@dataclass(frozen=True)
class Wire:
    """From output `slot` of node `source` to input `target_slot` of node `target`."""

    source: str
    slot: int
    target: str
    target_slot: int


@dataclass(frozen=True)
class UiGraph:
    """A workflow, or a subgraph.

    inputs: of a subgraph, (name, type) each; wires from `input_node` carry them in.
    feeds: of a subgraph, for each of its outputs the id of the wire that leads there.
    """

    name: str
    nodes: Mapping[str, UiNode]
    wires: Mapping[str, Wire]
    inputs: tuple[tuple[str, str], ...] = ()
    input_node: str = INPUT_NODE
    feeds: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class UiWorkflow:
    """group_nodes: what older files have in place of subgraphs, by name, as it lies in the file."""

    graph: UiGraph
    definitions: Mapping[str, UiGraph]
    group_nodes: Mapping[str, Any]


def is_ui_format(workflow: object) -> bool:
    """Whether this is what the editor saves, rather than the API form."""
    return isinstance(workflow, Mapping) and isinstance(workflow.get("nodes"), list)


def read_ui_form(workflow: Mapping[str, Any]) -> UiWorkflow:
    """Raises: InvalidGraph with every fault of the form."""
    flaw = first_flaw(workflow)
    if flaw:
        raise InvalidGraph([malformed(flaw, f"The workflow holds {flaw}.")])
    found = list(_subgraphs(workflow))
    group_nodes = _dict(_dict(workflow.get("extra")).get("groupNodes"))
    groups = [_dict(entry) for entry in group_nodes.values()]
    total = sum(len(_list(entry.get("nodes"))) for entry in [workflow, *found, *groups])
    if total > MAX_NODES:
        raise InvalidGraph([malformed("", f"The workflow has {total} nodes; at most {MAX_NODES} are allowed.")])
    faults: list[GraphFault] = []
    definitions = {}
    for entry in found:
        identity = entry.get("id")
        if not isinstance(identity, str):
            faults.append(malformed("definitions", f"A subgraph's id is {kind_of(identity)}; it must be a text."))
            continue
        definitions[identity] = _read_graph(entry, str(entry.get("name") or identity)[:MAX_NAME], faults)
    graph = _read_graph(workflow, "The workflow", faults)
    if faults:
        raise InvalidGraph(faults)
    return UiWorkflow(graph, definitions, group_nodes)


def _subgraphs(workflow: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every definition. Most files list them all at the top; in some a subgraph carries its own."""
    pending = [workflow]
    while pending:
        for entry in _list(_dict(pending.pop().get("definitions")).get("subgraphs")):
            if isinstance(entry, Mapping):
                yield entry
                pending.append(entry)


def _read_graph(entry: Mapping[str, Any], name: str, faults: list[GraphFault]) -> UiGraph:
    nodes: dict[str, UiNode] = {}
    for item in _list(entry.get("nodes")):
        node = read_node(item)
        if isinstance(node, GraphFault):
            faults.append(node)
        elif node.id in nodes:
            faults.append(malformed(node.id, f"{name}: two nodes have the id {node.id}.", node.id))
        else:
            nodes[node.id] = node
    wires = {}
    for item in _list(entry.get("links")):
        wire = _read_wire(item)
        if wire is None:
            shown = f"{item!r:.100}" if isinstance(item, str | int | float | None) else kind_of(item)
            sentence = (
                f"{name}: the link {shown} can't be read. A link is [id, from node, from output, to node, to input, "
                "type], or an object with these."
            )
            faults.append(malformed("links", sentence))
        else:
            wires[wire[0]] = wire[1]
    output_node = _id(_dict(entry.get("outputNode")).get("id")) or OUTPUT_NODE
    return UiGraph(
        name,
        nodes,
        wires,
        tuple(_ports(entry.get("inputs"))),
        _id(_dict(entry.get("inputNode")).get("id")) or INPUT_NODE,
        {wire.target_slot: link for link, wire in wires.items() if wire.target == output_node},
    )


def read_node(entry: object, identity: str | None = None) -> UiNode | GraphFault:
    """One node. identity: for nodes that have no id of their own, being inside a group node."""
    if not isinstance(entry, Mapping):
        return malformed("nodes", f"One of the nodes is {kind_of(entry)}; a node is a JSON object.")
    node_id, type_ = identity or _id(entry.get("id")), entry.get("type")
    if node_id is None or len(node_id) > MAX_NAME:
        return malformed(
            "nodes", f"A node of type {type_!r:.100} has no id, or one that is no number and no short text."
        )
    if not isinstance(type_, str):
        return malformed(node_id, f'Node {node_id} has no "type", so nobody knows what it is to do.', node_id)
    values, title, mode = entry.get("widgets_values"), entry.get("title"), entry.get("mode")
    return UiNode(
        node_id,
        type_,
        title if isinstance(title, str) and title else None,
        mode if isinstance(mode, int) else 0,
        tuple(_inputs(entry.get("inputs"))),
        tuple(_type_name(_dict(item).get("type")) for item in _list(entry.get("outputs"))),
        dict(values) if isinstance(values, Mapping) else tuple(_list(values)),
        _dict(entry.get("widgets_values_named")),
        _dict(entry.get("properties")),
    )


def _inputs(value: object) -> Iterator[UiInput]:
    for item in _list(value):
        entry = _dict(item)
        widget = entry.get("widget")
        name = entry["name"] if isinstance(entry.get("name"), str) else _dict(widget).get("name")
        if isinstance(name, str):
            yield UiInput(name, _type_name(entry.get("type")), _id(entry.get("link")), bool(widget))


def _read_wire(value: object) -> tuple[str, Wire] | None:
    """(its id, the wire), or None for what is none."""
    if isinstance(value, Mapping):
        names = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
        parts = [value.get(name) for name in names]
    else:
        parts = _list(value)[:5]
    ids = [_id(part) for part in parts]
    if len(ids) != 5 or any(part is None for part in ids):
        return None
    link, source, slot, target, target_slot = (str(part) for part in ids)
    if not slot.isdecimal() or not target_slot.removeprefix("-").isdecimal() or len(slot) > 9 or len(target_slot) > 9:
        return None
    return link, Wire(source, int(slot), target, int(target_slot))


def _ports(value: object) -> Iterator[tuple[str, str]]:
    for item in _list(value):
        entry = _dict(item)
        yield str(entry.get("name", "")), _type_name(entry.get("type"))


def _type_name(value: object) -> str:
    """A socket's type; -1 is how the editor's library writes "an event", a list is one of several."""
    return value if isinstance(value, str) else "COMBO" if isinstance(value, list) else "*"


def _id(value: object) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if type(value) is int else None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
