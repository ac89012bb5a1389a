"""What happened to a job, as numbered rows: whoever reconnects resumes after the last number seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class EventKind(StrEnum):
    QUEUED = "queued"  # {priority}
    RUNNING = "running"  # {worker, attempt}
    CACHED = "cached"  # {node_ids}: results of these are taken from what the worker remembers
    NODE = "node"  # {node_id, class_type}: this node computes now
    STEP = "step"  # {node_id, step, total, preview}: step k of n is done; preview is a JPEG in base64 or None
    ARTIFACT = "artifact"  # the artifact's fields
    DONE = "done"  # {artifacts: how many, ...}
    FAILED = "failed"  # {code, message, node_id}
    CANCELLED = "cancelled"  # {}
    REQUEUED = "requeued"  # {reason}: its worker died or stopped; it runs again from its start

    @property
    def is_terminal(self) -> bool:
        return self in (EventKind.DONE, EventKind.FAILED, EventKind.CANCELLED)


@dataclass(frozen=True)
class NewEvent:
    """An event that has no number yet."""

    kind: EventKind
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """An event as stored. `seq` rises over all jobs, in the order in which readers can see the rows."""

    seq: int
    job_id: str
    kind: EventKind
    data: dict[str, Any]
    time: float  # seconds since 1970, UTC
