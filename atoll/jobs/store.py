"""What every job store promises."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from atoll.jobs.events import Event, NewEvent
from atoll.jobs.job import Claim, Job, JobArtifact, JobHead, JobState, Lease, Outcome


class JobStore(Protocol):
    """Jobs, their tasks, leases, events and artifacts, kept through any crash.

    Every method is one transaction and may be called from any thread. What `submit` and `record` return from
    survives a power cut. A move that `MOVES` does not know is refused.
    Raises from any method: AtollError "store_unavailable" when the database can't be reached, StorageFull.
    """

    # The owner's side

    def submit(
        self,
        graph: dict[str, Any],
        *,
        owner: str = "local",
        priority: int = 0,
        extra: dict[str, Any] | None = None,
        job_id: str | None = None,
        on_queued: Callable[[], None] | None = None,
    ) -> Job:
        """Queue a graph. With `job_id` it may be repeated: the same graph gives the same job, queued once.

        Args:
            on_queued: called once workers can see the job, while the disk may still be at work: time to wake one.
        Raises: InvalidRequest when `job_id` is another graph's, or no name (1 to 64 letters, digits, `-` and `_`).
        """

    def get(self, job_id: str) -> Job:
        """Raises: NotFound."""

    def jobs(
        self,
        *,
        states: Collection[JobState] | None = None,
        owner: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Job]:
        """Newest first; `before` is the `number` of the last job seen."""

    def heads(
        self, *, states: Collection[JobState] | None = None, owner: str | None = None, offset: int = 0, limit: int = 50
    ) -> list[JobHead]:
        """Newest first, after `offset` of them; reads no graphs, so thousands cost little."""

    def counts(self) -> dict[JobState, int]:
        """How many jobs are in each state; every state is named."""

    def queue_position(self, job_id: str) -> int | None:
        """How many queued jobs run before this one; None if it is not queued. Raises: NotFound."""

    def cancel(self, job_id: str) -> Job:
        """Cancel now if queued; if running, tell its worker at its next report. Ended jobs stay as they are.

        Raises: NotFound.
        """

    def events(self, job_id: str | None = None, *, after: int = 0, limit: int = 1000) -> list[Event]:
        """Events numbered above `after`, in order. Who resumes after the last one seen misses none."""

    def last_seq(self) -> int:
        """The number of the newest event, 0 if there is none."""

    def artifacts(
        self,
        *,
        job_id: str | None = None,
        kind: str | None = "output",
        before: int | None = None,
        limit: int = 50,
    ) -> list[JobArtifact]:
        """Newest first (of one job: in the order its nodes made them); `before` is the last `number` seen."""

    def artifact(self, sha256: str) -> JobArtifact:
        """The newest artifact with this content. Raises: NotFound."""

    # The worker's side

    def claim(self, worker: str, *, job_id: str | None = None) -> Claim | None:
        """Take the next task: highest priority, then first submitted; or only that of `job_id`. None: nothing to do."""

    def report(self, lease: Lease, new_events: Sequence[NewEvent] = ()) -> None:
        """Tell what happened. With no events: only look whether the task is still wanted.

        Raises: JobCancelled when the owner wants it stopped (nothing was told), LeaseLost.
        """

    def renew(self, lease: Lease) -> Lease:
        """Hold the task for another lease time. Raises: LeaseLost."""

    def record(self, lease: Lease, outcome: Outcome) -> None:
        """End the task: state, artifacts and events in one transaction. Raises: LeaseLost, and nothing is written."""

    def release(self, lease: Lease, *, reason: str, died: bool) -> bool:
        """Give a task back. `died`: its worker did not do so itself, which counts against the task.

        The job is queued again, cancelled if that was asked for, or failed when it took down MAX_WORKER_DEATHS workers.
        Returns: False if the lease was lost already.
        """

    def release_expired(self) -> list[str]:
        """Release, as died, every task whose lease ran out: their job ids. Every process calls it now and then."""

    def leases(self) -> list[Lease]:
        """Every lease that is held."""

    def close(self) -> None:
        """Let go of the database."""
