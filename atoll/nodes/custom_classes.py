"""Nodes in the form that ComfyUI's custom nodes have: a class with INPUT_TYPES, RETURN_TYPES and FUNCTION.

    class Brighten:
        CATEGORY, RETURN_TYPES, FUNCTION = "image", ("IMAGE",), "run"

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"image": ("IMAGE",), "by": ("FLOAT", {"default": 0.1, "min": 0.0, "max": 1.0})}}

        def run(self, image, by):
            return (image + by,)

    NODE_CLASS_MAPPINGS = {"Brighten": Brighten}

IMAGE, MASK, the samples of LATENT and plain values are here what they are there. MODEL, CLIP, VAE and CONDITIONING are
Atoll's own objects. Nodes that import ComfyUI's modules (comfy, folder_paths, nodes) can't be loaded.
"""

from __future__ import annotations

import inspect
import math
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from atoll.errors import InvalidRequest
from atoll.graph.graph import Link
from atoll.graph.node import NOTHING, InputSpec, NodeContext, NodeSpec, OneFile, OneOf, OutputSpec, Range, Text

FILES_OF = "\0files of "  # in a declaration that travels, stands for the files of a kind that are there when asked
FIELD_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN")
_BIGGEST = {"INT": 2**64 - 1, "FLOAT": 1e308}


def info_of_class(class_type: str, cls: Any, title: str) -> dict[str, Any]:
    """What the class declares, in the form of GET /object_info. Raises: InvalidRequest if it is no such class."""
    try:
        groups = cls.INPUT_TYPES()
        types = list(cls.RETURN_TYPES)
        lists = list(getattr(cls, "OUTPUT_IS_LIST", [False] * len(types)))
        names = list(getattr(cls, "RETURN_NAMES", None) or types)
        function = getattr(cls, cls.FUNCTION)
    except (AttributeError, TypeError) as error:
        raise InvalidRequest(
            f"Node {class_type}: its class has no INPUT_TYPES, RETURN_TYPES and FUNCTION that can be read: {error}.",
            code="custom_nodes_broken",
        ) from error
    if not callable(function) or len(lists) != len(types) or len(names) != len(types):
        sentence = f"Node {class_type}: RETURN_TYPES, RETURN_NAMES and OUTPUT_IS_LIST differ in length."
        raise InvalidRequest(sentence, code="custom_nodes_broken")
    return {
        "input": {
            **{
                group: {str(name): _plain(config) for name, config in dict(groups.get(group) or {}).items()}
                for group in ("required", "optional")
            },
            "hidden": {str(name): str(kind) for name, kind in dict(groups.get("hidden") or {}).items()},
        },
        "output": [str(type_) if isinstance(type_, str) else "COMBO" for type_ in types],
        "output_is_list": [bool(one) for one in lists],
        "output_name": [str(name) for name in names],
        "is_input_list": bool(getattr(cls, "INPUT_IS_LIST", False)),
        "name": class_type,
        "display_name": title,
        "description": str(getattr(cls, "DESCRIPTION", "") or inspect.getdoc(cls) or ""),
        "category": str(getattr(cls, "CATEGORY", "custom")),
        "output_node": bool(getattr(cls, "OUTPUT_NODE", False)),
    }


def spec_from_info(info: Mapping[str, Any], function: Callable[..., Any], version: int) -> NodeSpec:
    """A node from what /object_info would say of it.

    function: gets the fields and sockets by name, and the run's context as `context`.
    """
    inputs = [
        _input(name, config, required=group == "required")
        for group in ("required", "optional")
        for name, config in (info["input"].get(group) or {}).items()
    ]
    outputs = zip(info["output"], info["output_name"], info["output_is_list"], strict=True)
    return NodeSpec(
        class_type=info["name"],
        function=function,
        version=version,
        title=info["display_name"] or info["name"],
        category=info["category"],
        description=info["description"],
        inputs=tuple(inputs),
        outputs=tuple(OutputSpec(type_, name, is_list) for type_, name, is_list in outputs),
        is_output=info["output_node"],
        cached=not info["output_node"],
        hidden=dict(info["input"].get("hidden") or {}),
        check=None,
        fingerprint=None,
        context_parameter="context",
        takes_lists=info.get("is_input_list", False),
    )


def function_of_class(class_type: str, cls: Any, info: Mapping[str, Any]) -> Callable[..., Any]:
    """Runs a node of the class as ComfyUI does: a new object, its VALIDATE_INPUTS, then its FUNCTION."""

    def run(context: NodeContext, **values: Any) -> Any:
        hidden = {
            "PROMPT": context.graph.to_api(),
            "DYNPROMPT": None,
            "EXTRA_PNGINFO": dict(context.extra),
            "UNIQUE_ID": context.node_id,
        }
        values |= {name: hidden.get(kind) for name, kind in info["input"]["hidden"].items()}
        validate = getattr(cls, "VALIDATE_INPUTS", None)
        if validate is not None:
            answer = validate(**_taken(validate, values))
            if answer is not True:
                said = answer if isinstance(answer, str) else "it refuses these values"
                raise InvalidRequest(f'Node {context.node_id} "{info["display_name"]}": {said}')
        return _outputs(class_type, getattr(cls(), cls.FUNCTION)(**values), len(info["output"]))

    return run


def fingerprint_of_class(cls: Any) -> Callable[[NodeContext, Mapping[str, Any]], str] | None:
    """IS_CHANGED, which gives something else when the node must run again. NaN equals nothing: it always runs."""
    is_changed = getattr(cls, "IS_CHANGED", None)
    if is_changed is None:
        return None

    def fingerprint(context: NodeContext, fields: Mapping[str, Any]) -> str:
        given = {name: None if isinstance(value, Link) else value for name, value in fields.items()}
        answer = is_changed(**_taken(is_changed, given))
        return uuid.uuid4().hex if isinstance(answer, float) and math.isnan(answer) else str(answer)

    return fingerprint


def _taken(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values that the function has parameters for; None for those that are not there."""
    parameters = inspect.signature(function).parameters
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        return dict(values)
    return {
        name: values.get(name)
        for name, one in parameters.items()
        if name in values or one.default is inspect.Parameter.empty
    }


def _outputs(class_type: str, returned: Any, count: int) -> Any:
    if isinstance(returned, Mapping):
        if "expand" in returned:
            raise InvalidRequest(f"Node {class_type} makes other nodes while it runs, which Atoll does not do.")
        returned = returned.get("result", ())
    values = tuple(returned) if isinstance(returned, tuple | list) else (() if returned is None else (returned,))
    if len(values) < count:
        raise InvalidRequest(f"Node {class_type} gave {len(values)} outputs of the {count} it declares.")
    return values[0] if count == 1 else values[:count]


def _plain(config: Any) -> list[Any]:
    """`(type,)` or `(type, options)` as JSON has it; what JSON does not have is left out."""
    if isinstance(config, str):
        return [config]
    kind, *rest = config
    options = dict(rest[0]) if rest and isinstance(rest[0], Mapping) else {}
    kind = [str(one) for one in kind] if isinstance(kind, list | tuple) else str(kind)
    return [kind, {name: value for name, value in options.items() if isinstance(value, str | int | float | bool)}]


def _input(name: str, config: list[Any], *, required: bool) -> InputSpec:
    kind, options = config[0], config[1] if len(config) > 1 else {}
    default = options.get("default", NOTHING if required else None)
    tooltip = options.get("tooltip")
    if isinstance(kind, list) or kind == "COMBO":
        names = tuple(str(one) for one in (kind if isinstance(kind, list) else options.get("options") or ()))
        is_files = len(names) == 1 and names[0].startswith(FILES_OF)
        choices = (
            OneFile(names[0].removeprefix(FILES_OF), bool(options.get("image_upload"))) if is_files else OneOf(names)
        )
        return InputSpec(name, "COMBO", False, required, default, choices=choices, tooltip=tooltip)
    if kind not in FIELD_TYPES or options.get("forceInput"):
        return InputSpec(name, kind, True, required, NOTHING if required else None, tooltip=tooltip)
    limits = None
    if kind in _BIGGEST and {"min", "max", "control_after_generate"} & options.keys():
        least, most = options.get("min", -_BIGGEST[kind]), options.get("max", _BIGGEST[kind])
        control = bool(options.get("control_after_generate"))
        limits = Range(least, most, options.get("step"), options.get("round"), control)
    text = Text(bool(options.get("multiline")), bool(options.get("dynamicPrompts"))) if kind == "STRING" else None
    return InputSpec(name, kind, False, required, default, limits, None, text, tooltip)
