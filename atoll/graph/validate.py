"""Judging a workflow before its job is queued: every fault at once, each with its node and field.

The types, messages and details are ComfyUI's, so that its clients understand them; beside them stands a sentence.
Where ComfyUI would let something through that can only fail later (NaN, true as a number, a value on a socket), it is
refused here, under the nearest of its types.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atoll.graph.fault import GraphFault, InvalidGraph, at_most
from atoll.graph.graph import Graph, Link, form_faults, read_nodes
from atoll.graph.known_packs import likely_pack
from atoll.graph.node import Choices, InputSpec, NodeSpec, OneFile, Registry, Text
from atoll.graph.object_info import choice_names, input_config
from atoll.graph.order import output_nodes, read_links, walk_graph

_LONGEST_QUOTE = 200  # characters of a caller's value that are repeated to them
_LONGEST_LIST = 20  # ComfyUI prints longer lists of choices as their length only
_HINTS = 20  # near names are looked for this often in one workflow: each search takes a millisecond or more
_LONGEST_NAME = 80  # characters; looking for what is near to longer ones takes too long
_SHOWN_OF_CIRCLE = 10


@dataclass(frozen=True)
class Validation:
    """What came of it.

    graph: with values converted to their fields' types ("20" -> 20); None where the form itself is broken.
    good_outputs, bad_outputs: ids of the output nodes that can run and of those that cannot.
    dependent_outputs: faulty node -> the outputs that need it.
    """

    graph: Graph | None
    faults: tuple[GraphFault, ...]
    good_outputs: tuple[str, ...] = ()
    bad_outputs: tuple[str, ...] = ()
    dependent_outputs: Mapping[str, tuple[str, ...]] | None = None

    def strict(self) -> Graph:
        """The graph, if nothing at all is wrong with it. Raises: InvalidGraph."""
        if self.faults or self.graph is None:
            raise InvalidGraph(self.faults)
        return self.graph

    def lenient(self) -> Graph:
        """The graph without the outputs that cannot run, as ComfyUI does it. Raises: InvalidGraph if none can."""
        if self.graph is None or not self.good_outputs:
            raise InvalidGraph(self.faults)
        return Graph({node_id: node for node_id, node in self.graph.nodes.items() if node_id not in self.bad_outputs})

    def comfy_error(self) -> dict[str, Any] | None:
        """ComfyUI's `error` of POST /prompt, or None if it would take the workflow."""
        whole = next((fault for fault in self.faults if fault.type in _WHOLE_GRAPH), None)
        if whole is not None:
            return {"type": whole.type, "message": whole.message, "details": whole.details, "extra_info": {}}
        if self.good_outputs:
            return None
        message = "Prompt outputs failed validation"
        return {"type": "prompt_outputs_failed_validation", "message": message, "details": "", "extra_info": {}}

    def comfy_node_errors(self) -> dict[str, Any]:
        """ComfyUI's `node_errors` of POST /prompt."""
        errors: dict[str, Any] = {}
        if any(fault.type in _WHOLE_GRAPH for fault in self.faults):
            return errors
        for fault in self.faults:
            if fault.node_id is None or fault.type == "dependency_cycle":  # which ComfyUI words for nobody
                continue
            entry = errors.setdefault(
                fault.node_id,
                {
                    "errors": [],
                    "dependent_outputs": list((self.dependent_outputs or {}).get(fault.node_id, ())),
                    "class_type": fault.class_type,
                },
            )
            shown = {"type": fault.type, "message": fault.message, "details": fault.details}
            entry["errors"].append(shown | {"extra_info": fault.extra_info})
        return errors


_WHOLE_GRAPH = {"no_prompt", "invalid_prompt", "prompt_no_outputs"}


def validate_graph(api: object, registry: Registry, choices: Choices) -> Validation:
    """Judge a workflow in API form (or a Graph). Nothing is raised; see `Validation.strict` and `.lenient`.

    Like ComfyUI, only what the output nodes need is judged, apart from the form, which is judged everywhere.
    """
    if api is None:
        text = "No prompt provided"
        return Validation(None, (GraphFault("no_prompt", text, text, "No workflow was given."),))
    if isinstance(api, Graph):
        api = api.to_api()
    faults = form_faults(api)
    if not isinstance(api, Mapping) or any(fault.node_id is None for fault in faults):
        return Validation(None, tuple(at_most(faults)))
    choices, hints = _Remembered(choices), _Hints()
    formless = {fault.node_id for fault in faults if fault.field is None}
    flawed: dict[str | None, set[str]] = {}
    for fault in faults:
        flawed.setdefault(fault.node_id, set()).add(fault.field or "")
    graph = Graph(read_nodes({node_id: entry for node_id, entry in api.items() if node_id not in formless}))
    faults += _class_faults(graph, registry, hints)
    outputs = output_nodes(graph, registry)
    if not outputs and not faults:
        sentence = "The workflow has no output node, so nothing would be left of it. Add a Save Image node."
        return Validation(graph, (GraphFault("prompt_no_outputs", "Prompt has no outputs", "", sentence),))

    walk = walk_graph(graph, registry)
    for cycle in walk.cycles:
        shown = cycle if len(cycle) <= _SHOWN_OF_CIRCLE else (*cycle[:_SHOWN_OF_CIRCLE], "...")
        circle = " -> ".join(_shortened(node_id) for node_id in (*shown, cycle[0]))
        sentence = f"Nodes {circle} feed each other in a circle, so none can run first. Remove one of these links."
        class_type = graph.nodes[cycle[0]].class_type
        faults.append(GraphFault("dependency_cycle", "Dependency cycle", circle, sentence, cycle[0], class_type))
    needed = set(walk.order)
    judge = _Judge(graph, registry, choices, hints, formless, _readers(graph, registry))
    for node_id, node in list(graph.nodes.items()):
        if node_id in needed and registry.get(node.class_type) is not None:
            values, found = judge.node(node_id, flawed.get(node_id, set()))
            graph.nodes[node_id] = dataclasses.replace(node, inputs=values)
            faults += found

    faulty = {fault.node_id for fault in faults if fault.node_id} | walk.closing
    bad = _reached(faulty, judge.readers)
    broken = any(fault.type in _WHOLE_GRAPH for fault in faults)
    told = at_most(sorted(faults, key=lambda fault: fault.type not in _WHOLE_GRAPH))  # these first: all hangs on them
    affected = {fault.node_id: _reached({fault.node_id}, judge.readers) for fault in told if fault.node_id}
    dependents = {
        node_id: tuple(output for output in outputs if output in reached) for node_id, reached in affected.items()
    }
    return Validation(
        None if broken else graph,
        tuple(told),
        () if broken else tuple(output for output in outputs if output not in bad),
        tuple(outputs) if broken else tuple(output for output in outputs if output in bad),
        dependents,
    )


class _Hints:
    """Names near to a misspelt one, for the first faults of a workflow."""

    def __init__(self) -> None:
        self._left = _HINTS

    def near(self, name: str, names: Iterable[str], lead: str = "Near it:") -> str:
        """A sentence that follows another one, or nothing."""
        self._left -= 1
        if self._left < 0 or len(name) > _LONGEST_NAME:
            return ""
        candidates = [one for one in itertools.islice(names, 2_000) if len(one) <= _LONGEST_NAME]
        matches = difflib.get_close_matches(name, candidates, n=3, cutoff=0.6)
        return f" {lead} {', '.join(matches)}." if matches else ""


class _Remembered:
    """Choices that are asked for once, not once for each of a thousand nodes."""

    def __init__(self, choices: Choices) -> None:
        self._choices = choices
        self._names: dict[str, Sequence[str]] = {}
        self._has: dict[tuple[str, str], bool] = {}

    def names(self, kind: str) -> Sequence[str]:
        if kind not in self._names:
            self._names[kind] = self._choices.names(kind)
        return self._names[kind]

    def has(self, kind: str, name: str) -> bool:
        if (kind, name) not in self._has:
            self._has[kind, name] = self._choices.has(kind, name)
        return self._has[kind, name]


def _readers(graph: Graph, registry: Registry) -> dict[str, list[tuple[str, str, Link]]]:
    """For each node, who reads it: (reader, input name, link)."""
    readers: dict[str, list[tuple[str, str, Link]]] = {}
    for node_id in graph.nodes:
        for name, link in read_links(graph, registry, node_id):
            readers.setdefault(link.node_id, []).append((node_id, name, link))
    return readers


def _reached(sources: Iterable[str], readers: Mapping[str, list[tuple[str, str, Link]]]) -> set[str]:
    """These nodes, and all that need one of them."""
    reached, pending = set(sources), list(sources)
    while pending:
        new = {reader for reader, _, _ in readers.get(pending.pop(), ())} - reached
        reached |= new
        pending += new
    return reached


def _class_faults(graph: Graph, registry: Registry, hints: _Hints) -> Iterator[GraphFault]:
    for node_id, node in graph.nodes.items():
        if registry.get(node.class_type) is None:
            name, title, origin = _shortened(node.class_type), node.meta.get("title"), node.meta.get("origin")
            named = f' "{title:.100}"' if isinstance(title, str) and title != node.class_type else ""
            belongs = f' It belongs to the custom nodes "{origin:.100}".' if isinstance(origin, str) else ""
            if not belongs and (pack := likely_pack(node.class_type)):
                belongs = f' By its name it comes from the custom nodes "{pack}".'
            near = hints.near(name, registry.specs)
            sentence = f'Node {node_id}{named} is of class "{name}", which Atoll does not have.{belongs}{near}'
            message = f"Cannot execute because node {name} does not exist."
            yield GraphFault("invalid_prompt", message, f"Node ID '#{node_id}'", sentence, node_id, node.class_type)


@dataclass(frozen=True)
class _Judge:
    """What judging a node takes. formless: nodes whose form has been reported as broken."""

    graph: Graph
    registry: Registry
    choices: Choices
    hints: _Hints
    formless: Container[str | None]
    readers: Mapping[str, list[tuple[str, str, Link]]]

    def node(self, node_id: str, flawed: Container[str]) -> tuple[dict[str, Any], list[GraphFault]]:
        """(its inputs, converted; its faults). flawed: fields already reported."""
        node = self.graph.nodes[node_id]
        spec = self.registry[node.class_type]
        values = dict(node.inputs)
        faults: list[GraphFault] = []
        for item in spec.inputs:
            place = _Place(node_id, spec, item, self)
            if item.name in flawed:
                continue
            if item.name not in values:
                if item.required:
                    strays = [name for name in values if spec.input(name) is None]
                    sentence = f"{item.name} is missing.{self.hints.near(item.name, strays, 'It has')}"
                    message = "Required input is missing"
                    faults.append(place.fault("required_input_missing", message, item.name, sentence))
                continue
            value = values[item.name]
            if isinstance(value, Link):
                if value.node_id not in self.formless:
                    faults += _judge_link(place, value)
                continue
            converted, fault = _judge_value(place, value)
            values[item.name] = converted
            faults += [fault] if fault else []
        if not faults and not flawed and spec.check is not None:
            for name, sentence in spec.check(values):
                item = next(item for item in spec.inputs if item.name == name)
                faults.append(_Place(node_id, spec, item, self).refusal(values[name], sentence))
        return values, faults


@dataclass(frozen=True)
class _Place:
    """An input of a node in a graph, where a fault may lie."""

    node_id: str
    spec: NodeSpec
    item: InputSpec
    judge: _Judge

    def fault(self, type: str, message: str, details: str, sentence: str, **extra_info: Any) -> GraphFault:
        return GraphFault(
            type,
            message,
            details,
            f'Node {self.node_id} "{self.spec.title}": {sentence}',
            self.node_id,
            self.spec.class_type,
            self.item.name,
            {"input_name": self.item.name, **extra_info},
        )

    def config(self) -> list[Any]:
        return input_config(self.item, self.judge.choices, self.spec.schema)

    def unconvertible(self, value: object, why: str, sentence: str) -> GraphFault:
        message = f"Failed to convert an input value to a {self.item.type} value"
        details = f"{self.item.name}, {_shortened(value)}, {why}"
        received = value if isinstance(value, int | bool | None) else _shortened(value)
        return self.fault(
            "invalid_input_type", message, details, sentence, input_config=self.config(), received_value=received
        )

    def refusal(self, value: object, sentence: str) -> GraphFault:
        message, details = "Custom validation failed for node", f"{self.item.name} - {sentence}"
        return self.fault("custom_validation_failed", message, details, sentence)


def _judge_link(place: _Place, link: Link) -> Iterator[GraphFault]:
    name, graph, registry = place.item.name, place.judge.graph, place.judge.registry
    if link.node_id not in graph.nodes:
        sentence = f"{name} is linked to node {_shortened(link.node_id)}, which is not in the workflow."
        yield _missing_node_fault(place, link, sentence)
        return
    source = registry.get(graph.nodes[link.node_id].class_type)
    if source is None:
        return  # reported as an unknown class
    if not 0 <= link.slot < len(source.outputs):
        sentence = (
            f'{name} is linked to output {link.slot} of node {link.node_id} "{source.title}", '
            f"which has {len(source.outputs)} (counted from 0)."
        )
        yield _bad_link(place, list(link), sentence)
        return
    received = source.outputs[link.slot].type
    if not _fits(received, place.item.type):
        details = f"{name}, received_type({received}) mismatch input_type({place.item.type})"
        sentence = f'{name} wants {place.item.type}, but node {link.node_id} "{source.title}" gives {received} there.'
        yield place.fault(
            "return_type_mismatch",
            "Return type mismatch between linked nodes",
            details,
            sentence,
            input_config=place.config(),
            received_type=received,
            linked_node=list(link),
        )


def _fits(received: str, wanted: str) -> bool:
    """Whether a link's type is one that an input takes: "*" is any, "IMAGE,MASK" one of two; a choice takes choices."""
    if wanted == "COMBO":
        return received == wanted
    return "*" in (received, wanted) or not set(received.split(",")).isdisjoint(wanted.split(","))


def _missing_node_fault(place: _Place, link: Link, sentence: str) -> GraphFault:
    """ComfyUI reports this as the KeyError it ran into, seen from the node that reads the broken one."""
    judge, details = place.judge, repr(link.node_id)
    for reader, name, read in judge.readers.get(place.node_id, ()):
        spec = judge.registry[judge.graph.nodes[reader].class_type]
        item = next(item for item in spec.inputs if item.name == name)
        fault = place.fault(
            "exception_during_inner_validation", "Exception when validating inner node", details, sentence
        )
        extra_info = {
            "input_name": name,
            "input_config": input_config(item, judge.choices, spec.schema),
            "exception_type": "KeyError",
            "linked_node": list(read),
        }
        return dataclasses.replace(fault, extra_info=extra_info)
    fault = place.fault("exception_during_validation", "Exception when validating node", details, sentence)
    return dataclasses.replace(fault, extra_info={"exception_type": "KeyError"})


def _bad_link(place: _Place, value: object, sentence: str) -> GraphFault:
    return place.fault(
        "bad_linked_input",
        "Bad linked input, must be a length-2 list of [node_id, slot_index]",
        place.item.name,
        sentence,
        input_config=place.config(),
        received_value=value if isinstance(value, int | float | bool | None) else _shortened(value),
    )


def _judge_value(place: _Place, value: Any) -> tuple[Any, GraphFault | None]:
    """(the value as its field's type, None) or (the value as it was, what is wrong with it)."""
    item = place.item
    if item.is_socket or isinstance(value, list):
        wants = "a link to another node's output" if item.is_socket else f"a value or a link to {item.type}"
        sentence = f"{item.name} wants {wants}, written [node id, output number], and got {_shortened(value)!r}."
        return value, _bad_link(place, value, sentence)
    if item.type == "COMBO":
        return value, _judge_choice(place, value)
    try:
        converted = _CONVERSIONS[item.type](value)
    except (TypeError, ValueError, OverflowError) as error:
        kinds = {"INT": "a whole number", "FLOAT": "a finite number", "STRING": "a text", "BOOLEAN": "true or false"}
        sentence = f"{item.name} wants {kinds[item.type]} and got {_shortened(value)!r}."
        return value, place.unconvertible(value, _shortened(error), sentence)
    if item.range is not None:
        for is_out, type_, than, bound in (
            (converted < item.range.min, "value_smaller_than_min", "smaller than min", item.range.min),
            (converted > item.range.max, "value_bigger_than_max", "bigger than max", item.range.max),
        ):
            if is_out:
                shown = _shortened(converted)
                sentence = f"{item.name} {shown} is out of range; it goes from {item.range.min} to {item.range.max}."
                fault = place.fault(
                    type_,
                    f"Value {shown} {than} of {bound}",
                    item.name,
                    sentence,
                    input_config=place.config(),
                    received_value=converted if len(shown) < _LONGEST_QUOTE else shown,
                )
                return value, fault
    if isinstance(converted, str):
        limit = item.text.max_length if item.text else Text.max_length
        if len(converted) > limit:
            sentence = f"{item.name} is {len(converted):,} characters long; at most {limit:,} are allowed. Shorten it."
            return value, place.refusal(value, sentence)
    return converted, None


def _judge_choice(place: _Place, value: object) -> GraphFault | None:
    name, choices = place.item.name, place.item.choices
    names = choice_names(place.item, place.judge.choices)
    if isinstance(value, str) and (value in names):
        return None
    if isinstance(choices, OneFile):
        if isinstance(value, str) and place.judge.choices.has(choices.kind, value):
            return None
        if choices.image_upload:
            shown = _shortened(value)
            sentence = f'there is no input picture "{shown}".{place.judge.hints.near(shown, names)} Upload it first.'
            message, details = "Custom validation failed for node", f"{name} - Invalid image file: {shown}"
            return place.fault("custom_validation_failed", message, details, sentence)
    near = place.judge.hints.near(_shortened(value), names)
    if not names:
        near = " There are none yet."
    elif not near:
        near = f" There are: {', '.join(names[:_LONGEST_LIST])}{', ...' if len(names) > _LONGEST_LIST else ''}."
    is_long = len(names) > _LONGEST_LIST
    listed = f"(list of length {len(names)})" if is_long else str(names)
    shown = _shortened(value)
    return place.fault(
        "value_not_in_list",
        "Value not in list",
        f"{name}: '{shown}' not in {listed}",
        f'{name} "{shown}" is not known.{near}',
        input_config=None if is_long else place.config(),
        received_value=value if isinstance(value, int | float | bool | None) else shown,
    )


def _to_int(value: Any) -> int:
    if isinstance(value, bool | None) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(f"{value} is not a whole number")
    return int(value)


def _to_float(value: Any) -> float:
    if isinstance(value, bool | None):
        raise ValueError(f"{value} is not a number")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value} is not a finite number")
    return number


def _to_text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{type(value).__name__} is not a text")
    return str(value)


def _to_bool(value: Any) -> bool:
    if not isinstance(value, bool) and value not in (0, 1):
        raise ValueError(f"{value} is neither true nor false")
    return bool(value)


_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "INT": _to_int,
    "FLOAT": _to_float,
    "STRING": _to_text,
    "BOOLEAN": _to_bool,
}


def _shortened(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}... ({len(text):,} characters)"
