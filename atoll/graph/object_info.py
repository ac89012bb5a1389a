"""Node declarations in the form of ComfyUI's GET /object_info."""

from __future__ import annotations

from typing import Any

from atoll.graph.node import NOTHING, Choices, InputSpec, NodeSpec, OneFile, Registry


def object_info(registry: Registry, choices: Choices) -> dict[str, Any]:
    """Every node by class type; combos hold the files that exist now."""
    return {spec.class_type: node_info(spec, choices) for spec in registry}


def node_info(spec: NodeSpec, choices: Choices) -> dict[str, Any]:
    """One node: inputs by name as `[type or choices, options]`, their order, and the outputs."""
    groups: dict[str, dict[str, Any]] = {
        "required": {item.name: input_config(item, choices) for item in spec.inputs if item.required},
        "optional": {item.name: input_config(item, choices) for item in spec.inputs if not item.required},
        "hidden": dict(spec.hidden),
    }
    inputs = {group: entries for group, entries in groups.items() if entries or group == "required"}
    return {
        "input": inputs,
        "input_order": {group: list(entries) for group, entries in inputs.items()},
        "output": [output.type for output in spec.outputs],
        "output_is_list": [False] * len(spec.outputs),
        "output_name": [output.name for output in spec.outputs],
        "name": spec.class_type,
        "display_name": spec.title,
        "description": spec.description,
        "python_module": "nodes",
        "category": spec.category,
        "output_node": spec.is_output,
    }


def input_config(spec: InputSpec, choices: Choices) -> list[Any]:
    """`[type]` or `[type, options]`; a combo has the list of its choices in place of a type."""
    options: dict[str, Any] = {}
    if spec.default is not NOTHING and spec.required and spec.type != "COMBO":
        options["default"] = spec.default
    if spec.range is not None:
        options |= {"min": spec.range.min, "max": spec.range.max}
        options |= {"step": spec.range.step} if spec.range.step is not None else {}
        options |= {"round": spec.range.round} if spec.range.round is not None else {}
        options |= {"control_after_generate": True} if spec.range.control_after_generate else {}
    if spec.text is not None:
        options |= {"multiline": True} if spec.text.multiline else {}
        options |= {"dynamicPrompts": True} if spec.text.dynamic_prompts else {}
    if isinstance(spec.choices, OneFile):
        options |= {"image_upload": True} if spec.choices.image_upload else {}
    elif spec.choices is not None:
        options |= {"advanced": True} if spec.choices.advanced else {}
    if spec.tooltip:
        options["tooltip"] = spec.tooltip
    kind = choice_names(spec, choices) if spec.type == "COMBO" else spec.type
    return [kind, options] if options else [kind]


def choice_names(spec: InputSpec, choices: Choices) -> list[str]:
    """What a combo offers now."""
    if isinstance(spec.choices, OneFile):
        return list(choices.names(spec.choices.kind))
    return list(spec.choices.names) if spec.choices else []
