"""The values that a saved node holds for its fields, and what the editor does to texts before it sends them."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from atoll.graph.node import NOTHING, InputSpec, NodeSpec, OneFile, OneOf
from atoll.graph.ui_form import UiNode

# The editor keeps, after a seed, what is to become of it when a job was queued; the oldest files have true or false.
AFTER_GENERATE = ("fixed", "increment", "decrement", "randomize")
SEEDS = ("seed", "noise_seed")
MAX_CHOICES_DEEP = 16  # {a|{b|c}} is two deep
UPLOAD_BUTTON = "image"  # the "value" of the button that stands below a choice of pictures


def widget_values(node: UiNode, spec: NodeSpec) -> dict[str, Any]:
    """What the node holds, by field. Fields that it holds nothing for are not there: old files lack new fields.

    The order of unnamed values is that of the declaration, required ones first.
    """
    fields = [item for item in spec.inputs if not item.is_socket]
    named = node.named or (node.values if isinstance(node.values, Mapping) else {})
    if named or isinstance(node.values, Mapping):
        return {item.name: named[item.name] for item in fields if named.get(item.name) is not None}
    values, left = {}, list(node.values)
    for group in ([item for item in fields if item.required], [item for item in fields if not item.required]):
        for item in group:
            if not left:
                break
            value = left.pop(0)
            if value is not None:
                values[item.name] = value
            if _has_control(item) and left and (left[0] in AFTER_GENERATE or isinstance(left[0], bool)):
                del left[0]
        if left and left[0] == UPLOAD_BUTTON and any(_has_upload(item) for item in group):
            del left[0]
    return values


def default_value(item: InputSpec) -> Any:
    """What the editor puts into a new field; NOTHING where it asks the server for files."""
    if item.default is NOTHING and isinstance(item.choices, OneOf) and item.choices.names:
        return item.choices.names[0]
    return item.default


def as_sent(item: InputSpec, value: Any, node_id: str, others: Mapping[str, Mapping[str, Any]], now: datetime) -> Any:
    """A field's value as the editor sends it: choices in a prompt made, names in a file's prefix filled in.

    Args:
        others: the values of each node's fields, under the names by which a prefix may call it.
    """
    if not isinstance(value, str):
        return value
    if item.text is not None and item.text.dynamic_prompts and len(value) <= item.text.max_length:
        return _choose(value, random.Random(f"{node_id} {value}"))
    return _filled_in(value, others, now) if item.name == "filename_prefix" else value


def _has_control(item: InputSpec) -> bool:
    return item.type == "INT" and (item.name in SEEDS or bool(item.range and item.range.control_after_generate))


def _has_upload(item: InputSpec) -> bool:
    return isinstance(item.choices, OneFile) and item.choices.image_upload


# --- texts

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_INNERMOST = re.compile(r"(?<!\\)\{((?:[^{}\\]|\\.)*)(?<!\\)\}")
_BAR = re.compile(r"(?<!\\)\|")
_PLACEHOLDER = re.compile(r"%([^%]+)%")
_DATE_PARTS = re.compile(r"yyyy|yyy|yy|MM?|dd?|[hH]{1,2}|mm?|ss?")
_NO_FILE_NAME = re.compile(r'[/?<>\\:*|"\x00-\x1f\x7f]')


def _choose(text: str, rng: random.Random) -> str:
    """A prompt with one of each {red|green}, and without comments.

    The choice hangs on the text alone, so that the same workflow gives the same picture; the editor's is another one
    each time. `\\{` is a brace.
    """
    text = _COMMENT.sub("", text)
    for _ in range(MAX_CHOICES_DEEP):
        text, changed = _INNERMOST.subn(lambda match: rng.choice(_BAR.split(match[1])), text)
        if not changed:
            break
    return text.replace("\\{", "{").replace("\\}", "}")


def _filled_in(prefix: str, others: Mapping[str, Mapping[str, Any]], now: datetime) -> str:
    """`%date:yyyy-MM-dd%` and `%KSampler.seed%`; what nothing answers to stays for the node to fill in."""

    def replacement(match: re.Match[str]) -> str:
        name = match[1]
        if name.startswith("date:"):
            return _DATE_PARTS.sub(lambda part: _date_part(part[0], now), name.removeprefix("date:"))
        node, _, field = name.partition(".")
        found = others.get(node, {})
        return _NO_FILE_NAME.sub("_", str(found[field])) if field in found else match[0]

    return _PLACEHOLDER.sub(replacement, prefix)


def _date_part(part: str, now: datetime) -> str:
    if part[0] == "y":
        return f"{now.year:04}"[-2:] if part == "yy" else f"{now.year:04}"
    number = {"M": now.month, "d": now.day, "h": now.hour, "H": now.hour, "m": now.minute, "s": now.second}[part[0]]
    return f"{number:0{len(part)}}"
