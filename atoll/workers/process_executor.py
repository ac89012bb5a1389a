"""Keeping one worker process alive beside the server: start it, wake it, hear it, replace it. Imports no torch."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import IO, Any

from atoll.errors import AtollError
from atoll.jobs.store import JobStore
from atoll.settings import Settings
from atoll.workers.presence import release_dead_workers

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0  # before a worker that died is replaced; doubles each time
PROVEN_S = 30.0  # a worker that lived for so long was no failed start
STARTING_S = 300.0  # until the first `ready`: libraries and a model from a slow disk
STOP_S = 5.0  # for a worker to give its task back

log = logging.getLogger(__name__)


def ignore_news() -> None:
    """For callers that read the store by themselves."""


class ProcessExecutor:
    """A worker process for this home and device, replaced when it dies or falls silent.

    Args:
        on_news: called, from a thread of ours, after the worker stored something.
        nodes: `module:name` of the function that gives the registry, if not Atoll's own.
    """

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        *,
        on_news: Callable[[], None] = ignore_news,
        nodes: str | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._on_news = on_news
        self._arguments = ["--nodes", nodes] if nodes else []
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._condition = "the worker has not been started"
        self._device: dict[str, Any] | None = None
        self._heard_at = 0.0
        self._threads = [
            threading.Thread(target=self._keep_running, name="atoll-executor", daemon=True),
            threading.Thread(target=self._watch, name="atoll-executor-watch", daemon=True),
        ]

    def start(self) -> None:
        """Returns at once; `condition` tells when the worker is up."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """There is a new job, or one was cancelled. Costs some microseconds; from any thread."""
        self._say("\n")

    def _say(self, line: str) -> None:
        with self._lock:
            if self._process is not None and self._process.stdin is not None:
                try:
                    self._process.stdin.write(line)
                    self._process.stdin.flush()
                except (OSError, ValueError):  # it just died; the next one looks by itself
                    pass

    def free_memory(self, *, models: bool) -> None:
        """Let the worker forget, after the task at hand, what it only keeps to save time. From any thread."""
        self._say("free models\n" if models else "free results\n")

    def device(self) -> dict[str, Any] | None:
        """The worker's device as it last told (see `device_report`); None before it did."""
        return self._device

    def condition(self) -> str:
        """ "ok", or in words why no worker is up."""
        return self._condition

    def worker_pid(self) -> int | None:
        """The process that runs now, if one does."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def stop(self) -> None:
        """End the worker. What it was doing goes back to the queue."""
        self._stopping.set()
        with self._lock:
            process = self._process
            if process is not None:
                _close(process.stdin)
        if process is not None:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        self._condition = "the worker was stopped"

    def _keep_running(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._stopping.is_set():
            started = time.monotonic()
            self._condition = "the worker is starting"
            try:
                code = self._run_process()
            except OSError as error:
                log.error("The worker cannot be started: %s", error)
                code = -1
            if self._stopping.is_set():
                return
            pause_s = FIRST_PAUSE_S if time.monotonic() - started > PROVEN_S else min(2 * pause_s, LONGEST_PAUSE_S)
            self._condition = f"the worker ended with code {code} and is started again"
            log.warning("The worker ended with code %s; another one starts in %.1f s.", code, pause_s)
            self._release_its_tasks()
            self._stopping.wait(pause_s)

    def _run_process(self) -> int:
        """Run one worker from its start to its end."""
        process = subprocess.Popen(
            [sys.executable, "-m", "atoll.workers.worker_process", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=sys.platform != "win32",  # Ctrl+C is for the server, which then ends its worker
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        assert process.stdin is not None and process.stdout is not None
        with self._lock:
            self._heard_at = time.monotonic()
            self._process = process
            if self._stopping.is_set():
                _close(process.stdin)
        try:
            try:
                process.stdin.write(_settings_line(self._settings))
                process.stdin.flush()
            except (OSError, ValueError):
                pass  # it died at once; its code says why
            for line in process.stdout:
                self._hear(line.strip())
            return process.wait()
        finally:
            with self._lock:
                self._process = None
                _close(process.stdin)
            process.stdout.close()

    def _hear(self, line: str) -> None:
        self._heard_at = time.monotonic()
        if line == "ready":
            self._condition = "ok"
        elif line == "waiting":
            self._condition = "another worker is using this home and device; waiting for it to end"
        elif line.startswith("news"):
            self._on_news()
        elif line.startswith("device "):
            self._device = json.loads(line.removeprefix("device "))

    def _watch(self) -> None:
        """Replace a worker that lives but says nothing; release what others left."""
        every_s = self._settings.lease_s / 3
        while not self._stopping.wait(every_s):
            limit_s = STARTING_S if self._condition != "ok" else 2 * self._settings.lease_s
            with self._lock:
                if self._process is not None and time.monotonic() > self._heard_at + limit_s:
                    log.error("The worker said nothing for %.0f s and is killed.", limit_s)
                    self._process.kill()
            try:
                if self._store.release_expired():
                    self._on_news()
            except AtollError as error:
                log.warning("Expired leases cannot be released: %s", error)

    def _release_its_tasks(self) -> None:
        try:
            if release_dead_workers(self._store):
                self._on_news()
        except AtollError as error:  # the leases run out by themselves
            log.warning("The dead worker's tasks wait for their leases to end: %s", error)


def _settings_line(settings: Settings) -> str:
    """Settings as the worker reads them from its stdin, which no other process can look into; secrets included."""
    fields = settings.model_dump(mode="json", exclude={"database_url"})
    if settings.database_url is not None:
        fields["database_url"] = settings.database_url.get_secret_value()
    return json.dumps(fields) + "\n"


def _close(pipe: IO[str] | None) -> None:
    if pipe is not None:
        with contextlib.suppress(OSError):  # something was unsent, and nobody is there to read it
            pipe.close()
