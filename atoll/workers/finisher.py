"""The end of a job: pictures become files and the outcome is recorded, while the worker computes the next job."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from queue import Queue
from typing import TYPE_CHECKING

from atoll.artifacts.artifact import Artifact, ArtifactKind
from atoll.artifacts.files import ArtifactFiles
from atoll.artifacts.png import encode_png
from atoll.errors import AtollError, JobCancelled, LeaseLost
from atoll.jobs.job import JobState, Outcome
from atoll.jobs.store import JobStore
from atoll.workers.event_writer import EventWriter
from atoll.workers.failures import failure_of
from atoll.workers.run import Run, may_pass

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WAITING_PICTURES = 8  # more than so many unencoded ones make the worker wait, which bounds the memory
RETRY_S = 0.5

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """An image on its way to be an artifact: (height, width, channels), with the text it will carry."""

    image: NDArray[np.uint8]
    filename: str
    kind: ArtifactKind
    node_id: str
    index: int
    metadata: Mapping[str, str]


class Finisher:
    """Encodes, stores and records, in the order in which it is asked.

    on_end: told each run when nothing is left to do for it.
    """

    def __init__(
        self, store: JobStore, files: ArtifactFiles, events: EventWriter, on_end: Callable[[Run], None]
    ) -> None:
        self._store = store
        self._files = files
        self._events = events
        self._on_end = on_end
        self._closing = threading.Event()
        self._asked: Queue[tuple[Run, Picture | Outcome] | None] = Queue(maxsize=WAITING_PICTURES)
        self._thread = threading.Thread(target=self._finish_all, name="atoll-finisher", daemon=True)
        self._thread.start()

    def save(self, run: Run, picture: Picture) -> None:
        """Queue a picture; waits only while many others do."""
        self._asked.put((run, picture))

    def end(self, run: Run, outcome: Outcome) -> None:
        """Queue the end of a run, after its pictures, which become the outcome's artifacts."""
        self._asked.put((run, outcome))

    def wait(self) -> None:
        """Return when all that was asked for is done."""
        self._asked.join()

    def close(self) -> None:
        """Return when all that was asked for is done, or cannot be done now."""
        self._closing.set()
        self._asked.put(None)
        self._thread.join()

    def _finish_all(self) -> None:
        while asked := self._asked.get():
            run, work = asked
            try:
                if isinstance(work, Picture):
                    self._store_picture(run, work)
                else:
                    self._record(run, work)
            except Exception:  # a fault of ours must not stop the jobs that come after
                log.exception("Job %s could not be ended.", run.job.job_id)
                run.give_up(LeaseLost("Its end could not be recorded."))
                self._store.release(run.lease, reason="its end could not be recorded", died=True)
            self._asked.task_done()

    def _store_picture(self, run: Run, picture: Picture) -> None:
        if run.unwanted or run.failure:
            return
        try:
            content = encode_png(picture.image, picture.metadata)
            sha256 = self._files.write(content, ".png")
        except Exception as error:
            run.failure = failure_of(error, run.job, picture.node_id)
            run.give_up(JobCancelled("A picture of this job could not be stored, so the rest is not computed."))
            return
        height, width = picture.image.shape[:2]
        run.artifacts.append(
            Artifact(
                sha256=sha256,
                filename=picture.filename,
                media_type="image/png",
                size_bytes=len(content),
                width=width,
                height=height,
                kind=picture.kind,
                node_id=picture.node_id,
                index=picture.index,
            )
        )

    def _record(self, run: Run, outcome: Outcome) -> None:
        self._events.flush()
        if run.failure:
            outcome = Outcome(JobState.FAILED, failure=run.failure)
        elif run.unwanted is not None:  # it was cancelled late, and pictures may have been left out
            outcome = Outcome(JobState.CANCELLED)
        elif outcome.state is JobState.DONE:
            outcome = replace(outcome, artifacts=tuple(run.artifacts))
        while not isinstance(run.unwanted, LeaseLost):
            try:
                self._store.record(run.lease, outcome)
                break
            except LeaseLost as reason:  # the task is run again elsewhere, and its artifacts have the same names
                log.warning("%s", reason)
                run.give_up(reason)
            except AtollError as error:
                if not may_pass(error):
                    raise
                log.warning("The end of job %s waits: %s", run.job.job_id, error)
                if self._closing.is_set():
                    break
                time.sleep(RETRY_S)
        self._on_end(run)
