"""A worker that has just started is made ready for the job that most likely comes."""

from __future__ import annotations

import pytest

from atoll.artifacts.input_files import InputFiles
from atoll.nodes.model_shelf import ModelShelf
from atoll.nodes.registry import core_registry
from atoll.workers.warm_up import likely_model, warm_up


def with_checkpoint(name):
    return {"4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": name}}}


def test_the_newest_jobs_model_is_likely_wanted_next(store):
    assert likely_model(store, "usual") == "usual"
    store.submit(with_checkpoint("old"))
    store.submit(with_checkpoint("new"))
    assert likely_model(store, "usual") == "new"
    store.cancel(store.submit(with_checkpoint("unwanted")).job_id)
    store.submit({"1": {"class_type": "LoadImage", "inputs": {}}})
    assert likely_model(store, "usual") == "new"


@pytest.fixture
def shelf(settings, tiny_checkpoint):
    (settings.models_dir / "checkpoints").mkdir(parents=True)
    (settings.models_dir / "checkpoints" / "tiny").symlink_to(tiny_checkpoint)
    return ModelShelf.from_settings(settings)


def test_a_model_is_loaded_and_used_and_nothing_is_left_behind(store, settings, shelf, caplog):
    store.submit(with_checkpoint("tiny"))
    warm_up(core_registry(), shelf, InputFiles(settings.inputs_dir), store, "usual")
    assert "could not be warmed" not in caplog.text
    assert shelf.warm_names() == ["tiny"]
    assert not settings.artifacts_dir.exists() and store.artifacts(kind=None) == []


def test_what_cannot_be_warmed_stops_no_worker(store, settings, shelf, caplog):
    store.submit(with_checkpoint("gone"))
    warm_up(core_registry(), shelf, InputFiles(settings.inputs_dir), store, "usual")
    assert "gone could not be warmed" in caplog.text
