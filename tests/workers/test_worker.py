"""What one worker makes of a task: artifacts, events, failures in words; and how it stops."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable

import light_nodes
import numpy as np
import pytest
from light_nodes import light_graph
from PIL import Image

from atoll.artifacts.files import ArtifactFiles
from atoll.artifacts.png import read_png_text
from atoll.errors import AtollError, StorageFull
from atoll.jobs.events import EventKind
from atoll.jobs.job import DOOR_NOTES, JobState
from atoll.workers import finisher
from atoll.workers.worker import DeviceFault, _Context, size_in_bytes


def wait_until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)


def run_all(worker):
    while worker.run_next():
        pass
    worker.finish()


def in_thread(function):
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def kinds(store, job_id):
    return [event.kind for event in store.events(job_id)]


def test_a_task_becomes_artifacts_that_say_what_they_are(new_worker, store, settings):
    job = store.submit(light_graph(seed=5, pictures=2, size=16))
    news = []
    run_all(new_worker(on_news=news.append))
    assert store.get(job.job_id).state is JobState.DONE
    found = [row.artifact for row in store.artifacts(job_id=job.job_id)]
    assert [artifact.filename for artifact in found] == ["test_00001_.png", "test_00002_.png"]
    assert [(artifact.node_id, artifact.index, artifact.width, artifact.kind) for artifact in found] == [
        ("9", 0, 16, "output"),
        ("9", 1, 16, "output"),
    ]
    for artifact in found:
        path = ArtifactFiles(settings.artifacts_dir).path(artifact.sha256)
        expected = np.random.default_rng([5, artifact.index]).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        np.testing.assert_array_equal(np.asarray(Image.open(path)), expected)
        assert path.stat().st_size == artifact.size_bytes
        assert read_png_text(path) == {"number": "5"}
    assert set(news) == {job.job_id}


def test_the_events_of_a_task_are_all_there_and_in_order(new_worker, store):
    job = store.submit(light_graph(steps=40))
    run_all(new_worker())
    told = store.events(job.job_id)
    assert [event.kind for event in told[:3]] == ["queued", "running", "node"]
    assert [event.data["step"] for event in told if event.kind is EventKind.STEP] == list(range(1, 41))
    assert [event.kind for event in told[-3:]] == ["node", "artifact", "done"]
    assert [event.data["class_type"] for event in told if event.kind is EventKind.NODE] == ["Count", "Draw"]
    assert told[-1].data["artifacts"] == 1 and told[-1].data["seconds"] > 0


def test_previews_come_now_and_then_while_it_runs(new_worker, store):
    job = store.submit(light_graph(steps=20, between={"class_type": "Wait"}))
    worker = new_worker()
    thread = in_thread(lambda: run_all(worker))
    wait_until(lambda: len(store.events(job.job_id)) > 25)
    previews = [event.data["preview"] for event in store.events(job.job_id) if event.kind is EventKind.STEP]
    light_nodes.gate.set()
    thread.join()
    assert base64.b64decode(previews[0]).startswith(b"\xff\xd8")
    assert sum(preview is not None for preview in previews) == 1, "twenty steps in a moment need no twenty pictures"


def test_what_did_not_change_is_not_computed_again(new_worker, store):
    worker = new_worker()
    for graph in (light_graph(seed=1), light_graph(seed=1, size=9), light_graph(seed=2)):
        store.submit(graph)
    run_all(worker)
    assert light_nodes.ran == ["Count", "Draw", "Draw", "Count", "Draw"]
    assert store.counts()[JobState.DONE] == 3


def test_what_is_remembered_is_told_before_anything_runs(new_worker, store):
    worker = new_worker()
    store.submit(light_graph(seed=1))
    again = store.submit(light_graph(seed=1, size=9))
    run_all(worker)
    told = store.events(again.job_id)
    assert [event.kind for event in told] == ["queued", "running", "cached", "node", "artifact", "done"]
    assert told[2].data == {"node_ids": ["1"]}


@pytest.mark.parametrize("models", [False, True])
def test_what_is_remembered_is_forgotten_before_the_next_task_when_asked(new_worker, store, models):
    worker = new_worker()
    store.submit(light_graph(seed=1))
    run_all(worker)
    worker.free_memory(models=models)
    store.submit(light_graph(seed=1, size=9))
    run_all(worker)
    assert light_nodes.ran == ["Count", "Draw", "Count", "Draw"]


def test_what_a_door_keeps_with_a_job_is_not_shown_to_nodes(new_worker, store, monkeypatch):
    seen = []
    monkeypatch.setattr(_Context, "on_node", lambda context, node_id, state: seen.append(dict(context.extra)))
    store.submit(light_graph(), extra={DOOR_NOTES: {"client_id": "me"}, "workflow": {"nodes": []}})
    run_all(new_worker())
    assert seen and all(extra == {"workflow": {"nodes": []}} for extra in seen)


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("atoll", "not_a_checkpoint", 'Node 2 "Fail": ink.safetensors is a LoRA.'),
        ("gpu memory", "out_of_memory", r'Node 2 "Fail" ran out of memory at step 4 of 30. Try a smaller size'),
        ("cpu memory", "out_of_memory", r'Node 2 "Fail" ran out of memory at step 4 of 30. Try a smaller size'),
        ("disk", "storage_full", 'Node 2 "Fail" could not write at step 4 of 30: the disk is full. Free some space'),
        ("bug", "unexpected", 'Node 2 "Fail" failed unexpectedly at step 4 of 30: KeyError: '),
    ],
)
def test_a_failure_is_told_in_words_and_the_worker_goes_on(new_worker, store, caplog, how, code, words):
    failed = store.submit(light_graph(between={"class_type": "Fail", "inputs": {"how": how}}))
    fine = store.submit(light_graph())
    run_all(new_worker())
    failure = store.get(failed.job_id).failure
    assert (failure.code, failure.node_id) == (code, "2")
    assert failure.message.startswith(words)
    assert "Traceback" not in failure.message
    assert ("Traceback" in caplog.text) == (code == "unexpected"), "the log has what the owner need not see"
    assert store.get(fine.job_id).state is JobState.DONE


def test_a_node_is_called_by_its_title(new_worker, store):
    graph = light_graph(between={"class_type": "Fail", "inputs": {"how": "atoll"}})
    graph["2"]["_meta"] = {"title": "Ink's brush"}
    job = store.submit(graph)
    run_all(new_worker())
    assert store.get(job.job_id).failure.message == 'Node 2 "Ink\'s brush": ink.safetensors is a LoRA.'


def test_a_graph_that_is_none_fails_in_words(new_worker, store):
    job = store.submit({"1": {"inputs": {}}})
    run_all(new_worker())
    assert store.get(job.job_id).failure.code == "invalid_graph"


def test_a_broken_device_costs_the_worker_not_the_job(new_worker, store):
    job = store.submit(light_graph(between={"class_type": "Fail", "inputs": {"how": "device"}}))
    for _ in range(2):
        with pytest.raises(DeviceFault, match="illegal memory access"):
            new_worker().run_next()
        assert store.get(job.job_id).state is JobState.QUEUED
    with pytest.raises(DeviceFault):
        new_worker().run_next()
    assert store.get(job.job_id).failure.code == "worker_died", "three devices are enough"


def test_cancel_stops_a_running_task_within_a_step(new_worker, store):
    job = store.submit(light_graph(between={"class_type": "Wait"}))
    worker = new_worker()
    thread = in_thread(lambda: run_all(worker))
    wait_until(lambda: "Wait" in light_nodes.ran)
    store.cancel(job.job_id)
    worker.wake()
    thread.join(10)
    assert not thread.is_alive() and store.get(job.job_id).state is JobState.CANCELLED
    assert kinds(store, job.job_id)[-1] == "cancelled"
    assert store.artifacts() == [] and store.leases() == []


def test_cancel_is_heard_by_a_worker_that_nobody_woke(new_worker, store):
    job = store.submit(light_graph(steps=10_000, pause_ms=5))
    thread = in_thread(lambda: run_all(new_worker()))
    wait_until(lambda: store.get(job.job_id).state is JobState.RUNNING)
    store.cancel(job.job_id)
    thread.join(10)
    assert store.get(job.job_id).state is JobState.CANCELLED


def test_a_worker_whose_lease_was_taken_leaves_nothing(new_worker, store):
    job = store.submit(light_graph(between={"class_type": "Wait"}))
    worker = new_worker()
    thread = in_thread(worker.run_next)
    wait_until(lambda: "Wait" in light_nodes.ran)
    store.release(store.leases()[0], reason="test", died=True)
    other = store.claim("another worker")
    thread.join(10)
    assert not thread.is_alive()
    worker.finish()
    assert store.get(job.job_id).state is JobState.RUNNING and store.leases() == [other.lease]


def test_a_stopped_worker_gives_its_task_back_at_once(new_worker, store):
    job = store.submit(light_graph(between={"class_type": "Wait"}))
    worker = new_worker()
    thread = in_thread(worker.serve)
    wait_until(lambda: "Wait" in light_nodes.ran)
    worker.stop("the studio closed")
    assert store.get(job.job_id).state is JobState.QUEUED
    assert store.events(job.job_id)[-1].data == {"reason": "the studio closed"}
    thread.join(10)
    assert not thread.is_alive()


def test_the_next_task_starts_while_pictures_are_encoded(new_worker, store, monkeypatch):
    """The encoder waits until the second job computes; were it on the worker's path, this would never end."""
    second_runs = threading.Event()

    def slow_encode(image, text, level=1):
        assert second_runs.wait(20)
        return b"png"

    monkeypatch.setattr(finisher, "encode_png", slow_encode)
    first = store.submit(light_graph(seed=1))
    second = store.submit(light_graph(seed=2, between={"class_type": "Wait"}))
    worker = new_worker()
    thread = in_thread(lambda: run_all(worker))
    wait_until(lambda: "Wait" in light_nodes.ran)
    assert store.get(first.job_id).state is JobState.RUNNING
    second_runs.set()
    wait_until(lambda: store.get(first.job_id).state is JobState.DONE)
    assert store.get(second.job_id).state is JobState.RUNNING
    light_nodes.gate.set()
    thread.join()


def test_a_picture_that_does_not_fit_on_the_disk_fails_its_job(new_worker, store, monkeypatch):
    def write(self, content, suffix):
        raise StorageFull("The disk is full: 1.0 MiB did not fit.")

    monkeypatch.setattr(ArtifactFiles, "write", write)
    job = store.submit(light_graph(pictures=3))
    run_all(new_worker())
    failure = store.get(job.job_id).failure
    assert (failure.code, failure.message) == ("storage_full", 'Node 9 "Draw": The disk is full: 1.0 MiB did not fit.')
    assert store.artifacts() == []


def test_a_result_outlives_a_store_that_is_away_for_a_moment(new_worker, store, monkeypatch):
    monkeypatch.setattr(finisher, "RETRY_S", 0.01)
    record, away = store.record, iter([True, True])

    def flaky_record(lease, outcome):
        if next(away, False):
            raise AtollError("The job store does not answer.", code="store_unavailable")
        record(lease, outcome)

    monkeypatch.setattr(store, "record", flaky_record)
    job = store.submit(light_graph())
    run_all(new_worker())
    assert store.get(job.job_id).state is JobState.DONE and len(store.artifacts()) == 1


def test_a_quiet_task_keeps_its_lease(settings, store, monkeypatch):
    """Its one step takes three lease times."""
    from atoll.jobs.sql_store import SqlJobStore
    from atoll.workers.worker import Worker

    short = settings.model_copy(update={"lease_s": 0.3})
    quick_store = SqlJobStore(short.store_url, lease_s=0.3)
    beats = []
    worker = Worker(short, quick_store, light_nodes.light_registry(), on_beat=lambda: beats.append(1))
    job = quick_store.submit(light_graph(steps=1, pause_ms=900))
    thread = in_thread(lambda: run_all(worker))
    wait_until(lambda: quick_store.leases())
    while thread.is_alive():
        assert quick_store.release_expired() == []
        time.sleep(0.01)
    assert kinds(quick_store, job.job_id).count("running") == 1
    assert quick_store.get(job.job_id).state is JobState.DONE and beats
    worker.close()
    quick_store.close()


def test_sizes_of_results_are_counted():
    array = np.zeros((10, 10), dtype=np.float32)
    assert size_in_bytes(array) == 400
    assert size_in_bytes(({"samples": array, "mask": [array, array]}, "text")) >= 1200
