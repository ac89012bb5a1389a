"""A worker: owns one device, keeps models warm, and runs one task after another.

Four threads: the caller's computes; events are written, leases kept and pictures finished beside it.
"""

from __future__ import annotations

import base64
import gc
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import psutil

from atoll.artifacts.artifact import ArtifactKind
from atoll.artifacts.files import ArtifactFiles
from atoll.artifacts.input_files import InputFiles
from atoll.errors import AtollError, JobCancelled, LeaseLost
from atoll.graph.execute import NodeState, ResultCache, run_graph
from atoll.graph.graph import Graph
from atoll.graph.node import LoadedModels, Registry
from atoll.jobs.events import EventKind, NewEvent
from atoll.jobs.job import DOOR_NOTES, Claim, JobState, Outcome
from atoll.jobs.store import JobStore
from atoll.settings import Settings
from atoll.workers.event_writer import EventWriter
from atoll.workers.failures import failure_of, is_device_fault, is_out_of_memory
from atoll.workers.finisher import Finisher, Picture
from atoll.workers.lease_keeper import LeaseKeeper
from atoll.workers.presence import own_worker_name
from atoll.workers.run import Run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

IDLE_LOOK_S = 1.0  # how late a job is found that another process submitted without waking us
PREVIEW_EVERY_S = 0.3
RESULT_CACHE_BYTES = min(2**30, psutil.virtual_memory().total // 8)

log = logging.getLogger(__name__)


class DeviceFault(AtollError):
    """The device's context is broken: this process cannot go on, another one can."""

    code = "device_fault"


def ignore_news(job_id: str) -> None:
    """For callers that read the store by themselves."""


def ignore_beat() -> None:
    """For callers that don't watch over the worker."""


class Worker:
    """Claims tasks and runs them with the nodes of `registry`.

    Args:
        on_news: told a job's id, from any thread, after something about it was stored.
        on_beat: called every third of a lease time for as long as the process is healthy.
    """

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        registry: Registry,
        *,
        on_news: Callable[[str], None] = ignore_news,
        on_beat: Callable[[], None] = ignore_beat,
    ) -> None:
        self.name = own_worker_name()
        self._store = store
        self._settings = settings
        self.registry = registry
        self._on_news = on_news
        self._cache = ResultCache(RESULT_CACHE_BYTES, size_in_bytes)
        self._wake = threading.Event()
        self._stopping = False
        self._asked_to_free: set[str] = set()
        files = ArtifactFiles(settings.artifacts_dir)
        self.inputs = InputFiles(settings.inputs_dir, files)
        self._events = EventWriter(store, on_news)
        self._leases = LeaseKeeper(store, settings.lease_s, on_beat)
        self._finisher = Finisher(store, files, self._events, self._on_end)

    @cached_property
    def models(self) -> LoadedModels:
        """Made when first asked for, since it loads torch."""
        from atoll.nodes.model_shelf import ModelShelf

        return ModelShelf.from_settings(self._settings)

    def serve(self) -> None:
        """Run tasks until `stop`. Raises: DeviceFault, after giving the task back."""
        while not self._stopping:
            self._wake.clear()
            try:
                if not self.run_next():
                    self._wake.wait(IDLE_LOOK_S)
            except DeviceFault:
                raise
            except AtollError as error:
                log.warning("No task can be claimed: %s", error)
                self._wake.wait(IDLE_LOOK_S)

    def run_next(self, job_id: str | None = None) -> bool:
        """Claim a task, or that of `job_id`, and compute it; its end is recorded a little later. False: none there."""
        claim = self._store.claim(self.name, job_id=job_id)
        self._free_what_was_asked()
        if claim is None:
            return False
        self._run(claim)
        return True

    def wake(self) -> None:
        """There may be a new task, or one may have been cancelled. From any thread."""
        self._wake.set()
        self._leases.look()

    def free_memory(self, *, models: bool) -> None:
        """Between two tasks, let go of remembered results, and of the loaded models if so asked. From any thread."""
        self._asked_to_free.add("results")
        if models:
            self._asked_to_free.add("models")
        self._wake.set()

    def stop(self, reason: str) -> None:
        """Give back every task that is not recorded, at once, so that others can run it. From any thread."""
        self._stopping = True
        self._wake.set()
        for run in self._leases.held():
            run.give_up(LeaseLost(f"This worker stops: {reason}."))
            try:
                if self._store.release(run.lease, reason=reason, died=False):
                    self._on_news(run.job.job_id)
            except AtollError as error:  # the lease runs out by itself
                log.warning("Job %s could not be given back: %s", run.job.job_id, error)

    def finish(self) -> None:
        """Return when the end of every task that was computed is recorded."""
        self._finisher.wait()

    def close(self) -> None:
        """Finish what was computed and end the threads."""
        self._finisher.close()
        self._events.close()
        self._leases.close()

    def _run(self, claim: Claim) -> None:
        run = Run(claim)
        context = _Context(self, run, self._events, self._finisher)
        self._leases.hold(run)
        started = time.perf_counter()
        try:
            context.graph = Graph.from_api(run.job.graph)
            run_graph(context.graph, self.registry, self._cache, context, context.on_node)
            outcome = Outcome(JobState.DONE, data={"seconds": round(time.perf_counter() - started, 4)})
        except JobCancelled:
            outcome = Outcome(JobState.CANCELLED)
        except LeaseLost:
            self._leases.drop(run)
            return
        except Exception as error:
            if is_device_fault(error):
                self._store.release(run.lease, reason=f"the device failed: {error}", died=True)
                raise DeviceFault(f"The device failed: {error}. This worker is replaced.") from error
            failure = failure_of(error, run.job, context.node_id or None, context.place)
            if is_out_of_memory(error):
                self._free_memory()
            outcome = Outcome(JobState.FAILED, failure=failure)
        finally:
            run.computing = False
        self._finisher.end(run, outcome)

    def _free_what_was_asked(self) -> None:
        asked, self._asked_to_free = self._asked_to_free, set()
        if asked:
            self._free_memory(models="models" in asked)

    def _free_memory(self, *, models: bool = False) -> None:
        """Let go of what is only kept to save time: results, and models if so asked."""
        self._cache.clear()
        if models and "models" in vars(self):  # else none was ever loaded
            self.models.clear()
        gc.collect()
        if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _on_end(self, run: Run) -> None:
        self._leases.drop(run)
        self._on_news(run.job.job_id)


class _Context:
    """What the nodes of one run may ask for: a NodeContext."""

    def __init__(self, worker: Worker, run: Run, events: EventWriter, finisher: Finisher) -> None:
        self.node_id = ""
        self.graph = Graph()
        self.extra: Mapping[str, Any] = {key: run.job.extra[key] for key in run.job.extra if key != DOOR_NOTES}
        self.inputs = worker.inputs
        self.place = ""  # " at step 3 of 30": where a failure happened
        self._worker = worker
        self._run = run
        self._events = events
        self._finisher = finisher
        self._saved: Counter[str] = Counter()
        self._cached: list[str] = []
        self._previewed_at = float("-inf")

    @property
    def models(self) -> LoadedModels:
        return self._worker.models

    def on_node(self, node_id: str, state: NodeState) -> None:
        self._run.check()
        if state == "cached":
            self._cached.append(node_id)
        if state == "running":
            self.place = ""
            if self._cached:  # all of them are known before the first one runs
                self._events.tell(self._run, NewEvent(EventKind.CACHED, {"node_ids": self._cached}))
                self._cached = []
            node = {"node_id": node_id, "class_type": self.graph.nodes[node_id].class_type}
            self._events.tell(self._run, NewEvent(EventKind.NODE, node))

    def on_step(self, step: int, total: int, preview: Callable[[], bytes] | None) -> None:
        self._run.check()
        self.place = f" at step {step + 1} of {total}" if step < total else ""
        jpeg = None
        if preview is not None and step < total and time.monotonic() >= self._previewed_at + PREVIEW_EVERY_S:
            jpeg = base64.b64encode(preview()).decode("ascii")
            self._previewed_at = time.monotonic()
        data = {"node_id": self.node_id, "step": step, "total": total, "preview": jpeg}
        self._events.tell(self._run, NewEvent(EventKind.STEP, data))

    def save_image(
        self,
        image: NDArray[np.uint8],
        *,
        filename_prefix: str,
        kind: ArtifactKind,
        node_id: str,
        index: int,
        metadata: Mapping[str, str],
    ) -> None:
        self._run.check()
        prefix = PurePosixPath(filename_prefix.replace("\\", "/")).name or "picture"
        self._saved[prefix] += 1
        filename = f"{prefix}_{self._saved[prefix]:05}_.png"
        self._finisher.save(self._run, Picture(image, filename, kind, node_id, index, metadata))


def size_in_bytes(value: Any) -> int:
    """Memory of a node's outputs: tensors and arrays, in mappings, sequences and dataclasses. Needs no torch."""
    if hasattr(value, "nbytes"):
        return int(value.nbytes)
    if isinstance(value, Mapping):
        return sum(map(size_in_bytes, value.values()))
    if isinstance(value, tuple | list):
        return sum(map(size_in_bytes, value))
    fields = getattr(value, "__dataclass_fields__", ())
    return 64 + sum(size_in_bytes(getattr(value, name)) for name in fields)
