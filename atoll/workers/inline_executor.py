"""One job in this process, for a command line with no studio running."""

from __future__ import annotations

import threading

from atoll.graph.node import Registry
from atoll.jobs.store import JobStore
from atoll.settings import Settings
from atoll.workers.presence import WorkerLock, release_dead_workers
from atoll.workers.worker import Worker

LOOK_S = 0.1  # for the lock, while another process works on this home and device


class InlineExecutor:
    """Runs jobs with a worker of this process, which keeps its models warm between them.

    registry: the nodes, if not Atoll's own.
    """

    def __init__(self, settings: Settings, store: JobStore, *, registry: Registry | None = None) -> None:
        self._settings = settings
        self._store = store
        self._registry = registry
        self._worker: Worker | None = None
        self._stopping = threading.Event()

    def run(self, job_id: str) -> None:
        """Return when the job has ended, by this worker or by another one that took it first.

        Raises: NotFound.
        """
        lock = WorkerLock(self._settings.home, self._settings.device)
        try:
            while not self._stopping.is_set() and not self._store.get(job_id).state.is_terminal:
                if not lock.acquire():
                    self._stopping.wait(LOOK_S)
                    continue
                release_dead_workers(self._store)
                if self._worker is None:
                    self._worker = self._new_worker()
                if not self._worker.run_next(job_id):
                    self._store.release_expired()
                    self._stopping.wait(LOOK_S)
                self._worker.finish()
        finally:
            lock.release()

    def wake(self) -> None:
        """The job may have been cancelled. From any thread."""
        if self._worker is not None:
            self._worker.wake()

    def stop(self) -> None:
        """Give back what is being done, so that another worker can run it. From any thread."""
        self._stopping.set()
        if self._worker is not None:
            self._worker.stop("the process that ran it ended")

    def close(self) -> None:
        """End the worker's threads."""
        if self._worker is not None:
            self._worker.close()

    def _new_worker(self) -> Worker:
        if self._registry is None:
            from atoll.nodes.custom import running_registry

            self._registry = running_registry(self._settings)
        return Worker(self._settings, self._store, self._registry)
