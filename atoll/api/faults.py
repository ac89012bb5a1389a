"""What is wrong with a request: every fault at once, each with its field, in words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atoll.errors import InvalidRequest
from atoll.graph.fault import GraphFault


@dataclass(frozen=True)
class RequestFault:
    """One fault: `field` as the caller wrote it ("body.width" is "width"), a stable `type`, a sentence."""

    field: str
    type: str
    message: str

    def as_dict(self) -> dict[str, Any]:
        return {"field": self.field, "type": self.type, "message": self.message}


class FaultyRequest(InvalidRequest):
    """A request with faults; carries every one of them. `message` is their sentences, one after the other."""

    def __init__(self, faults: Sequence[RequestFault]) -> None:
        super().__init__(" ".join(fault.message for fault in faults))
        self.faults = list(faults)


def describe_faults(error: Exception) -> list[dict[str, Any]]:
    """The faults an error carries, as JSON: of a request (field), or of a graph (node_id, class_type, field)."""
    faults: Iterable[RequestFault | GraphFault] = getattr(error, "faults", ())
    return [fault.as_dict() for fault in faults]


def faults_from_validation(errors: Iterable[Mapping[str, Any]], known: Iterable[str] = ()) -> list[RequestFault]:
    """Pydantic's errors (`ValidationError.errors()`) as faults in our words.

    Args:
        errors: as pydantic or FastAPI list them; `loc` may start with "body", "query" or "path".
        known: field names to suggest when a field is unknown.
    """
    return [_fault(error, list(known)) for error in errors]


def nearest(name: str, known: Iterable[str]) -> str:
    """' Did you mean "euler_ancestral"?' or an empty string."""
    matches = difflib.get_close_matches(name.lower(), list(known), n=3, cutoff=0.5)
    quoted = [f'"{match}"' for match in matches]
    return f" Did you mean {' or '.join(quoted)}?" if matches else ""


def _fault(error: Mapping[str, Any], known: list[str]) -> RequestFault:
    location = [str(part) for part in error.get("loc", ())]
    if location and location[0] in ("body", "query", "path", "header"):
        location = location[1:]
    field = ".".join(location) or "request"
    kind, given, context = str(error.get("type")), error.get("input"), error.get("ctx") or {}
    shown = _shown(given)
    match kind:
        case "multiple_of" if isinstance(given, int):
            step = int(context["multiple_of"])
            below = given // step * step
            near = f"the nearest are {below} and {below + step}" if below > 0 else f"the nearest is {step}"
            words = f"{field} {given} is not a multiple of {step}; {near}."
        case "greater_than_equal":
            words = f"{field} {shown} is too small; the smallest is {context['ge']}."
        case "less_than_equal":
            words = f"{field} {shown} is too big; the biggest is {context['le']}."
        case "finite_number":
            words = f"{field} is {shown}, which is not a finite number. Give a number such as 7.5."
        case "string_too_long":
            length = len(given) if isinstance(given, str) else "too many"
            words = f"{field} is {length} characters long; the longest is {context['max_length']}."
        case "extra_forbidden":
            words = f"{field} is not a known field.{nearest(field, known)}"
        case "missing":
            words = f"{field} is missing."
        case "json_invalid":
            field, words = "body", f"The body is not valid JSON: {context.get('error', 'it cannot be parsed')}."
        case _ if kind.startswith(("int_", "float_", "string_", "bool_", "dict_", "model_", "literal_")):
            words = f"{field} is {shown}: {str(error.get('msg', 'it is not valid')).rstrip('.')}."
        case _:
            words = str(error.get("msg", "it is not valid"))
            if not words.startswith(field):  # ours say what was asked already; pydantic's do not
                words = f"{field} {shown}: {words.rstrip('.')}."
    return RequestFault(field, kind, words)


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
