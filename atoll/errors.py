"""Errors that a person reads.

    AtollError
    ├── InvalidRequest        the caller asked for something that cannot be (HTTP 422)
    │   └── InvalidGraph      a workflow with faults; carries every one of them
    ├── NotFound              a name that nothing answers to (HTTP 404)
    ├── NotACheckpoint        a file that is something else, or damaged
    ├── MissingDependency     an optional package or program that is not installed
    ├── NotPossibleYet        what a client knows and Atoll does not have
    ├── OutOfMemory           the device could not hold the work
    ├── NotANumber            a network answered nonsense, as some do in fp16
    ├── StorageFull           the disk could not take what was to be written
    ├── JobCancelled          the owner stopped the job
    ├── LeaseLost             another worker holds the task by now
    └── TrainingFailed        training cannot go on; the last good state is kept

Each says what was asked, what is so and what to do, and has a stable `code` for programs.
"""

from __future__ import annotations


class AtollError(Exception):
    """The root: `code` for programs, the message for people."""

    code = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class InvalidRequest(AtollError):
    code = "invalid_request"


class NotFound(AtollError):
    code = "not_found"


class NotACheckpoint(AtollError):
    code = "not_a_checkpoint"


class MissingDependency(AtollError):
    code = "missing_dependency"


class NotPossibleYet(AtollError):
    code = "not_possible_yet"


class OutOfMemory(AtollError):
    code = "out_of_memory"


class NotANumber(AtollError):
    code = "not_a_number"


class StorageFull(AtollError):
    code = "storage_full"


class JobCancelled(AtollError):
    code = "cancelled"


class LeaseLost(AtollError):
    code = "lease_lost"


class TrainingFailed(AtollError):
    code = "training_failed"
