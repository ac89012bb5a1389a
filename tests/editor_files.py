"""Workflows as ComfyUI's editor would save them, written from their API form: the way back that the tests need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from atoll.graph.node import NOTHING, OneFile, Registry

Version = Literal["0.4", "1.0"]


class EditorFile:
    """A file to be: nodes and wires, with numbers given as the editor gives them."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.wires: list[tuple[int, Any, int, Any, int, str]] = []

    def node(self, node_id: Any, type_: str, **parts: Any) -> dict[str, Any]:
        made = {"id": node_id, "type": type_, "pos": [0, 0], "size": [200, 100], "flags": {}, "order": len(self.nodes)}
        made |= {
            "mode": 0,
            "inputs": [],
            "outputs": [],
            "properties": {"Node name for S&R": type_},
            "widgets_values": [],
        }
        self.nodes.append(made | parts)
        return self.nodes[-1]

    def wire(self, source: Any, slot: int, target: Any, target_slot: int, type_: str = "*") -> int:
        """Connect two nodes, or a subgraph's border (-10, -20); returns the wire's id."""
        link = len(self.wires) + 1
        self.wires.append((link, source, slot, target, target_slot, type_))
        for node in self.nodes:
            if node["id"] == source:
                node["outputs"][slot].setdefault("links", []).append(link)
            if node["id"] == target:
                node["inputs"][target_slot]["link"] = link
        return link

    def saved(self, version: Version = "0.4", **more: Any) -> dict[str, Any]:
        if version == "0.4":
            links: list[Any] = [list(wire) for wire in self.wires]
            return {"last_node_id": 99, "last_link_id": 99, "nodes": self.nodes, "links": links, "version": 0.4, **more}
        names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
        objects = [dict(zip(names, wire, strict=True)) for wire in self.wires]
        return {"state": {"lastNodeId": 99}, "nodes": self.nodes, "links": objects, "version": 1, **more}

    def as_subgraph(
        self, identity: str, inputs: list[tuple[str, str]], outputs: list[tuple[str, str]]
    ) -> dict[str, Any]:
        """These nodes as a definition; its wires come from node -10 and go to node -20."""
        ports = {
            side: [{"id": f"{side} {name}", "name": name, "type": type_, "linkIds": []} for name, type_ in entries]
            for side, entries in (("inputs", inputs), ("outputs", outputs))
        }
        borders = {"inputNode": {"id": -10, "bounding": []}, "outputNode": {"id": -20, "bounding": []}}
        return {"id": identity, "name": identity.title(), **borders, **ports, **self.saved("1.0")}


def as_editor_file(api: Mapping[str, Any], registry: Registry, *, named: bool = False) -> EditorFile:
    """What the editor holds for a sound graph in API form.

    named: as newer editors save it, with every field also a socket and its value also by name.
    """
    file = EditorFile()
    for node_id, entry in api.items():
        spec = registry[entry["class_type"]]
        inputs, values, by_name = [], [], {}
        for item in sorted(spec.inputs, key=lambda item: not item.required):
            given = entry["inputs"].get(item.name, NOTHING)
            is_link = isinstance(given, list)
            if item.is_socket:
                inputs.append({"name": item.name, "type": item.type, "link": None})
                continue
            if is_link or named:
                inputs.append({"name": item.name, "type": item.type, "link": None, "widget": {"name": item.name}})
            value = None if is_link or given is NOTHING else given
            values.append(value)
            by_name[item.name] = value
            if item.name in ("seed", "noise_seed"):
                values.append("randomize")
                by_name["control_after_generate"] = "randomize"
        if any(isinstance(item.choices, OneFile) and item.choices.image_upload for item in spec.inputs):
            values.append("image")
            by_name["upload"] = "image"
        parts: dict[str, Any] = {"title": entry["_meta"]["title"]} if "_meta" in entry else {}
        outputs = [{"name": output.name, "type": output.type, "links": []} for output in spec.outputs]
        parts |= {"inputs": inputs, "outputs": outputs, "widgets_values": values}
        file.node(int(node_id), entry["class_type"], **parts, **({"widgets_values_named": by_name} if named else {}))
    slots = {node["id"]: [item["name"] for item in node["inputs"]] for node in file.nodes}
    for node_id, entry in api.items():
        for name, value in entry["inputs"].items():
            if isinstance(value, list):
                file.wire(int(value[0]), value[1], int(node_id), slots[int(node_id)].index(name))
    return file
