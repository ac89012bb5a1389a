"""What a user took out of ComfyUI's history. The jobs themselves stay, and Atoll's own pages go on showing them."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Collection
from pathlib import Path

from atoll.artifacts.files import write_durably
from atoll.jobs.job import JobHead, JobState

log = logging.getLogger(__name__)


class ClearedHistory:
    """Kept in one small JSON file: `{"cleared_at": seconds since 1970, "deleted": [job ids]}`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._cleared_at = 0.0
        self._deleted: set[str] = set()
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            self._cleared_at, self._deleted = float(kept["cleared_at"]), set(kept["deleted"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s cannot be read (%s): ComfyUI's history shows all jobs again.", path, error)

    def shows(self, head: JobHead) -> bool:
        """Whether history lists the job. One that was taken from the queue before it ran never gets there."""
        if not head.state.is_terminal or head.finished_at is None:
            return False
        if head.state is JobState.CANCELLED and head.started_at is None:
            return False
        return head.finished_at > self._cleared_at and head.job_id not in self._deleted

    def hides(self, head: JobHead) -> bool:
        """Whether the user took it out."""
        ended_at = head.finished_at if head.state.is_terminal else None
        return (ended_at is not None and ended_at <= self._cleared_at) or head.job_id in self._deleted

    def clear(self) -> None:
        with self._lock:
            self._cleared_at, self._deleted = time.time(), set()
            self._write()

    def delete(self, job_ids: Collection[str]) -> None:
        with self._lock:
            self._deleted |= set(job_ids)
            self._write()

    def _write(self) -> None:
        kept = {"cleared_at": self._cleared_at, "deleted": sorted(self._deleted)}
        write_durably(self._path, json.dumps(kept).encode())
