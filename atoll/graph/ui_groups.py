"""Group nodes, which the editor had before subgraphs: `extra.groupNodes` holds what is in them, as a list.

A node of type "workflow>NAME" stands for one. Its sockets are those inside that lead nowhere there, node after node,
and its values are those of the nodes inside, one after the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from atoll.graph.fault import GraphFault, InvalidGraph
from atoll.graph.graph import malformed
from atoll.graph.ui_form import INPUT_NODE, OUTPUT_NODE, UiGraph, UiInput, UiNode, Wire, read_node

PREFIXES = ("workflow>", "workflow/")


def is_group_node(node: UiNode) -> bool:
    return node.type.startswith(PREFIXES)


def group_definition(node: UiNode, group_nodes: Mapping[str, Any]) -> UiGraph:
    """What stands behind a group node, as a subgraph made for this one, with its values in the nodes inside.

    Raises: InvalidGraph if it is not in the file, or if node and group do not fit each other.
    """
    data = group_nodes.get(node.type[len(PREFIXES[0]) :])
    if not isinstance(data, Mapping) or not isinstance(data.get("nodes"), list):
        raise _refusal(node, "what is in this group node is not in the file")
    inner: list[UiNode] = []
    for index, entry in enumerate(data["nodes"]):
        found = read_node(entry, str(index))
        if isinstance(found, GraphFault):
            raise InvalidGraph([found])
        inner.append(found)
    if any(one.type == "PrimitiveNode" for one in inner):
        raise _refusal(node, "there is a primitive in this group node")
    wires = _inner_wires(data.get("links"), len(inner))
    inner = _with_links(_with_values(node, inner), wires)
    hidden = _hidden(data.get("config"))

    taken = {(wire.target, wire.target_slot) for wire in wires.values()}
    open_inputs = [
        (one.id, slot)
        for one in inner
        for slot, item in enumerate(one.inputs)
        if not item.is_widget and (one.id, slot) not in taken and (one.id, "input", item.name) not in hidden
    ]
    sockets = [item for item in node.inputs if not item.is_widget]
    if len(sockets) != len(open_inputs) or any(item.is_widget and item.link is not None for item in node.inputs):
        raise _refusal(node, "its sockets are not those of the nodes in it")
    for number, (target, slot) in enumerate(open_inputs):
        wires[f"in {number}"] = Wire(INPUT_NODE, number, target, slot)

    used, shown = {(wire.source, wire.slot) for wire in wires.values()}, _shown_outputs(data.get("external"))
    feeds: dict[int, str] = {}
    for one in inner:
        for slot in range(len(one.output_types)):
            is_open = (one.id, slot) not in used or (one.id, slot) in shown
            if is_open and (one.id, "output", str(slot)) not in hidden:
                link = f"out {len(feeds)}"
                wires[link] = Wire(one.id, slot, OUTPUT_NODE, len(feeds))
                feeds[len(feeds)] = link
    if len(feeds) != len(node.output_types):
        raise _refusal(node, "its outputs are not those of the nodes in it")
    nodes = {one.id: one for one in _with_links(inner, wires)}
    return UiGraph(node.type, nodes, wires, tuple((item.name, item.type) for item in sockets), feeds=feeds)


def _inner_wires(links: object, count: int) -> dict[str, Wire]:
    wires = {}
    for number, link in enumerate(links if isinstance(links, list) else []):
        ends = link[:4] if isinstance(link, list) else []
        if len(ends) == 4 and all(type(end) is int and end >= 0 for end in ends) and max(ends[0], ends[2]) < count:
            wires[f"{number}"] = Wire(str(ends[0]), ends[1], str(ends[2]), ends[3])
    return wires


def _with_links(nodes: list[UiNode], wires: Mapping[str, Wire]) -> list[UiNode]:
    ends = {(wire.target, wire.target_slot): link for link, wire in wires.items()}
    return [
        dataclasses.replace(
            one,
            inputs=tuple(
                UiInput(item.name, item.type, ends.get((one.id, slot)), item.is_widget)
                for slot, item in enumerate(one.inputs)
            ),
        )
        for one in nodes
    ]


def _with_values(node: UiNode, inner: list[UiNode]) -> list[UiNode]:
    """The nodes inside with the values that the group node shows."""
    if not node.values:
        return inner
    if isinstance(node.values, Mapping) or len(node.values) != sum(len(one.values) for one in inner):
        raise _refusal(node, "its values are not those of the nodes in it, one after the other")
    values, filled = list(node.values), []
    for one in inner:
        filled.append(dataclasses.replace(one, values=tuple(values[: len(one.values)])))
        del values[: len(one.values)]
    return filled


def _hidden(config: object) -> set[tuple[str, str, str]]:
    """(node, "input" or "output", its name or number) for each that the group node does not show."""
    found = set()
    for index, sides in config.items() if isinstance(config, Mapping) else ():
        for side, items in sides.items() if isinstance(sides, Mapping) else ():
            for name, said in items.items() if isinstance(items, Mapping) else ():
                if isinstance(said, Mapping) and said.get("visible") is False:
                    found.add((str(index), str(side), str(name)))
    return found


def _shown_outputs(external: object) -> set[tuple[str, int]]:
    entries = external if isinstance(external, list) else []
    return {(str(e[0]), e[1]) for e in entries if isinstance(e, list) and len(e) > 1 and type(e[1]) is int}


def _refusal(node: UiNode, why: str) -> InvalidGraph:
    sentence = (
        f"Node {node.label}: {why}, so it can't be unfolded. Convert it to nodes or to a subgraph in ComfyUI, and save "
        "again."
    )
    return InvalidGraph([malformed(node.id, sentence, node.id)])
