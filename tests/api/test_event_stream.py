"""Events as they happen: nothing is missed, nobody is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from atoll.api.event_stream import EventStream
from atoll.errors import NotFound
from atoll.jobs.events import Event, EventKind, NewEvent
from atoll.jobs.job import JobState, Outcome
from atoll.jobs.sql_store import SqlJobStore

WITHIN_S = 20.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlJobStore]:
    store = SqlJobStore(f"sqlite:///{(tmp_path / 'atoll.db').as_posix()}")
    yield store
    store.close()


def steps(first: int, last: int) -> list[NewEvent]:
    return [
        NewEvent(EventKind.STEP, {"node_id": "1", "step": step, "total": 99, "preview": f"jpeg{step}"})
        for step in range(first, last + 1)
    ]


async def collect(events: AsyncIterator[Event]) -> list[Event]:
    return [event async for event in events]


def test_a_job_is_followed_to_its_end_while_it_happens(store: SqlJobStore) -> None:
    job = store.submit({})

    async def scenario() -> list[EventKind]:
        stream = EventStream(store)
        kinds = []
        async with asyncio.timeout(WITHIN_S):
            async for event in stream.follow(job.job_id):
                kinds.append(event.kind)
                if event.kind is EventKind.QUEUED:
                    claim = await asyncio.to_thread(store.claim, "w")
                    assert claim is not None
                    stream.notify()
                elif event.kind is EventKind.RUNNING:
                    store.report(claim.lease, steps(1, 1))
                elif event.kind is EventKind.STEP:
                    store.record(claim.lease, Outcome(JobState.DONE))
        return kinds

    assert asyncio.run(scenario()) == ["queued", "running", "step", "done"]


def test_who_resumes_misses_nothing_and_sees_nothing_twice(store: SqlJobStore) -> None:
    job = store.submit({})
    claim = store.claim("w")
    assert claim is not None
    store.report(claim.lease, steps(1, 5))
    store.record(claim.lease, Outcome(JobState.DONE))
    everything = [event.seq for event in asyncio.run(collect(EventStream(store).follow(job.job_id)))]
    assert len(everything) == 8
    for cut in everything:
        later = asyncio.run(collect(EventStream(store).follow(job.job_id, after=cut)))
        assert [event.seq for event in later] == [seq for seq in everything if seq > cut]


def test_who_falls_behind_gets_only_the_newest_preview(store: SqlJobStore) -> None:
    job = store.submit({})
    claim = store.claim("w")
    assert claim is not None
    store.report(claim.lease, steps(1, 5))
    # Quick steps carry no preview of their own, and must not take the last one away.
    store.report(claim.lease, [NewEvent(EventKind.STEP, {"node_id": "1", "step": 6, "total": 99, "preview": None})])

    async def first_eight() -> list[Event]:
        async with aclosing(EventStream(store).follow(job.job_id)) as events:  # type: ignore[type-var]
            return [await anext(events) for _ in range(8)]

    seen = asyncio.run(first_eight())
    assert [event.data["step"] for event in seen[2:]] == [1, 2, 3, 4, 5, 6]
    assert [event.data["preview"] for event in seen[2:]] == [None, None, None, None, "jpeg5", None]


def test_one_listener_who_takes_nothing_does_not_hold_up_another(store: SqlJobStore) -> None:
    job = store.submit({})

    async def scenario() -> None:
        stream = EventStream(store)
        async with aclosing(stream.follow(None)) as sleeper:  # type: ignore[type-var]
            await anext(sleeper)  # and never again
            busy = asyncio.create_task(collect(stream.follow(job.job_id)))
            await asyncio.to_thread(store.cancel, job.job_id)
            stream.notify()
            events = await asyncio.wait_for(busy, WITHIN_S)
            assert events[-1].kind is EventKind.CANCELLED
        assert stream._watcher is None  # nobody listens, so nobody looks

    asyncio.run(scenario())


def test_a_job_that_is_not_there_is_not_waited_for(store: SqlJobStore) -> None:
    with pytest.raises(NotFound):
        asyncio.run(collect(EventStream(store).follow("no-such-job")))
