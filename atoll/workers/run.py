"""One task in a worker's hands."""

from __future__ import annotations

import threading

from atoll.artifacts.artifact import Artifact
from atoll.errors import AtollError, StorageFull
from atoll.jobs.job import Claim, Failure


class Run:
    """What the worker's threads share about a task: whether it is still wanted, and what it has left so far.

    artifacts, failure: written by the finisher alone.
    """

    def __init__(self, claim: Claim) -> None:
        self.job = claim.job
        self.lease = claim.lease
        self.artifacts: list[Artifact] = []
        self.failure: Failure | None = None
        self.computing = True
        self._unwanted: AtollError | None = None
        self._lock = threading.Lock()

    def give_up(self, reason: AtollError) -> None:
        """The task was found not to be wanted (JobCancelled) or not to be ours (LeaseLost). The first reason stays."""
        with self._lock:
            self._unwanted = self._unwanted or reason

    @property
    def unwanted(self) -> AtollError | None:
        return self._unwanted

    def check(self) -> None:
        """Raises: the reason why this need not go on. Cheap enough for every step."""
        if self._unwanted is not None:
            raise self._unwanted


def may_pass(error: AtollError) -> bool:
    """Whether what the store answered can be over in a moment: it is away, or its disk is full."""
    return isinstance(error, StorageFull) or error.code == "store_unavailable"
