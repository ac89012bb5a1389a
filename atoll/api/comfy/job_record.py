"""A stored job as ComfyUI's clients see it: in the queue, in the history, and in the newer list of jobs."""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from atoll.api.comfy.artifact_names import outputs_by_node
from atoll.api.comfy.messages import JobMessages, Message
from atoll.api.comfy.reply import to_json
from atoll.api.services import REQUEST_KEY, StudioServices
from atoll.jobs.job import DOOR_NOTES, Job, JobHead, JobState

KEPT_RECORDS = 256  # ended jobs whose record is kept in memory: clients ask for the newest again and again
MOST_ARTIFACTS = 10_000  # of one job
PAGE = 1_000  # events read at once
# Keys to other services that a client may send along; they are not stored.
SECRETS = {"auth_token_comfy_org", "api_key_comfy_org"}

JOB_STATUS = {
    JobState.QUEUED: "pending",
    JobState.RUNNING: "in_progress",
    JobState.DONE: "completed",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
}


@dataclass(frozen=True)
class DoorNotes:
    """What came with a prompt beside its graph, kept under `DOOR_NOTES` in `Job.extra`.

    number: the place in the queue that the client asked for. extra_data: as it came, without secrets and extra_pnginfo.
    """

    client_id: str | None = None
    number: float | None = None
    front: bool = False
    extra_data: dict[str, Any] | None = None

    @classmethod
    def of(cls, job: Job) -> DoorNotes:
        """Nothing for a job that came in by another door, whatever it carries under our names."""
        notes = job.extra.get(DOOR_NOTES)
        kept = notes.get("comfy") if isinstance(notes, dict) else None
        if not isinstance(kept, dict):
            return cls()
        client_id, number, extra_data = kept.get("client_id"), kept.get("number"), kept.get("extra_data")
        return cls(
            client_id if isinstance(client_id, str) else None,
            number if isinstance(number, int | float) else None,
            kept.get("front") is True,
            extra_data if isinstance(extra_data, dict) else None,
        )

    def as_extra(self) -> dict[str, Any]:
        return {DOOR_NOTES: {"comfy": dict(vars(self))}}


@dataclass(frozen=True)
class JobRecord:
    """A job with its outputs by node, what history keeps of its messages, and its `execution_error`, if it failed."""

    job: Job
    output_nodes: list[str]
    outputs: dict[str, dict[str, Any]]
    messages: list[Message]
    error: dict[str, Any] | None

    def queue_entry(self) -> list[Any]:
        return queue_entry(self.job, self.output_nodes)

    def head(self) -> JobHead:
        job = self.job
        return JobHead(**{field.name: getattr(job, field.name) for field in fields(JobHead)})

    def history_entry(self) -> dict[str, Any]:
        return {
            "prompt": self.queue_entry(),
            "outputs": self.outputs,
            "status": self.execution_status(),
            "meta": {
                node_id: {
                    "node_id": node_id,
                    "display_node": node_id,
                    "parent_node": None,
                    "real_node_id": node_id,
                }
                for node_id in self.outputs
            },
        }

    @cached_property
    def history_json(self) -> bytes:
        """The entry as it is sent, encoded once: some clients ask for the whole history ten times a second."""
        return to_json(self.history_entry())

    def execution_status(self) -> dict[str, Any]:
        is_done = self.job.state is JobState.DONE
        return {
            "status_str": "success" if is_done else "error",
            "completed": is_done,
            "messages": [[message.type, message.data] for message in self.messages],
        }

    def job_entry(self) -> dict[str, Any]:
        """As GET /api/jobs lists it."""
        files = [(node, kind, file) for node, left in self.outputs.items() for kind in left for file in left[kind]]
        previewable = [entry for entry in files if entry[1] == "images"]
        kept = [entry for entry in previewable if entry[2]["type"] == "output"]
        shown = next(iter(kept or previewable), None)
        started, ended = self.job.started_at, self.job.finished_at
        return {
            "id": self.job.job_id,
            "status": JOB_STATUS[self.job.state],
            "priority": queue_number(self.job),
            "create_time": _ms(self.job.submitted_at),
            "execution_start_time": _ms(started),
            "execution_end_time": _ms(ended) if started is not None else None,
            "execution_error": self.error,
            "outputs_count": len(files),
            "previewable_outputs_count": len(previewable),
            "preview_output": {**shown[2], "nodeId": shown[0], "mediaType": shown[1]} if shown else None,
            "workflow_id": workflow_id_of(self.job),
        }

    def job_detail(self) -> dict[str, Any]:
        """As GET /api/jobs/{id} shows it."""
        ended = self.job.state.is_terminal
        return {
            **self.job_entry(),
            "outputs": self.outputs,
            "execution_status": self.execution_status() if ended else None,
            "workflow": {"prompt": self.job.graph, "extra_data": extra_data_of(self.job)},
        }


def queue_entry(job: Job, output_nodes: list[str]) -> list[Any]:
    """`[number, prompt_id, prompt, extra_data, outputs to make]`."""
    return [queue_number(job), job.job_id, job.graph, extra_data_of(job), output_nodes]


def queue_number(job: Job) -> float:
    """ComfyUI's place in the queue: lower runs first, negative ones were put in front."""
    notes = DoorNotes.of(job)
    return -job.number if notes.front else job.number if notes.number is None else notes.number


def extra_data_of(job: Job) -> dict[str, Any]:
    notes = DoorNotes.of(job)
    pnginfo = {name: value for name, value in job.extra.items() if name not in (DOOR_NOTES, REQUEST_KEY)}
    extra_data: dict[str, Any] = {**(notes.extra_data or {}), "create_time": _ms(job.submitted_at)}
    if notes.client_id is not None:
        extra_data["client_id"] = notes.client_id
    return {**extra_data, "extra_pnginfo": pnginfo} if pnginfo else extra_data


def workflow_id_of(job: Job) -> str | None:
    workflow = job.extra.get("workflow")
    id_ = workflow.get("id") if isinstance(workflow, dict) else None
    return id_ if isinstance(id_, str) else None


def is_prompt_id(value: object) -> bool:
    """Whether a client may name its job so: a UUID in its usual form."""
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False


class RecordBook:
    """Records of jobs, made from the store; those of ended jobs, which change no more, are kept for a while."""

    def __init__(self, services: StudioServices) -> None:
        self._services = services
        self._kept: OrderedDict[str, JobRecord] = OrderedDict()
        self._lock = threading.Lock()

    def record(self, job_id: str) -> JobRecord:
        """Raises: NotFound."""
        return self._kept_record(job_id) or self.record_of(self._services.job(job_id))

    def ended_record(self, job_id: str) -> JobRecord | None:
        """None for a job that waits or runs: cheap, since clients poll for the end. Raises: NotFound."""
        kept = self._kept_record(job_id)
        if kept is None:
            job = self._services.job(job_id)
            kept = self.record_of(job) if job.state.is_terminal else None
        return kept

    def entry_in_queue(self, job: Job) -> list[Any]:
        """As GET /queue lists a job that waits or runs."""
        return queue_entry(job, self._output_nodes(job))

    def record_of(self, job: Job) -> JobRecord:
        outputs: dict[str, dict[str, Any]] = {}
        messages = JobMessages(job)
        if job.state is not JobState.QUEUED:
            entries = self._services.artifacts(job_id=job.job_id, kind=None, limit=MOST_ARTIFACTS)
            outputs = outputs_by_node(entries, job.graph)
            replay_events(self._services, messages, job.job_id)
        record = JobRecord(job, self._output_nodes(job), outputs, messages.kept, messages.error)
        if job.state.is_terminal:
            with self._lock:
                self._kept[job.job_id] = record
                while len(self._kept) > KEPT_RECORDS:
                    self._kept.popitem(last=False)
        return record

    def _kept_record(self, job_id: str) -> JobRecord | None:
        with self._lock:
            if job_id in self._kept:
                self._kept.move_to_end(job_id)
            return self._kept.get(job_id)

    def _output_nodes(self, job: Job) -> list[str]:
        specs = {node_id: self._services.registry.get(node["class_type"]) for node_id, node in job.graph.items()}
        return [node_id for node_id, spec in specs.items() if spec is not None and spec.is_output]


def replay_events(services: StudioServices, messages: JobMessages, job_id: str, *, before: int | None = None) -> None:
    """Let `messages` take in the stored events of its job, those numbered below `before` only."""
    after = 0
    while page := services.read_events(job_id, after=after, limit=PAGE):
        for event in page:
            if before is not None and event.seq >= before:
                return
            messages.apply(event)
            after = event.seq
        if len(page) < PAGE:
            return


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)
