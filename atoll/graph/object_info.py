"""Node declarations in the form of ComfyUI's GET /object_info."""

from __future__ import annotations

from typing import Any, Literal

from atoll.graph.node import NOTHING, Choices, InputSpec, NodeSpec, OneFile, Registry


def object_info(registry: Registry, choices: Choices) -> dict[str, Any]:
    """Every node by class type; combos hold the files that exist now."""
    return {spec.class_type: node_info(spec, choices) for spec in registry}


def node_info(spec: NodeSpec, choices: Choices) -> dict[str, Any]:
    """One node: inputs by name as `[type or choices, options]`, their order, and the outputs."""
    groups: dict[str, dict[str, Any]] = {
        "required": {item.name: input_config(item, choices, spec.schema) for item in spec.inputs if item.required},
        "optional": {item.name: input_config(item, choices, spec.schema) for item in spec.inputs if not item.required},
        "hidden": dict(spec.hidden),
    }
    inputs = {group: entries for group, entries in groups.items() if entries or group == "required"}
    flags = {"deprecated": spec.deprecated, "experimental": spec.experimental}
    if spec.schema == "v3":
        flags["api_node"] = False
    else:
        flags = {name: said for name, said in flags.items() if said}
    return {
        "input": inputs,
        "input_order": {group: list(entries) for group, entries in inputs.items()},
        "output": [output.type for output in spec.outputs],
        "output_is_list": [output.is_list for output in spec.outputs],
        "output_name": [output.name for output in spec.outputs],
        "name": spec.class_type,
        "display_name": None if spec.untitled else spec.title,
        "description": spec.description,
        "python_module": "nodes",
        "category": spec.category,
        "output_node": spec.is_output,
        **flags,
    }


def input_config(spec: InputSpec, choices: Choices, schema: Literal["v1", "v3"] = "v1") -> list[Any]:
    """`[type]` or `[type, options]`. A combo has the list of its choices in place of a type; in the newer form (v3) it
    is `["COMBO", {"options": ...}]`, and there are always options, if empty.
    """
    is_combo = spec.type == "COMBO"
    options: dict[str, Any] = {}
    if spec.default is not NOTHING and spec.required and (schema == "v3" or not is_combo):
        options["default"] = spec.default
    if spec.range is not None:
        options |= {"min": spec.range.min, "max": spec.range.max}
        options |= {"step": spec.range.step} if spec.range.step is not None else {}
        options |= {"round": spec.range.round} if spec.range.round is not None else {}
        options |= {"control_after_generate": True} if spec.range.control_after_generate else {}
        options |= {"display": spec.range.display} if spec.range.display else {}
    if spec.text is not None:
        options |= {"multiline": True} if spec.text.multiline else {}
        options |= {"dynamicPrompts": True} if spec.text.dynamic_prompts else {}
    asks_elsewhere = False
    if isinstance(spec.choices, OneFile):
        options |= {"image_upload": True} if spec.choices.image_upload else {}
        options |= {"image_folder": spec.choices.folder} if spec.choices.folder else {}
        if spec.choices.remote is not None:
            options["remote"] = dict(spec.choices.remote)
            asks_elsewhere = True
    elif spec.choices is not None:
        options |= {"advanced": True} if spec.choices.advanced else {}
    if spec.tooltip:
        options["tooltip"] = spec.tooltip
    if is_combo and schema == "v3":
        options |= {"multiselect": False, "options": choice_names(spec, choices)}
        return ["COMBO", options]
    kind: Any = choice_names(spec, choices) if is_combo and not asks_elsewhere else spec.type
    return [kind, options] if options or schema == "v3" else [kind]


def choice_names(spec: InputSpec, choices: Choices) -> list[str]:
    """What a combo offers now."""
    if isinstance(spec.choices, OneFile):
        return list(choices.names(spec.choices.kind))
    return list(spec.choices.names) if spec.choices else []
