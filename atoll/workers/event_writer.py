"""Events on their way to the store, written by a thread of their own so that no step waits for the disk."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from itertools import groupby

from atoll.errors import AtollError, JobCancelled, LeaseLost
from atoll.jobs.events import NewEvent
from atoll.jobs.store import JobStore
from atoll.workers.run import Run, may_pass

PAUSE_S = 0.2  # between two writes: what is told meanwhile goes into one transaction, and to listeners at once
RETRY_S = 0.5

log = logging.getLogger(__name__)


class EventWriter:
    """Writes events in the order in which they were told; learns on the way that a task is not wanted any more.

    on_news: told the job id after events of it were written, but not by `flush`: its caller has the last word.
    """

    def __init__(self, store: JobStore, on_news: Callable[[str], None]) -> None:
        self._store = store
        self._on_news = on_news
        self._told: list[tuple[Run, NewEvent]] = []
        self._told_count = self._written_count = self._flushing = 0
        self._closed = False
        lock = threading.Lock()  # of all that is above; who waits for one thing is not woken by another
        self._something_told = threading.Condition(lock)
        self._in_a_hurry = threading.Condition(lock)
        self._written = threading.Condition(lock)
        self._thread = threading.Thread(target=self._write_all, name="atoll-events", daemon=True)
        self._thread.start()

    def tell(self, run: Run, event: NewEvent) -> None:
        with self._something_told:
            self._told.append((run, event))
            self._told_count += 1
            self._something_told.notify()

    def flush(self) -> None:
        """Return when all that was told before is in the store, or will never be."""
        with self._written:
            wanted = self._told_count
            self._flushing += 1
            self._in_a_hurry.notify()
            self._written.wait_for(lambda: self._written_count >= wanted or self._closed)
            self._flushing -= 1

    def close(self) -> None:
        with self._written:
            self._closed = True
            self._something_told.notify()
            self._in_a_hurry.notify()
            self._written.notify_all()
        self._thread.join()

    def _write_all(self) -> None:
        while True:
            with self._something_told:
                self._something_told.wait_for(lambda: self._told or self._closed)
                if not self._told:
                    return
                batch, self._told = self._told, []
            for run, told in groupby(batch, key=lambda pair: pair[0]):
                self._write(run, [event for _, event in told])
            with self._written:
                self._written_count += len(batch)
                self._written.notify_all()
                self._in_a_hurry.wait_for(lambda: self._flushing or self._closed, timeout=PAUSE_S)

    def _write(self, run: Run, events: list[NewEvent]) -> None:
        while run.unwanted is None:
            try:
                self._store.report(run.lease, events)
                if not self._flushing:  # else the end of the job is news in a moment
                    self._on_news(run.job.job_id)
                return
            except (JobCancelled, LeaseLost) as reason:
                run.give_up(reason)
            except AtollError as error:
                if not may_pass(error):
                    log.exception("Events of job %s are left out.", run.job.job_id)
                    return
                log.warning("Events of job %s wait: %s", run.job.job_id, error)
                with self._in_a_hurry:
                    if self._in_a_hurry.wait_for(lambda: self._closed, timeout=RETRY_S):
                        return
