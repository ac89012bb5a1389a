"""What went wrong in a worker, in words for the job's owner. The traceback goes to the log."""

from __future__ import annotations

import errno
import logging

from atoll.errors import AtollError, OutOfMemory, StorageFull
from atoll.jobs.job import Failure, Job

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "unable to allocate")

log = logging.getLogger(__name__)


def failure_of(error: BaseException, job: Job, node_id: str | None, place: str = "") -> Failure:
    """An error that rose while `node_id` ran, or outside of any node.

    place: " at step 3 of 30", or nothing.
    """
    at = f'Node {node_id} "{_title(job, node_id)}"' if node_id else "The job"
    if is_out_of_memory(error):
        advice = "Try a smaller size or batch_size, or close other programs that use it."
        return Failure(OutOfMemory.code, f"{at} ran out of memory{place}. {advice}", node_id)
    if isinstance(error, AtollError):
        return Failure(error.code, f"{at}: {error.message}" if node_id else error.message, node_id)
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        words = f"{at} could not write{place}: the disk is full. Free some space and try again."
        return Failure(StorageFull.code, words, node_id)
    log.error("Job %s: %s failed%s.", job.job_id, at, place, exc_info=error)
    first_line = (str(error).strip().splitlines() or [""])[0][:300]
    words = f"{at} failed unexpectedly{place}: {type(error).__name__}: {first_line}. The worker's log says more."
    return Failure("unexpected", words, node_id)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device or the machine could not hold the work. Knows torch's errors without importing torch."""
    if isinstance(error, OutOfMemory | MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _MEMORY_WORDS)


def is_device_fault(error: BaseException) -> bool:
    """Whether the device's context is broken, so that nothing more can run in this process."""
    if is_out_of_memory(error):
        return False
    told = isinstance(error, RuntimeError) and str(error).startswith(("CUDA error", "HIP error"))
    return told or type(error).__name__ == "AcceleratorError"


def _title(job: Job, node_id: str) -> str:
    node = job.graph.get(node_id, {})
    return str(node.get("_meta", {}).get("title") or node.get("class_type", "?"))
