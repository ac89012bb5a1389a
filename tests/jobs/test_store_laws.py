"""Random owners, workers, deaths and clocks against a plain model of what a job store must do."""

from __future__ import annotations

import sqlalchemy
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test

from atoll.artifacts.artifact import Artifact
from atoll.errors import JobCancelled, LeaseLost
from atoll.jobs.events import EventKind, NewEvent
from atoll.jobs.job import MAX_WORKER_DEATHS, MOVES, Failure, JobState, Outcome
from atoll.jobs.sql_store import SqlJobStore

TERMINAL = {JobState.DONE, JobState.FAILED, JobState.CANCELLED}


class Life:
    """The model of one job."""

    def __init__(self, number, priority):
        self.number, self.priority = number, priority
        self.state, self.wanted_stop, self.deaths, self.artifacts = JobState.QUEUED, False, 0, 0
        self.token, self.expires_at = None, 0.0

    def move(self, state):
        assert state in MOVES[self.state]
        self.state, self.token = state, None

    def give_back(self, died):
        self.deaths += died
        if self.wanted_stop:
            self.move(JobState.CANCELLED)
        elif self.deaths >= MAX_WORKER_DEATHS:
            self.move(JobState.FAILED)
        else:
            self.move(JobState.QUEUED)


class StoreMachine(RuleBasedStateMachine):
    leases = Bundle("leases")

    def __init__(self, store, clock):
        super().__init__()
        self.store, self.clock = store, clock
        self.lives: dict[str, Life] = {}
        self.seen = []

    @rule(priority=st.integers(-1, 1))
    def submit(self, priority):
        job = self.store.submit({"1": {"n": len(self.lives)}}, priority=priority)
        self.lives[job.job_id] = Life(job.number, priority)

    @rule(target=leases)
    def claim(self):
        queue = sorted(
            (-life.priority, life.number, job_id)
            for job_id, life in self.lives.items()
            if life.state is JobState.QUEUED
        )
        for place, (*_, job_id) in enumerate(queue):
            assert self.store.queue_position(job_id) == place
        claim = self.store.claim("w")
        if not queue:
            assert claim is None
            return None
        job_id = queue[0][-1]
        assert claim.job.job_id == job_id
        life = self.lives[job_id]
        life.move(JobState.RUNNING)
        life.token, life.expires_at = claim.lease.token, self.clock.now + 30
        return claim.lease

    def held(self, lease):
        return lease is not None and self.lives[lease.job_id].token == lease.token

    @rule(lease=leases, told=st.integers(0, 3))
    def report(self, lease, told):
        if lease is None:
            return
        events = [NewEvent(EventKind.STEP, {"step": n, "total": 3, "preview": "p"}) for n in range(told)]
        try:
            self.store.report(lease, events)
        except LeaseLost:
            assert not self.held(lease)
        except JobCancelled:
            assert self.held(lease) and self.lives[lease.job_id].wanted_stop
        else:
            assert self.held(lease) and not self.lives[lease.job_id].wanted_stop

    @rule(lease=leases)
    def renew(self, lease):
        if lease is None:
            return
        try:
            self.store.renew(lease)
            assert self.held(lease)
            self.lives[lease.job_id].expires_at = self.clock.now + 30
        except LeaseLost:
            assert not self.held(lease)

    @rule(lease=leases, state=st.sampled_from(sorted(TERMINAL)), pictures=st.integers(0, 2))
    def record(self, lease, state, pictures):
        if lease is None:
            return
        made = [Artifact("a" * 64, "a.png", "image/png", 1, 8, 8, "output", "9", n) for n in range(pictures)]
        made = made if state is JobState.DONE else []
        failure = Failure("x", "x") if state is JobState.FAILED else None
        try:
            self.store.record(lease, Outcome(state, tuple(made), failure))
            assert self.held(lease)
            self.lives[lease.job_id].move(state)
            self.lives[lease.job_id].artifacts = len(made)
        except LeaseLost:
            assert not self.held(lease)

    @rule(lease=consumes(leases), died=st.booleans())
    def release(self, lease, died):
        if lease is None:
            return
        assert self.store.release(lease, reason="r", died=died) == self.held(lease)
        if self.held(lease):
            self.lives[lease.job_id].give_back(died)

    @rule(data=st.data())
    def cancel(self, data):
        if not self.lives:
            return
        job_id = data.draw(st.sampled_from(sorted(self.lives)))
        life = self.lives[job_id]
        self.store.cancel(job_id)
        if life.state is JobState.QUEUED:
            life.move(JobState.CANCELLED)
        elif life.state is JobState.RUNNING:
            life.wanted_stop = True

    @rule(seconds=st.sampled_from([1, 29, 31]))
    def wait(self, seconds):
        self.clock.now += seconds
        late = {
            job_id
            for job_id, life in self.lives.items()
            if life.state is JobState.RUNNING and life.expires_at < self.clock.now
        }
        assert set(self.store.release_expired()) == late
        for job_id in late:
            self.lives[job_id].give_back(died=True)

    @invariant()
    def store_and_model_agree(self):
        found = {job.job_id: job for job in self.store.jobs(limit=1000)}
        assert {job_id: job.state for job_id, job in found.items()} == {
            job_id: life.state for job_id, life in self.lives.items()
        }
        assert {lease.token for lease in self.store.leases()} == {
            life.token for life in self.lives.values() if life.token
        }

    @invariant()
    def events_tell_each_life_once(self):
        self.seen += self.store.events(after=self.seen[-1].seq if self.seen else 0)
        assert [event.seq for event in self.seen] == [event.seq for event in self.store.events()]
        for job_id, life in self.lives.items():
            told = [event for event in self.seen if event.job_id == job_id]
            assert told[0].kind is EventKind.QUEUED
            ends = [event.kind.value for event in told if event.kind.is_terminal]
            assert ends == ([life.state.value] if life.state in TERMINAL else [])
            assert told[-1].kind.is_terminal == bool(ends), "nothing is told after the end"
            pictures = sum(event.kind is EventKind.ARTIFACT for event in told)
            assert pictures == len(self.store.artifacts(job_id=job_id)) == life.artifacts


def test_any_order_of_owners_workers_and_deaths(store_url, clock):
    store = SqlJobStore(store_url, lease_s=30.0, clock=clock)
    engine = sqlalchemy.create_engine(store_url)

    def machine():
        with engine.begin() as connection:
            for table in ("artifacts", "events", "tasks", "jobs"):
                connection.execute(sqlalchemy.text(f"DELETE FROM {table}"))
        return StoreMachine(store, clock)

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
    store.close()
    engine.dispose()
