"""A worker process beside a server: woken, heard, replaced, and gone when the server is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from light_nodes import light_graph

from atoll.jobs.events import EventKind
from atoll.jobs.job import JobState
from atoll.settings import Settings
from atoll.workers.presence import WorkerLock, is_dead_worker, own_worker_name
from atoll.workers.process_executor import ProcessExecutor

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")


@pytest.fixture(autouse=True)
def light_nodes_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parent.parent)]))


@pytest.fixture
def start(settings, store) -> Iterator[Callable[..., ProcessExecutor]]:
    started = []

    def start_one(settings: Settings = settings, **options: object) -> ProcessExecutor:
        executor = ProcessExecutor(settings, store, nodes="light_nodes:light_registry", **options)
        started.append(executor)
        executor.start()
        return executor

    yield start_one
    for executor in started:
        executor.stop()


def wait_until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def is_up(executor: ProcessExecutor) -> bool:
    return executor.condition() == "ok"


def ended(store, *jobs) -> bool:
    return all(store.get(job.job_id).state.is_terminal for job in jobs)


def kinds(store, job):
    return [event.kind for event in store.events(job.job_id)]


def endless():
    return light_graph(between={"class_type": "Wait"})


def test_a_woken_worker_starts_at_once_and_its_news_is_heard(start, store):
    heard = threading.Event()
    executor = start(on_news=heard.set)
    wait_until(lambda: is_up(executor))
    delays = []
    for seed in range(9):
        job = store.submit(light_graph(seed=seed))
        accepted = time.time()
        executor.wake()
        while not ended(store, job):
            heard.wait(5)
            heard.clear()
        delays.append(store.get(job.job_id).started_at - accepted)
    assert kinds(store, job)[-1] == "done"
    assert sorted(delays)[4] < 0.05, f"{delays}: far below the second after which it looks by itself"


def test_a_job_is_found_without_a_wake(start, store):
    job = store.submit(light_graph())
    start()
    wait_until(lambda: ended(store, job))
    later = store.submit(light_graph(seed=1))
    wait_until(lambda: ended(store, later))


def test_a_killed_worker_is_replaced_and_its_job_run_again(start, store):
    executor = start()
    job = store.submit(light_graph(steps=100, pause_ms=5))
    wait_until(lambda: EventKind.STEP in kinds(store, job))
    first = executor.worker_pid()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: ended(store, job))
    told = [kind for kind in kinds(store, job) if kind not in (EventKind.STEP, EventKind.NODE)]
    assert told == ["queued", "running", "requeued", "running", "artifact", "done"]
    assert executor.worker_pid() != first and store.get(job.job_id).attempts == 2


def test_a_job_that_kills_its_workers_is_given_up_and_the_next_one_runs(start, store):
    poison = store.submit(light_graph(between={"class_type": "Fail", "inputs": {"how": "death"}}))
    fine = store.submit(light_graph())
    start()
    wait_until(lambda: ended(store, poison, fine))
    assert store.get(poison.job_id).failure.code == "worker_died"
    assert store.get(fine.job_id).state is JobState.DONE


def test_a_worker_that_lives_but_says_nothing_is_replaced(start, store, settings):
    executor = start(settings.model_copy(update={"lease_s": 0.6}))
    wait_until(lambda: is_up(executor))
    first = executor.worker_pid()
    os.kill(first, signal.SIGSTOP)
    job = store.submit(light_graph())
    wait_until(lambda: ended(store, job))
    assert executor.worker_pid() != first and not psutil.pid_exists(first)


def test_a_worker_told_to_stop_gives_its_task_back_at_once(start, store):
    executor = start()
    job = store.submit(endless())
    wait_until(lambda: EventKind.STEP in kinds(store, job))
    os.kill(executor.worker_pid(), signal.SIGTERM)
    wait_until(lambda: EventKind.REQUEUED in kinds(store, job))
    reason = next(event.data["reason"] for event in store.events(job.job_id) if event.kind is EventKind.REQUEUED)
    assert reason == "the worker was told to stop (SIGTERM)"
    store.cancel(job.job_id)


def test_stopping_puts_the_running_job_back_in_the_queue(start, store):
    executor = start()
    job = store.submit(endless())
    wait_until(lambda: EventKind.STEP in kinds(store, job))
    worker = executor.worker_pid()
    began = time.monotonic()
    executor.stop()
    assert time.monotonic() - began < 4
    assert not psutil.pid_exists(worker)
    assert store.get(job.job_id).state is JobState.QUEUED and store.leases() == []
    assert executor.condition() == "the worker was stopped"


def test_a_cancelled_job_stops_when_its_worker_is_woken(start, store):
    executor = start()
    job = store.submit(endless())
    wait_until(lambda: EventKind.STEP in kinds(store, job))
    store.cancel(job.job_id)
    executor.wake()
    wait_until(lambda: ended(store, job))
    assert store.get(job.job_id).state is JobState.CANCELLED


def test_no_worker_outlives_a_killed_server(store, settings):
    server = subprocess.Popen(
        [sys.executable, HERE / "light_server.py", settings.home, "30"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    job = store.submit(endless())
    wait_until(lambda: EventKind.STEP in kinds(store, job))
    worker = psutil.Process(server.pid).children()[0]
    server.kill()
    wait_until(lambda: not worker.is_running())
    server.communicate()
    assert store.get(job.job_id).state is JobState.QUEUED
    assert store.events(job.job_id)[-1].data == {"reason": "the studio closed"}
    assert not WorkerLock(settings.home, settings.device).is_held()


def test_one_home_and_device_has_one_worker(start, store, settings):
    first = start()
    wait_until(lambda: is_up(first))
    second = start()
    wait_until(lambda: "another worker" in second.condition())
    assert WorkerLock(settings.home, settings.device).is_held()
    os.kill(first.worker_pid(), signal.SIGKILL)
    wait_until(lambda: is_up(first) or is_up(second))
    wait_until(lambda: sorted([is_up(first), is_up(second)]) == [False, True])


def test_secrets_are_on_no_command_line(start, settings, tmp_path):
    url = f"sqlite:///{tmp_path / 'pass-word.db'}"
    executor = start(Settings(home=settings.home, device="cpu", database_url=url))
    wait_until(lambda: is_up(executor))
    process = psutil.Process(executor.worker_pid())
    assert "pass-word" not in json.dumps([process.cmdline(), process.environ()])
    assert (tmp_path / "pass-word.db").exists(), "it was told all the same"


def test_names_tell_the_dead_from_the_living():
    own = own_worker_name()
    host, pid, started = own.rsplit("/", 2)
    assert not is_dead_worker(own)
    assert is_dead_worker(f"{host}/{pid}/{float(started) - 100:.2f}"), "another process had this number before"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert is_dead_worker(f"{host}/{gone.pid}/{started}")
    assert not is_dead_worker(f"elsewhere/{gone.pid}/{started}"), "of another host nothing can be told"
    assert not is_dead_worker("a name of another form")


def test_the_executor_loads_no_torch():
    code = "import sys, atoll.workers.process_executor; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
