"""Which workers live: a name that says where one runs, and a lock that only one of a home and device can hold."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import sys
import uuid
from functools import cache
from pathlib import Path
from typing import IO

import psutil

from atoll.jobs.store import JobStore

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


@cache
def own_host_name() -> str:
    """The network name with a mark of the network card: PCs set up from one image may share the name."""
    card = uuid.getnode()
    if card >> 40 & 1:  # there is no card, and this number is new in every process
        return socket.gethostname()
    return f"{socket.gethostname()}-{hashlib.sha256(card.to_bytes(6, 'big')).hexdigest()[:6]}"


def own_worker_name() -> str:
    """`host/pid/start`: of this process, and of no other one before or after it."""
    process = psutil.Process()
    return f"{own_host_name()}/{process.pid}/{process.create_time():.2f}"


def is_dead_worker(worker: str) -> bool:
    """Whether the worker ran on this machine and is gone. False for what can't be told: another host's."""
    host, _, process = worker.rpartition("/")[0].rpartition("/")
    started = worker.rpartition("/")[2]
    if host != own_host_name() or not process.isdecimal():
        return False
    try:
        found = psutil.Process(int(process))
        return found.status() == psutil.STATUS_ZOMBIE or f"{found.create_time():.2f}" != started
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:  # it lives, as another user
        return False


class WorkerLock:
    """Held by the worker of a home and device for as long as its process lives, however that ends."""

    def __init__(self, home: Path, device: str) -> None:
        self._path = home / "workers" / f"{re.sub(r'[^A-Za-z0-9]+', '-', device)}.lock"
        self._file: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Returns: False when another process, or another lock object of this one, holds it."""
        if self._file is not None:
            return True
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("ab")
        try:
            if sys.platform == "win32":
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return False
        os.set_inheritable(file.fileno(), False)
        self._file = file
        return True

    def release(self) -> None:
        """Let the next one have it. The file stays: removing it could take away another one's lock."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def is_held(self) -> bool:
        """Whether a worker, here or elsewhere, holds it now."""
        if self._file is not None:
            return True
        if self.acquire():
            self.release()
            return False
        return True


def release_dead_workers(store: JobStore) -> list[str]:
    """Give back the tasks of workers that died on this machine, without waiting for their leases to run out.

    Returns: the jobs that were released.
    """
    return [
        lease.job_id
        for lease in store.leases()
        if is_dead_worker(lease.worker) and store.release(lease, reason="its worker died", died=True)
    ]
