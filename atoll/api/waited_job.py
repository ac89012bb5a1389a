"""A request that is answered with its pictures: the job is stored like any other, and then waited for.

What the A1111 and the OpenAI door share. Losing the connection loses the answer, never the job.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from atoll.api.services import StudioServices
from atoll.errors import AtollError, JobCancelled
from atoll.jobs.events import Event
from atoll.jobs.job import Job, JobArtifact, JobState

MOST_ARTIFACTS = 500  # of one job; a batch is at most 64


async def wait_for_job(services: StudioServices, job_id: str, on_event: Callable[[Event], None]) -> Job:
    """The job, ended; `on_event` is told what happens until then."""
    async with aclosing(services.events(job_id)) as events:  # type: ignore[type-var]
        async for event in events:
            on_event(event)
    return await asyncio.to_thread(services.job, job_id)


def pictures_of(services: StudioServices, job: Job) -> list[JobArtifact]:
    """What an ended job left, in the order in which it was made.

    Raises: JobCancelled; AtollError with the words and the code of the job's failure.
    """
    if job.state is JobState.CANCELLED:
        raise JobCancelled(f"The job {job.job_id} was cancelled before it had finished.")
    if job.failure is not None:
        raise AtollError(job.failure.message, code=job.failure.code)
    return services.artifacts(job_id=job.job_id, kind=None, limit=MOST_ARTIFACTS)
