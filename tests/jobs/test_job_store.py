"""One suite over every database: what the owner and the workers of a job may rely on."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
import sqlalchemy

from atoll.artifacts.artifact import Artifact
from atoll.errors import AtollError, InvalidRequest, JobCancelled, LeaseLost, NotFound
from atoll.jobs.events import EventKind, NewEvent
from atoll.jobs.job import MAX_WORKER_DEATHS, MOVES, Failure, JobState, Outcome

GRAPH = {"3": {"class_type": "KSampler", "inputs": {"seed": 2**64 - 1, "text": "Bär 熊\x00\ud800", "model": ["4", 0]}}}
DONE = Outcome(JobState.DONE)


def picture(index: int = 0, sha: str = "a", kind: str = "output") -> Artifact:
    return Artifact(sha * 64, f"lagoon_{index:05}_.png", "image/png", 1234, 128, 96, kind, "9", index)


def kinds(store, job_id):
    return [event.kind for event in store.events(job_id)]


def step(number, preview=None):
    return NewEvent(EventKind.STEP, {"node_id": "3", "step": number, "total": 20, "preview": preview})


def test_a_job_comes_back_from_another_process_as_it_was_given(open_store):
    job = open_store().submit(GRAPH, owner="ann", priority=3, extra={"workflow": {"nodes": []}})
    found = open_store().get(job.job_id)
    assert found == job
    assert (found.graph, found.extra, found.owner, found.priority) == (GRAPH, {"workflow": {"nodes": []}}, "ann", 3)
    assert (found.state, found.cancel_requested, found.failure) == (JobState.QUEUED, False, None)
    assert list(found.graph["3"]["inputs"]) == ["seed", "text", "model"], "the order of the fields is the graph's own"


def test_a_life_of_a_job(store, clock):
    job = store.submit(GRAPH)
    clock.now += 5
    claim = store.claim("worker-1")
    assert (claim.job.job_id, claim.job.state, claim.job.started_at) == (job.job_id, JobState.RUNNING, clock.now)
    store.report(claim.lease, [NewEvent(EventKind.NODE, {"node_id": "3"}), step(1), step(2)])
    clock.now += 5
    store.record(claim.lease, Outcome(JobState.DONE, artifacts=(picture(0), picture(1, "b"))))
    ended = store.get(job.job_id)
    assert (ended.state, ended.finished_at, ended.attempts) == (JobState.DONE, clock.now, 1)
    assert kinds(store, job.job_id) == ["queued", "running", "node", "step", "step", "artifact", "artifact", "done"]
    assert [found.artifact for found in store.artifacts(job_id=job.job_id)] == [picture(0), picture(1, "b")]
    assert store.artifact("b" * 64).job_id == job.job_id
    assert store.claim("worker-1") is None


def test_a_failure_is_kept_with_its_words(store):
    job = store.submit(GRAPH)
    failure = Failure("out_of_memory", 'Node 3 "KSampler" ran out of memory.', "3")
    store.record(store.claim("w").lease, Outcome(JobState.FAILED, failure=failure))
    assert store.get(job.job_id).failure == failure
    last = store.events(job.job_id)[-1]
    assert (last.kind, last.data) == ("failed", {"code": failure.code, "message": failure.message, "node_id": "3"})


def test_jobs_can_be_listed_without_their_graphs(store):
    first, second, third = (store.submit(GRAPH, owner=owner, priority=2) for owner in ("ann", "ben", "ann"))
    store.record(store.claim("w", job_id=second.job_id).lease, DONE)
    assert [head.job_id for head in store.heads()] == [third.job_id, second.job_id, first.job_id]
    assert [head.job_id for head in store.heads(offset=1, limit=1)] == [second.job_id]
    assert [head.job_id for head in store.heads(owner="ann")] == [third.job_id, first.job_id]
    (ended,) = store.heads(states={JobState.DONE})
    job = store.get(second.job_id)
    assert vars(ended) == {name: getattr(job, name) for name in vars(ended)} and ended.finished_at is not None


def test_a_submit_may_be_repeated_with_its_id(store):
    first = store.submit(GRAPH, job_id="mine-1")
    assert store.submit(dict(GRAPH), job_id="mine-1") == first
    store.record(store.claim("w").lease, DONE)
    assert store.submit(GRAPH, job_id="mine-1").state is JobState.DONE, "a late retry does not run it again"
    assert kinds(store, "mine-1") == ["queued", "running", "done"]
    for other in ({"graph": {}}, {"graph": GRAPH, "owner": "ben"}):
        with pytest.raises(InvalidRequest, match="mine-1 was submitted before") as refused:
            store.submit(**other, job_id="mine-1")
        assert refused.value.code == "job_exists"
    for bad in ("", "a/b", "x" * 65, "ü", "a\n"):
        with pytest.raises(InvalidRequest, match="id is 1 to 64"):
            store.submit(GRAPH, job_id=bad)


def test_a_worker_may_be_woken_before_the_disk_is_done(store):
    claimed = []
    job = store.submit(GRAPH, on_queued=lambda: claimed.append(store.claim("w")))
    assert claimed[0].job.job_id == job.job_id and job.state is JobState.QUEUED


def test_equal_submits_at_once_make_one_job(open_store):
    stores = [open_store() for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda store: store.submit(GRAPH, job_id="same"), stores))
    assert len({job.number for job in found}) == 1
    assert kinds(stores[0], "same") == ["queued"]


@pytest.mark.parametrize("graph", [{"1": {"inputs": {"cfg": float("nan")}}}, {"1": object()}])
def test_what_json_does_not_have_is_refused_and_nothing_is_stored(store, graph):
    with pytest.raises(InvalidRequest, match="JSON"):
        store.submit(graph)
    assert sum(store.counts().values()) == 0 and store.events() == []


def test_higher_priority_runs_first_then_the_order_of_submits(store):
    jobs = [store.submit(GRAPH, priority=priority) for priority in (0, 5, 0, 5, -1)]
    expected = [jobs[index].job_id for index in (1, 3, 0, 2, 4)]
    assert [store.queue_position(job_id) for job_id in expected] == [0, 1, 2, 3, 4]
    assert [store.claim("w").job.job_id for _ in jobs] == expected
    assert store.queue_position(expected[0]) is None


def test_one_job_can_be_claimed_by_name(store):
    store.submit(GRAPH)
    wanted = store.submit(GRAPH)
    assert store.claim("inline", job_id=wanted.job_id).job.job_id == wanted.job_id
    assert store.claim("inline", job_id=wanted.job_id) is None


def test_no_task_is_claimed_twice_by_workers_at_once(open_store):
    submitted = {open_store().submit(GRAPH).job_id for _ in range(24)}
    stores = [open_store() for _ in range(4)]

    def take_all(store):
        taken = []
        while claim := store.claim("w"):
            taken.append(claim.job.job_id)
        return taken

    with ThreadPoolExecutor(4) as threads:
        taken = [job_id for part in threads.map(take_all, stores) for job_id in part]
    assert len(taken) == 24 and set(taken) == submitted


def test_a_queued_job_is_cancelled_at_once(store):
    job = store.submit(GRAPH)
    assert store.cancel(job.job_id).state is JobState.CANCELLED
    assert store.claim("w") is None
    assert store.cancel(job.job_id).state is JobState.CANCELLED
    assert kinds(store, job.job_id) == ["queued", "cancelled"], "cancelling twice tells once"


def test_a_running_job_is_cancelled_at_its_next_report(store):
    claim = store.claim("w") if store.submit(GRAPH) else None
    asked = store.cancel(claim.job.job_id)
    assert (asked.state, asked.cancel_requested) == (JobState.RUNNING, True)
    for events in ([], [step(1)]):
        with pytest.raises(JobCancelled):
            store.report(claim.lease, events)
    store.renew(claim.lease)
    store.record(claim.lease, Outcome(JobState.CANCELLED))
    assert kinds(store, claim.job.job_id) == ["queued", "running", "cancelled"]
    assert store.cancel(claim.job.job_id).state is JobState.CANCELLED


def test_cancelling_what_has_ended_changes_nothing(store):
    job = store.submit(GRAPH)
    store.record(store.claim("w").lease, DONE)
    before = store.get(job.job_id)
    assert store.cancel(job.job_id) == before


def test_a_job_cancelled_while_its_worker_is_dead_ends_when_the_lease_does(store, clock):
    claim = store.claim("w") if store.submit(GRAPH) else None
    store.cancel(claim.job.job_id)
    assert store.release_expired() == []
    clock.now += 31
    assert store.release_expired() == [claim.job.job_id]
    assert store.get(claim.job.job_id).state is JobState.CANCELLED
    assert kinds(store, claim.job.job_id) == ["queued", "running", "cancelled"]


def test_a_silent_worker_loses_its_task_to_another(store, clock):
    first = store.claim("first") if store.submit(GRAPH) else None
    clock.now += 29
    first_lease = store.renew(first.lease)
    clock.now += 29
    assert store.release_expired() == []
    clock.now += 2
    assert store.release_expired() == [first.job.job_id]
    second = store.claim("second")
    assert (second.job.job_id, second.task.attempts, second.task.worker_deaths) == (first.job.job_id, 2, 1)
    for late in (
        lambda: store.record(first_lease, Outcome(JobState.DONE, artifacts=(picture(),))),
        lambda: store.report(first_lease, [step(1)]),
        lambda: store.report(first_lease),
        lambda: store.renew(first_lease),
    ):
        with pytest.raises(LeaseLost, match="first no longer holds"):
            late()
    assert store.release(first_lease, reason="late", died=True) is False
    store.record(second.lease, Outcome(JobState.DONE, artifacts=(picture(),)))
    with pytest.raises(LeaseLost):
        store.record(second.lease, Outcome(JobState.DONE, artifacts=(picture(),)))
    assert kinds(store, first.job.job_id) == ["queued", "running", "requeued", "running", "artifact", "done"]
    assert len(store.artifacts()) == 1


def test_a_worker_that_was_late_but_not_replaced_goes_on(store, clock):
    claim = store.claim("w") if store.submit(GRAPH) else None
    clock.now += 1000
    store.renew(claim.lease)
    assert store.release_expired() == []
    store.record(claim.lease, DONE)


def test_a_job_that_takes_down_its_workers_fails_with_a_reason(store, clock):
    job = store.submit(GRAPH)
    for _ in range(MAX_WORKER_DEATHS):
        assert store.claim("w") is not None
        clock.now += 31
        assert store.release_expired() == [job.job_id]
    ended = store.get(job.job_id)
    assert ended.state is JobState.FAILED and ended.failure.code == "worker_died"
    assert "took down its worker 3 times" in ended.failure.message
    assert store.claim("w") is None
    assert kinds(store, job.job_id).count("failed") == 1


def test_giving_a_task_back_does_not_count_against_it(store):
    job = store.submit(GRAPH)
    for _ in range(MAX_WORKER_DEATHS + 2):
        assert store.release(store.claim("w").lease, reason="the worker was stopped", died=False)
    assert store.get(job.job_id).state is JobState.QUEUED
    assert [lease.job_id for lease in store.leases()] == []
    claim = store.claim("w")
    assert store.leases() == [claim.lease]


def test_a_requeued_job_keeps_its_place(store):
    first, second = store.submit(GRAPH), store.submit(GRAPH)
    store.release(store.claim("w").lease, reason="stopped", died=False)
    assert [store.claim("w").job.job_id for _ in range(2)] == [first.job_id, second.job_id]


def test_the_store_refuses_every_move_that_the_table_does_not_know(store):
    """Each state is reached by its own road; then every worker's and owner's act is tried on it."""

    def reach(state):
        job = store.submit(GRAPH)
        if state is JobState.QUEUED:
            return job.job_id, None
        if state is JobState.CANCELLED:
            store.cancel(job.job_id)
            return job.job_id, None
        lease = store.claim("w", job_id=job.job_id).lease
        if state is not JobState.RUNNING:
            failure = Failure("x", "x") if state is JobState.FAILED else None
            store.record(lease, Outcome(state, failure=failure))
        return job.job_id, lease

    acts = {
        JobState.RUNNING: lambda job_id, lease: store.claim("w", job_id=job_id),
        JobState.QUEUED: lambda job_id, lease: lease and store.release(lease, reason="", died=False),
        JobState.DONE: lambda job_id, lease: lease and store.record(lease, DONE),
        JobState.FAILED: lambda job_id, lease: (
            lease and store.record(lease, Outcome(JobState.FAILED, failure=Failure("x", "x")))
        ),
        JobState.CANCELLED: lambda job_id, lease: store.cancel(job_id),
    }
    for state in JobState:
        for wanted, act in acts.items():
            job_id, lease = reach(state)
            try:
                act(job_id, lease)
            except LeaseLost:
                assert state.is_terminal
            found = store.get(job_id).state
            assert found is state or found in MOVES[state], f"{state} became {found} when asked for {wanted}"
            ended = [event for event in store.events(job_id) if event.kind.is_terminal]
            assert len(ended) == (1 if found.is_terminal else 0)


def test_even_a_lease_brought_back_by_hand_moves_no_ended_job(store, store_url):
    job = store.submit(GRAPH)
    lease = store.claim("w").lease
    store.record(lease, DONE)
    with sqlalchemy.create_engine(store_url).begin() as connection:
        connection.execute(sqlalchemy.text(f"UPDATE tasks SET token = '{lease.token}'"))
    with pytest.raises(AtollError, match="is done; it cannot become cancelled") as refused:
        store.record(lease, Outcome(JobState.CANCELLED))
    assert refused.value.code == "illegal_move"
    assert store.get(job.job_id).state is JobState.DONE and len(kinds(store, job.job_id)) == 3


def test_an_event_reader_resumes_without_a_gap(store):
    job = store.submit(GRAPH)
    lease = store.claim("w").lease
    store.report(lease, [step(number) for number in range(1, 21)])
    seen, after = [], 0
    while page := store.events(job.job_id, after=after, limit=7):
        seen += page
        after = page[-1].seq
    assert seen == store.events(job.job_id)
    assert after == store.last_seq()
    assert [event.data["step"] for event in seen[2:]] == list(range(1, 21))


def test_numbers_are_seen_in_order_while_many_write(open_store):
    """A reader that resumes after the last number it saw finds every row: none appears late below it."""
    writers, rounds = 4, 15
    leases = [(store, store.claim(f"w{n}").lease) for n in range(writers) if (store := open_store()).submit(GRAPH)]
    reader = open_store()
    seen, after = [], 0

    def write(store, lease):
        for number in range(rounds):
            store.report(lease, [step(number)] * (1 + number % 3))
        store.record(lease, Outcome(JobState.DONE, artifacts=(picture(),)))

    with ThreadPoolExecutor(writers + 1) as threads:
        running = [threads.submit(write, store, lease) for store, lease in leases]
        while True:
            finished = all(future.done() for future in running)
            page = reader.events(after=after, limit=3)
            seen += page
            after = page[-1].seq if page else after
            if finished and not page:
                break
        for future in running:
            future.result()
    assert [event.seq for event in seen] == [event.seq for event in reader.events(limit=10_000)]


def test_a_slow_commit_holds_back_the_events_that_come_after_it(open_store):
    """One writer is stopped between numbering its rows and committing them; another one writes meanwhile."""
    slow, fast, reader = open_store(), open_store(), open_store()
    leases = [store.claim("w").lease for store in (slow, fast) if store.submit(GRAPH)]
    numbered, go_on = threading.Event(), threading.Event()
    start = reader.last_seq()

    @sqlalchemy.event.listens_for(slow._engine, "commit")
    def hold(_connection):
        numbered.set()
        assert go_on.wait(30)

    with ThreadPoolExecutor(2) as threads:
        try:
            threads.submit(slow.report, leases[0], [step(1)])
            assert numbered.wait(30)
            other = threads.submit(fast.report, leases[1], [step(1)])
            wait([other], timeout=0.3)
            seen = reader.events(after=start)
        finally:
            go_on.set()
    seen += reader.events(after=seen[-1].seq if seen else start)
    assert [event.job_id for event in seen] == [lease.job_id for lease in leases]


def test_previews_live_as_long_as_their_job(store):
    job = store.submit(GRAPH)
    lease = store.claim("w").lease
    store.report(lease, [step(1, "SlBFRw=="), step(2)])
    assert [event.data["preview"] for event in store.events(job.job_id)[2:]] == ["SlBFRw==", None]
    store.record(lease, DONE)
    steps = [event for event in store.events(job.job_id) if event.kind is EventKind.STEP]
    assert [event.data["preview"] for event in steps] == [None, None]


def test_jobs_are_listed_newest_first_page_by_page(store):
    jobs = [store.submit(GRAPH, owner=owner) for owner in ("ann", "ben", "ann", "ann")]
    store.cancel(jobs[0].job_id)
    numbers = [job.number for job in jobs]
    assert [job.number for job in store.jobs()] == numbers[::-1]
    assert [job.number for job in store.jobs(limit=2, before=numbers[3])] == [numbers[2], numbers[1]]
    assert [job.number for job in store.jobs(owner="ann", states=[JobState.QUEUED])] == [numbers[3], numbers[2]]
    assert store.jobs(states=[]) == []
    assert store.counts() == dict.fromkeys(JobState, 0) | {JobState.QUEUED: 3, JobState.CANCELLED: 1}


def test_the_gallery_shows_outputs_newest_first(store):
    for sha, kind in (("a", "output"), ("b", "temp"), ("c", "output")):
        store.submit(GRAPH)
        store.record(store.claim("w").lease, Outcome(JobState.DONE, artifacts=(picture(0, sha, kind),)))
    gallery = store.artifacts()
    assert [found.artifact.sha256[0] for found in gallery] == ["c", "a"]
    assert [found.artifact.sha256[0] for found in store.artifacts(before=gallery[0].number)] == ["a"]
    assert len(store.artifacts(kind=None)) == 3


def test_unknown_names_are_not_found(store):
    for ask in (store.get, store.cancel, store.queue_position, store.artifact):
        with pytest.raises(NotFound, match="nobody"):
            ask("nobody")
    assert store.events("nobody") == []


def test_an_outcome_must_be_an_end():
    for state, failure in ((JobState.RUNNING, None), (JobState.FAILED, None), (JobState.DONE, Failure("x", "x"))):
        with pytest.raises(ValueError):
            Outcome(state, failure=failure)


def test_a_record_that_breaks_leaves_nothing_behind(store):
    """State, artifacts and events are one transaction: an artifact that can't be written undoes them all."""
    job = store.submit(GRAPH)
    lease = store.claim("w").lease
    broken = Artifact(None, "x.png", "image/png", 1, 1, 1, "output", "9", 1)
    with pytest.raises(AtollError):
        store.record(lease, Outcome(JobState.DONE, artifacts=(picture(), broken)))
    assert store.get(job.job_id).state is JobState.RUNNING
    assert store.artifacts() == [] and kinds(store, job.job_id) == ["queued", "running"]
    store.record(lease, DONE)
