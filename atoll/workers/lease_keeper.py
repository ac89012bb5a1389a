"""The worker's heartbeat: keeps its leases, and looks whether its tasks are still wanted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from atoll.errors import AtollError, JobCancelled, LeaseLost
from atoll.jobs.store import JobStore
from atoll.workers.run import Run

LOOK_S = 0.25  # how late a cancel is heard when no step tells anything and nobody wakes us

log = logging.getLogger(__name__)


class LeaseKeeper:
    """A thread that renews the lease of each run it holds, and releases those of others that ran out.

    on_beat: called at least every third of a lease time while this thread lives.
    """

    def __init__(self, store: JobStore, lease_s: float, on_beat: Callable[[], None]) -> None:
        self._store = store
        self._every_s = lease_s / 3
        self._on_beat = on_beat
        self._runs: list[Run] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._keep, name="atoll-leases", daemon=True)
        self._thread.start()

    def hold(self, run: Run) -> None:
        with self._lock:
            self._runs.append(run)

    def drop(self, run: Run) -> None:
        with self._lock:
            self._runs.remove(run)

    def held(self) -> list[Run]:
        with self._lock:
            return list(self._runs)

    def look(self) -> None:
        """Look now: somebody may have cancelled."""
        self._wake.set()

    def close(self) -> None:
        self._closed = True
        self._wake.set()
        self._thread.join()

    def _keep(self) -> None:
        renewed_at = time.monotonic()
        while not self._closed:
            self._wake.wait(LOOK_S)
            self._wake.clear()
            if due := time.monotonic() >= renewed_at + self._every_s:
                renewed_at = time.monotonic()
                self._on_beat()
            try:
                for run in self.held():
                    self._see_to(run, renew=due)
                if due:
                    for job_id in self._store.release_expired():
                        log.warning("Job %s: its worker fell silent; released.", job_id)
            except AtollError as error:
                log.warning("Leases cannot be renewed: %s", error)

    def _see_to(self, run: Run, *, renew: bool) -> None:
        try:
            if run.computing and run.unwanted is None:
                self._store.report(run.lease)
        except (JobCancelled, LeaseLost) as reason:
            run.give_up(reason)
        if renew and not isinstance(run.unwanted, LeaseLost):
            try:
                self._store.renew(run.lease)
            except LeaseLost as reason:
                run.give_up(reason)
