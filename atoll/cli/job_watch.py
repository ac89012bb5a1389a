"""Seeing a job through in a terminal: by a studio that runs on this home, or else by a worker in this process."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import typer

from atoll.cli.terminal import EXIT_CANCELLED, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, print_json, say
from atoll.jobs.events import Event, EventKind
from atoll.jobs.job import Job, JobState
from atoll.workers.inline_executor import InlineExecutor

if TYPE_CHECKING:
    from atoll.api.services import StudioServices

LOOK_EVERY_S = 0.05  # at the store: a query of well under a millisecond

EXIT_CODES = {JobState.DONE: EXIT_OK, JobState.FAILED: EXIT_FAILED, JobState.CANCELLED: EXIT_CANCELLED}


def see_through(services: StudioServices, job: Job, *, quiet: bool) -> tuple[Job, int]:
    """Work on the job, or wait for who does, until it has ended. Ctrl+C cancels it; a second one leaves at once.

    Returns: the ended job and the exit code.
    """
    inline = InlineWork(services, job.job_id)
    with Progress(quiet) as progress:
        try:
            inline.start()
            for event in follow(services, job.job_id, idle=inline.raise_error):
                progress.show(event)
            inline.finish()
            job = services.job(job.job_id)
            return job, EXIT_CODES[job.state]
        except KeyboardInterrupt:
            progress.describe("Cancelling")
            services.cancel(job.job_id)
            inline.give_back()
            for event in follow(services, job.job_id):  # if another process works on it: until that has stopped
                progress.show(event)
            return services.job(job.job_id), EXIT_INTERRUPTED


def follow(services: StudioServices, job_id: str, *, idle: Callable[[], None] | None = None) -> Iterator[Event]:
    """The job's events until its last. `idle` is called between looks; what it raises ends the following."""
    after = 0
    while True:
        ended = services.job(job_id).state.is_terminal
        page = services.read_events(job_id, after=after)
        for event in page:
            after = event.seq
            yield event
            if event.kind.is_terminal:
                return
        if ended and not page:
            return
        if idle is not None:
            idle()
        time.sleep(LOOK_EVERY_S)


class InlineWork:
    """A worker in this process that takes up the job if, and as soon as, nobody else works for this home."""

    def __init__(self, services: StudioServices, job_id: str) -> None:
        self._executor = InlineExecutor(services.settings, services.store)
        self._job_id = job_id
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="inline worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """The job has ended; put everything away."""
        self._executor.stop()
        self._thread.join(timeout=10)
        self._executor.close()

    def give_back(self) -> None:
        """Return at once, though the thread may still be loading a model: the job is not this process's any more."""
        self._executor.stop()

    def raise_error(self) -> None:
        """Raises: what kept the worker in this process from working."""
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            self._executor.run(self._job_id)
        except BaseException as error:  # handed to the thread that talks to the user
            self._error = error


class Progress:
    """A bar on stderr where that is a terminal; nothing where it is not, or if quiet."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self._bar = RichProgress(
                *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True
            )
            self._bar.start()
            self._task = self._bar.add_task("Queued", total=None)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def describe(self, text: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description=text)

    def show(self, event: Event) -> None:
        if self._bar is None:
            return
        if event.kind is EventKind.STEP:
            step, total = event.data.get("step"), event.data.get("total")
            self._bar.update(self._task, description="Sampling", completed=step, total=total)
        elif event.kind is EventKind.NODE:
            self.describe(str(event.data.get("class_type")))
        elif event.kind in (EventKind.QUEUED, EventKind.REQUEUED):
            self.describe("Queued")


def tell_end(services: StudioServices, job: Job, paths: list[str], *, as_json: bool) -> None:
    """Say how the job ended and where its pictures are."""
    from atoll.api.services import request_of

    request = request_of(job)
    seed = request.seed if request else None
    if as_json:
        failure = vars(job.failure) if job.failure else None
        print_json({"job_id": job.job_id, "state": job.state, "seed": seed, "pictures": paths, "failure": failure})
        return
    for path in paths:
        typer.echo(path)
    if job.state is JobState.DONE and seed is not None:
        say(f"Seed {seed}.")
    elif job.failure is not None:
        say(f"atoll: {job.failure.message}")
    elif job.state is JobState.CANCELLED:
        say("Cancelled.")
