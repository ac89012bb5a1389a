"""A workflow in ComfyUI's API form: `{id: {"class_type": ..., "inputs": {name: value or [node id, output slot]}}}`."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from atoll.graph.fault import GraphFault, InvalidGraph


class Link(NamedTuple):
    """Points at one output of another node."""

    node_id: str
    slot: int


@dataclass(frozen=True)
class NodeRef:
    """A node just added; `ref[1]` is the link to its second output, `ref` alone counts as `ref[0]`."""

    node_id: str

    def __getitem__(self, slot: int) -> Link:
        return Link(self.node_id, slot)


@dataclass(frozen=True)
class Node:
    """One step of a workflow. `meta` (a title, say) is for people and never changes a result."""

    class_type: str
    inputs: Mapping[str, Any]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def links(self) -> Iterator[tuple[str, Link]]:
        """(input name, link) of every input that is a link, in the order they were given."""
        for name, value in self.inputs.items():
            if isinstance(value, Link):
                yield name, value


class Graph:
    """Nodes by id. Building one and reading one back are exact: `Graph.from_api(graph.to_api()) == graph`."""

    def __init__(self, nodes: Mapping[str, Node] | None = None) -> None:
        self.nodes: dict[str, Node] = dict(nodes or {})

    def add(self, class_type: str, /, **inputs: Any) -> NodeRef:
        """Add a node under the next free number. An input is a value, a `NodeRef` (its first output) or a `Link`."""
        node_id = str(max((int(name) for name in self.nodes if name.isdecimal()), default=0) + 1)
        values = {name: value[0] if isinstance(value, NodeRef) else value for name, value in inputs.items()}
        self.nodes[node_id] = Node(class_type, values)
        return NodeRef(node_id)

    @classmethod
    def from_api(cls, api: object) -> Graph:
        """Read the API form.

        Raises: InvalidGraph with every fault of the form itself; `validate_graph` judges the contents.
        """
        faults = form_faults(api)
        if faults:
            raise InvalidGraph(faults)
        return cls(read_nodes(api))

    def to_api(self) -> dict[str, Any]:
        """The API form, made of fresh plain JSON values."""
        api: dict[str, Any] = {}
        for node_id, node in self.nodes.items():
            inputs = {
                name: [value.node_id, value.slot] if isinstance(value, Link) else copy.deepcopy(value)
                for name, value in node.inputs.items()
            }
            api[node_id] = {"class_type": node.class_type, "inputs": inputs}
            if node.meta:
                api[node_id]["_meta"] = copy.deepcopy(dict(node.meta))
        return api

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self.nodes == other.nodes

    def __repr__(self) -> str:
        return f"Graph({', '.join(f'{node_id}: {node.class_type}' for node_id, node in self.nodes.items())})"

    __hash__ = None  # type: ignore[assignment]


MAX_NODES = 2_000
MAX_NAME = 250  # characters of a node's id or class
MAX_INTEGER_BITS = 1024  # Python refuses to print numbers of over 4300 digits, so JSON could not be written
MAX_DEPTH = 32  # of lists and dicts inside one input; real workflows stay below five


def read_nodes(api: Any) -> dict[str, Node]:
    """The nodes of an API form whose entries have no fault of form."""
    nodes = {}
    for node_id, entry in api.items():
        inputs = {name: _as_value(value) for name, value in entry.get("inputs", {}).items()}
        nodes[node_id] = Node(entry["class_type"], inputs, dict(entry.get("_meta") or {}))
    return nodes


def form_faults(api: object) -> list[GraphFault]:
    """What is wrong with the form alone, without knowing any node.

    Not JSON objects, no class_type, too many nodes, nesting without end; numbers and texts that JSON or a database
    cannot hold (these faults name their field).
    """
    if not isinstance(api, Mapping):
        return [malformed("", f"A workflow is a JSON object of nodes by id, not {kind_of(api)}.")]
    if len(api) > MAX_NODES:
        return [malformed("", f"The workflow has {len(api)} nodes; at most {MAX_NODES} are allowed.")]
    return [fault for node_id, entry in api.items() for fault in _entry_faults(node_id, entry)]


def _entry_faults(node_id: object, entry: object) -> Iterator[GraphFault]:
    if not isinstance(node_id, str) or _flaw(node_id):
        shown = f"{node_id!r:.100}"
        yield malformed(f"Node ID '#{shown}'", f"Node id {shown} is {_flaw(node_id) or kind_of(node_id)}.")
        return
    if len(node_id) > MAX_NAME:
        shown = f"{node_id[:40]}..."
        sentence = f"Node id {shown} is {len(node_id):,} characters long; at most {MAX_NAME} are allowed."
        yield malformed(f"Node ID '#{shown}'", sentence)
        return
    place = f"Node ID '#{node_id}'"
    if not isinstance(entry, Mapping):
        yield malformed(place, f"Node {node_id} is {kind_of(entry)}; a node is a JSON object.", node_id)
        return
    class_type, inputs, meta = entry.get("class_type"), entry.get("inputs", {}), entry.get("_meta") or {}
    if not isinstance(class_type, str) or _flaw(class_type) or len(class_type) > MAX_NAME:
        sentence = f'Node {node_id} has no "class_type" that can be read, so nobody knows what it is to do. '
        sentence += "Export the workflow in API form." if "type" in entry else "Name its node class."
        message = "Cannot execute because a node is missing the class_type property."
        yield GraphFault("invalid_prompt", message, place, sentence, node_id)
        return
    if not isinstance(inputs, Mapping) or not isinstance(meta, Mapping):
        kinds = f"{kind_of(inputs)} and {kind_of(meta)}"
        sentence = f'"inputs" and "_meta" of node {node_id} must be JSON objects; they are {kinds}.'
        yield malformed(place, sentence, node_id)
        return
    for name, value in [*inputs.items(), ("_meta", meta)]:
        flaw = _flaw(name) if isinstance(name, str) else f"{name!r:.100}, no text, in place of a name"
        flaw = flaw or first_flaw(value)
        if flaw:
            message, details = "Failed to read an input value", f"{name!s:.200}, {flaw}"
            sentence = f'Node {node_id} "{class_type}": {name!s:.200} holds {flaw}.'
            extra_info = {"input_name": str(name)[:200]}
            yield GraphFault(
                "invalid_input_type", message, details, sentence, node_id, class_type, str(name), extra_info
            )


def malformed(details: str, sentence: str, node_id: str | None = None) -> GraphFault:
    """A fault of form, as ComfyUI words it where it has no words."""
    return GraphFault("invalid_prompt", "Cannot execute because the workflow is malformed.", details, sentence, node_id)


def kind_of(value: object) -> str:
    """ "a list", "a text" and so on: what a JSON value is, for sentences."""
    kinds = {dict: "a JSON object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number" if isinstance(value, int | float) else f"of type {type(value).__name__}")


def first_flaw(value: object) -> str | None:
    """The first thing in a JSON value that cannot be stored. Without recursion, which hostile nesting would exhaust."""
    layer = [value]
    for _ in range(MAX_DEPTH + 1):
        flaw = next(filter(None, map(_flaw, layer)), None)
        if flaw or not layer:
            return flaw
        layer = [
            child
            for item in layer
            if isinstance(item, Mapping | list)
            for child in ([*item.keys(), *item.values()] if isinstance(item, Mapping) else item)
        ]
    return f"lists or objects nested more than {MAX_DEPTH} levels deep"


def _flaw(value: object) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value}, which is not a finite number"
    if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
        return "a whole number of hundreds of digits"
    if isinstance(value, str) and ("\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value)):
        return "characters that no text has (NUL or half of a surrogate pair)"
    if not isinstance(value, str | int | float | bool | list | Mapping | None):
        return f"a value {kind_of(value)}, which JSON does not have"
    return None


def _as_value(value: Any) -> Any:
    """An input as JSON has it, with `[node id, output slot]` read as a Link."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and type(value[1]) is int:
        return Link(*value)
    return value
