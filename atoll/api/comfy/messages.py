"""What happens to a job, told as ComfyUI's websocket tells it. Knows no socket and no store."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atoll.jobs.events import Event, EventKind
from atoll.jobs.job import Job

PREVIEW, PREVIEW_WITH_METADATA = 1, 4  # kinds of binary messages
JPEG = 1
# What ComfyUI keeps in `status.messages` of its history.
KEPT = {"execution_start", "execution_cached", "execution_success", "execution_error", "execution_interrupted"}
# What clients look for in `exception_type`; other codes stand for themselves.
EXCEPTION_TYPES = {"out_of_memory": "torch.OutOfMemoryError"}


@dataclass(frozen=True)
class Message:
    """A JSON message: `{"type", "data"}`."""

    type: str
    data: dict[str, Any]

    def to_text(self) -> str:
        return json.dumps({"type": self.type, "data": self.data})


@dataclass(frozen=True)
class Preview:
    """A picture of the step at hand, as a JPEG."""

    prompt_id: str
    node_id: str
    jpeg: bytes

    def to_bytes(self, *, with_metadata: bool) -> bytes:
        """Big-endian numbers, then the picture; metadata only for clients that said they understand it."""
        if not with_metadata:
            return struct.pack(">II", PREVIEW, JPEG) + self.jpeg
        node = dict.fromkeys(("node_id", "display_node_id", "real_node_id"), self.node_id)
        metadata = {**node, "parent_node_id": None, "prompt_id": self.prompt_id, "image_type": "image/jpeg"}
        text = json.dumps(metadata).encode()
        return struct.pack(">II", PREVIEW_WITH_METADATA, len(text)) + text + self.jpeg


class JobMessages:
    """One job's messages, made from its events, which must come in order and from the first one on.

    node_id: what runs now. kept: what history keeps of what was told. error: what `execution_error` says, if it failed.
    """

    def __init__(self, job: Job) -> None:
        self._prompt_id = job.job_id
        self._graph: Mapping[str, Any] = job.graph
        self.node_id: str | None = None
        self.kept: list[Message] = []
        self.error: dict[str, Any] | None = None
        self._start_anew()

    def apply(self, event: Event, outputs: Mapping[str, Any] | None = None) -> list[Message | Preview]:
        """What to tell of an event.

        outputs: with the event `done`, what each output node left (`artifact_names.outputs_by_node`).
        """
        told = self._messages_of(event, outputs or {})
        self.kept += [message for message in told if isinstance(message, Message) and message.type in KEPT]
        return told

    def _messages_of(self, event: Event, outputs: Mapping[str, Any]) -> list[Message | Preview]:
        data = event.data
        match event.kind:
            case EventKind.RUNNING:
                self._start_anew()
                return [self._message("execution_start", timestamp=_ms(event))]
            case EventKind.CACHED:
                return self._tell_cached(event, data["node_ids"])
            case EventKind.NODE:
                told = self._unless_told_cached(event)
                node_id = str(data["node_id"])
                self._finish_node(told)
                self.node_id = node_id
                self._note(node_id, 0, 1, "running")
                return [*told, self._progress_state(), self._message("executing", **_shown(node_id))]
            case EventKind.STEP:
                return self._tell_step(data)
            case EventKind.REQUEUED:
                self._start_anew()
            case EventKind.DONE:
                told = self._unless_told_cached(event)
                self._finish_node(told)
                told += [self._message("executed", **_shown(node), output=left) for node, left in outputs.items()]
                return [*told, self._message("execution_success", timestamp=_ms(event))]
            case EventKind.FAILED:
                self.error = self._error(event)
                return [Message("execution_error", self.error)]
            case EventKind.CANCELLED if self._started:
                where = self._where(self.node_id)
                return [self._message("execution_interrupted", **where, timestamp=_ms(event))]
        return []

    def _start_anew(self) -> None:
        self._nodes: dict[str, dict[str, Any]] = {}
        self._executed: list[str] = []
        self._told_cached = False
        self._started = False
        self.node_id = None
        self.kept = []

    def _unless_told_cached(self, event: Event) -> list[Message | Preview]:
        return [] if self._told_cached else self._tell_cached(event, [])

    def _tell_cached(self, event: Event, node_ids: list[str]) -> list[Message | Preview]:
        self._told_cached = True
        self._executed += node_ids
        return [self._message("execution_cached", nodes=node_ids, timestamp=_ms(event))]

    def _tell_step(self, data: Mapping[str, Any]) -> list[Message | Preview]:
        node_id, step, total = str(data["node_id"]), data["step"], data["total"]
        self._note(node_id, step, total, "running")
        told: list[Message | Preview] = [
            self._message("progress", value=step, max=total, node=node_id),
            self._progress_state(),
        ]
        if data.get("preview"):
            told.append(Preview(self._prompt_id, node_id, base64.b64decode(data["preview"])))
        return told

    def _finish_node(self, told: list[Message | Preview]) -> None:
        if self.node_id is not None:
            self._executed.append(self.node_id)
            most = self._nodes[self.node_id]["max"]
            self._note(self.node_id, most, most, "finished")
            self.node_id = None
            told.append(self._progress_state())

    def _note(self, node_id: str, value: int, most: int, state: str) -> None:
        ids = dict.fromkeys(("node_id", "display_node_id", "real_node_id"), node_id)
        self._nodes[node_id] = {
            "value": value,
            "max": most,
            "state": state,
            "prompt_id": self._prompt_id,
            "parent_node_id": None,
            **ids,
        }

    def _progress_state(self) -> Message:
        return self._message("progress_state", nodes=dict(self._nodes))

    def _message(self, type_: str, **data: Any) -> Message:
        self._started = True
        return Message(type_, {"prompt_id": self._prompt_id, **data})

    def _error(self, event: Event) -> dict[str, Any]:
        code, node_id = str(event.data.get("code")), event.data.get("node_id") or self.node_id
        inputs = self._graph.get(node_id or "", {}).get("inputs", {})
        return {
            "prompt_id": self._prompt_id,
            **self._where(node_id),
            "exception_message": str(event.data.get("message", "")),
            "exception_type": EXCEPTION_TYPES.get(code, code),
            "traceback": [],
            "current_inputs": {name: [value] for name, value in inputs.items() if not isinstance(value, list)},
            "current_outputs": list(self._executed),
            "timestamp": _ms(event),
        }

    def _where(self, node_id: str | None) -> dict[str, Any]:
        node_type = self._graph.get(node_id or "", {}).get("class_type", "")
        return {"node_id": node_id or "", "node_type": node_type, "executed": list(self._executed)}


def _shown(node_id: str) -> dict[str, str]:
    return {"node": node_id, "display_node": node_id}


def _ms(event: Event) -> int:
    return int(event.time * 1000)
