"""What a job is, the states it can be in, and the only moves between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from atoll.artifacts.artifact import Artifact

MAX_WORKER_DEATHS = 3  # a task that took down so many workers is not given to another one
DOOR_NOTES = "door"  # in Job.extra: what a door keeps with the job for itself; pictures do not carry it


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return not MOVES[self]


# A task moves as its job does. RUNNING -> QUEUED: its worker died, or gave the task back.
MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED}),
    JobState.RUNNING: frozenset({JobState.QUEUED, JobState.DONE, JobState.FAILED, JobState.CANCELLED}),
    JobState.DONE: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


@dataclass(frozen=True)
class Failure:
    """Why a job failed: `code` for programs, `message` for people, and the node where it happened."""

    code: str
    message: str
    node_id: str | None = None


@dataclass(frozen=True)
class Job:
    """A graph with a state. Times are seconds since 1970, UTC."""

    job_id: str
    number: int  # rises with every submitted job
    owner: str
    graph: dict[str, Any]  # ComfyUI's API form
    extra: dict[str, Any]  # what travels with the graph: "workflow" (the editor's form), the request it came from
    priority: int  # higher runs first
    state: JobState
    cancel_requested: bool
    attempts: int  # how often a worker has taken it up
    submitted_at: float
    started_at: float | None = None  # of the last attempt
    finished_at: float | None = None
    failure: Failure | None = None


@dataclass(frozen=True)
class JobHead:
    """A job without its graph: enough to list it. Times as for `Job`."""

    job_id: str
    number: int
    priority: int
    state: JobState
    submitted_at: float
    started_at: float | None
    finished_at: float | None


@dataclass(frozen=True)
class Task:
    """The piece of a job that one worker runs. Today each job is one task."""

    task_id: int
    job_id: str
    attempts: int
    worker_deaths: int


@dataclass(frozen=True)
class Lease:
    """The right to run a task and to record what came of it. Whoever holds the token last is right."""

    task_id: int
    job_id: str
    worker: str
    token: str
    expires_at: float


@dataclass(frozen=True)
class Claim:
    job: Job
    task: Task
    lease: Lease


@dataclass(frozen=True)
class Outcome:
    """What came of a task: DONE with artifacts, FAILED with a failure, or CANCELLED."""

    state: JobState
    artifacts: tuple[Artifact, ...] = ()
    failure: Failure | None = None
    data: dict[str, Any] = field(default_factory=dict)  # told with the last event: timings

    def __post_init__(self) -> None:
        if not self.state.is_terminal:
            raise ValueError(f"an outcome is a terminal state, not {self.state}")
        if (self.state is JobState.FAILED) != (self.failure is not None):
            raise ValueError("a failure belongs to FAILED, and to nothing else")


@dataclass(frozen=True)
class JobArtifact:
    """An artifact in the index: which job left it, and when."""

    number: int  # rises with every artifact
    job_id: str
    artifact: Artifact
    created_at: float
