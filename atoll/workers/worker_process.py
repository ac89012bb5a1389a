"""`python -m atoll.workers.worker_process`: a worker in a process of its own, started by a `ProcessExecutor`.

stdin: the settings as one line of JSON, then any line to wake it; its end means that the parent is gone, however that
happened; `free results` or `free models` lets it forget. stdout: lines of news: `waiting` for the lock, `ready`,
`alive`, `news <job id>`, `device <JSON>`. stderr: the log.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import IO

from atoll.graph.node import Registry
from atoll.jobs.sql_store import SqlJobStore
from atoll.nodes.custom import running_registry
from atoll.settings import Settings
from atoll.workers.device_report import device_report
from atoll.workers.presence import WorkerLock, release_dead_workers
from atoll.workers.warm_up import warm_up
from atoll.workers.worker import DeviceFault, Worker

EXIT_DEVICE_FAULT = 3
NODES = "atoll.nodes.registry:core_registry"
LOCK_LOOK_S = 0.2
STUCK_S = 300.0  # a process in which no Python has run for so long is beyond help; imports and loading take less

log = logging.getLogger("atoll.workers")


class Link:
    """The lines between this process and its parent, and what must happen when the parent goes."""

    def __init__(self, commands: IO[str], news: IO[str]) -> None:
        self._commands = commands
        self._news = news
        self._lock = threading.Lock()
        self.worker: Worker | None = None

    def say(self, line: str) -> None:
        try:
            with self._lock:
                self._news.write(line + "\n")
                self._news.flush()
        except (OSError, ValueError):  # the parent is gone; `listen` sees to it
            pass

    def listen(self) -> None:
        for line in self._commands:
            if self.worker is not None:
                if line.startswith("free"):
                    self.worker.free_memory(models=line.strip() == "free models")
                self.worker.wake()
        self.leave("the studio closed")

    def leave(self, reason: str) -> None:
        """Give back what is being done and end the process without waiting for anything."""
        if self.worker is not None:
            self.worker.stop(reason)
        os._exit(0)


def main() -> None:
    arguments = argparse.ArgumentParser(prog="atoll.workers.worker_process")
    arguments.add_argument("--nodes", default=NODES, help="module:name of what makes the registry")
    nodes = arguments.parse_args().nodes
    link = _link_to_parent()
    settings = Settings.model_validate_json(sys.stdin.readline())
    logging.basicConfig(format="%(asctime)s worker %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    threading.Thread(target=link.listen, name="atoll-parent", daemon=True).start()
    _leave_on_signals(link)

    lock = WorkerLock(settings.home, settings.device)
    while not lock.acquire():
        link.say("waiting")
        time.sleep(LOCK_LOOK_S)
    store = SqlJobStore(settings.store_url, lease_s=settings.lease_s)
    release_dead_workers(store)
    worker = Worker(
        settings,
        store,
        running_registry(settings) if nodes == NODES else load_registry(nodes),
        on_news=lambda job_id: link.say(f"news {job_id}"),
        on_beat=_beat(link, settings.device),
    )
    link.worker = worker
    if nodes == NODES:
        warm_up(worker.registry, worker.models, worker.inputs, store, settings.default_model)
    _tell_device(link, settings.device)
    link.say("ready")
    try:
        worker.serve()
    except DeviceFault as error:
        log.error("%s", error)
        os._exit(EXIT_DEVICE_FAULT)
    threading.Event().wait()  # `leave` is giving tasks back, and ends the process when it has


def load_registry(name: str) -> Registry:
    """What the function at `module:name` gives."""
    module, _, function = name.partition(":")
    registry = getattr(importlib.import_module(module), function)()
    assert isinstance(registry, Registry), name
    return registry


def _link_to_parent() -> Link:
    """Keep stdout for news alone: whatever a library prints goes to stderr instead."""
    news = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return Link(sys.stdin, news)


def _leave_on_signals(link: Link) -> None:
    """SIGTERM and SIGINT give the task back at once, even while a long operation keeps the main thread from Python.

    A Python handler runs in the main thread alone; the wake-up pipe is written by the signal itself.
    """
    if sys.platform == "win32":  # where the parent closes stdin instead
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)

    def wait() -> None:
        number = os.read(reader, 1)[0]
        link.leave(f"the worker was told to stop ({signal.Signals(number).name})")

    threading.Thread(target=wait, name="atoll-signals", daemon=True).start()


def _beat(link: Link, device: str) -> Callable[[], None]:
    def beat() -> None:
        faulthandler.dump_traceback_later(STUCK_S, exit=True)  # needs no Python to fire
        link.say("alive")
        if "torch" in sys.modules and link.worker is not None:
            _tell_device(link, device)

    beat()
    return beat


def _tell_device(link: Link, device: str) -> None:
    if report := device_report(device):
        link.say(f"device {json.dumps(report)}")


if __name__ == "__main__":
    main()
