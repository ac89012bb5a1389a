"""Requests that are being worked on, each with how far it has come: what progress, interrupt and skip look at."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from atoll.jobs.events import Event, EventKind


@dataclass
class Ticket:
    """One request: several jobs, one for each batch. Touched on the event loop only.

    job_no: which of the jobs is waited for. step, steps: of its sampler; 0 until it starts. preview: a JPEG in base64.
    """

    caller: str
    name: str
    task_id: str
    job_ids: list[str] = field(default_factory=list)
    job_no: int = 0
    is_running: bool = False
    step: int = 0
    steps: int = 0
    preview: str | None = None
    preview_number: int = 0
    interrupted: bool = False
    skipped: bool = False
    started_at: float = field(default_factory=time.time)

    def hear(self, event: Event) -> None:
        if event.kind is EventKind.RUNNING:
            self.is_running = True
        elif event.kind is EventKind.STEP:
            self.step, self.steps = event.data.get("step", 0), event.data.get("total", 0)
            if event.data.get("preview"):
                self.preview = event.data["preview"]
                self.preview_number += 1
        elif event.kind is EventKind.REQUEUED:
            self.is_running, self.step = False, 0

    def next_job(self) -> None:
        self.job_no += 1
        self.step = self.steps = 0
        self.skipped = False

    @property
    def progress(self) -> float:
        """0.01 .. 1 while it is worked on, which A1111 never lets read 0."""
        count = max(1, len(self.job_ids))
        within = self.step / self.steps if self.steps else 0.0
        return min(1.0, max(0.01, (self.job_no + within) / count))

    @property
    def eta_s(self) -> float:
        elapsed = time.time() - self.started_at
        return elapsed / self.progress - elapsed if self.step or self.job_no else 0.0


class InFlight:
    """The tickets of all callers, oldest first."""

    def __init__(self) -> None:
        self._tickets: list[Ticket] = []

    @contextmanager
    def working(self, ticket: Ticket) -> Iterator[Ticket]:
        self._tickets.append(ticket)
        try:
            yield ticket
        finally:
            self._tickets.remove(ticket)

    def of(self, caller: str) -> list[Ticket]:
        return [ticket for ticket in self._tickets if ticket.caller == caller]

    def current(self, caller: str) -> Ticket | None:
        """The one of this caller's that is worked on now, else the one that waits longest."""
        own = self.of(caller)
        return next((ticket for ticket in own if ticket.is_running), own[0] if own else None)

    def task(self, caller: str, task_id: str) -> Ticket | None:
        return next((ticket for ticket in self.of(caller) if ticket.task_id == task_id), None)
