"""What is wrong with a graph: one fault per wrong thing, so that all can be told at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from atoll.errors import InvalidRequest


@dataclasses.dataclass(frozen=True)
class GraphFault:
    """One fault, with its place.

    node_id, class_type, field: None where the fault is the graph's as a whole, or the node's.
    type, message, details, extra_info: exactly as ComfyUI words it, for clients that know these.
    sentence: what was asked, what is so and what to do, for people.
    """

    type: str
    message: str
    details: str
    sentence: str
    node_id: str | None = None
    class_type: str | None = None
    field: str | None = None
    extra_info: dict[str, Any] = dataclasses.field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For Atoll's own API: the place, the type and the sentence."""
        return {
            "node_id": self.node_id,
            "class_type": self.class_type,
            "field": self.field,
            "type": self.type,
            "message": self.sentence,
        }


MOST_FAULTS = 100  # told of one workflow: nobody reads more, and a hostile one has thousands


def at_most(faults: Sequence[GraphFault]) -> list[GraphFault]:
    """The first faults, and how many more there are."""
    left = len(faults) - MOST_FAULTS
    if left <= 0:
        return list(faults)
    sentence = f"There are {left} more faults, which are not listed."
    return [*faults[:MOST_FAULTS], GraphFault("more_faults", "More faults", str(left), sentence)]


class InvalidGraph(InvalidRequest):
    """A workflow with faults; `faults` carries every one of them, as long as they can be read."""

    code = "invalid_graph"

    def __init__(self, faults: Sequence[GraphFault]) -> None:
        self.faults = tuple(faults if any(fault.type == "more_faults" for fault in faults) else at_most(faults))
        super().__init__("\n".join(fault.sentence for fault in self.faults))
