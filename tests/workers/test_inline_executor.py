"""One job in this process, as the command line runs it."""

from __future__ import annotations

import threading
import time

import light_nodes
import pytest
from light_nodes import light_graph, light_registry

from atoll.errors import NotFound
from atoll.jobs.job import JobState
from atoll.workers.inline_executor import InlineExecutor
from atoll.workers.presence import WorkerLock, own_worker_name


@pytest.fixture
def inline(settings, store):
    light_nodes.gate.clear()
    executor = InlineExecutor(settings, store, registry=light_registry())
    yield executor
    light_nodes.gate.set()
    executor.close()


def in_thread(function, *arguments):
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)


def test_it_runs_the_job_it_was_given_and_no_other(inline, store):
    other, wanted = store.submit(light_graph(seed=1)), store.submit(light_graph(seed=2))
    inline.run(wanted.job_id)
    assert store.get(wanted.job_id).state is JobState.DONE, "it returns when the end is recorded"
    assert store.get(other.job_id).state is JobState.QUEUED


def test_the_lock_is_free_afterwards(inline, store, settings):
    inline.run(store.submit(light_graph()).job_id)
    assert not WorkerLock(settings.home, settings.device).is_held()


def test_it_waits_while_another_worker_has_the_job(inline, store):
    job = store.submit(light_graph())
    claim = store.claim("elsewhere/1/1.00")
    thread = in_thread(inline.run, job.job_id)
    thread.join(0.3)
    assert thread.is_alive()
    store.release(claim.lease, reason="it stopped", died=False)
    thread.join(20)
    assert store.get(job.job_id).state is JobState.DONE


def test_it_waits_while_another_process_uses_the_device(inline, store, settings):
    lock = WorkerLock(settings.home, settings.device)
    assert lock.acquire()
    job = store.submit(light_graph())
    thread = in_thread(inline.run, job.job_id)
    thread.join(0.3)
    assert thread.is_alive() and store.get(job.job_id).state is JobState.QUEUED
    lock.release()
    thread.join(20)
    assert store.get(job.job_id).state is JobState.DONE


def test_it_takes_over_from_a_dead_process_of_this_machine_at_once(inline, store):
    host, pid, _ = own_worker_name().rsplit("/", 2)
    job = store.submit(light_graph())
    store.claim(f"{host}/{pid}/1.00")
    inline.run(job.job_id)
    assert store.get(job.job_id).state is JobState.DONE


def test_cancelling_ends_it(inline, store):
    job = store.submit(light_graph(between={"class_type": "Wait"}))
    thread = in_thread(inline.run, job.job_id)
    wait_until(lambda: store.leases())
    store.cancel(job.job_id)
    inline.wake()
    thread.join(20)
    assert not thread.is_alive() and store.get(job.job_id).state is JobState.CANCELLED


def test_stopping_gives_the_job_back(inline, store):
    job = store.submit(light_graph(between={"class_type": "Wait"}))
    thread = in_thread(inline.run, job.job_id)
    wait_until(lambda: store.leases())
    inline.stop()
    thread.join(20)
    assert not thread.is_alive() and store.get(job.job_id).state is JobState.QUEUED


def test_an_unknown_job_is_named(inline):
    with pytest.raises(NotFound, match="nobody"):
        inline.run("nobody")
