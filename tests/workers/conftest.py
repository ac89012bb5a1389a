"""A home with a store and a worker in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import light_nodes

from atoll.jobs.sql_store import SqlJobStore
from atoll.settings import Settings
from atoll.workers.worker import Worker


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", device="cpu")


@pytest.fixture
def store(settings: Settings) -> Iterator[SqlJobStore]:
    store = SqlJobStore(settings.store_url, lease_s=settings.lease_s)
    yield store
    store.close()


@pytest.fixture
def new_worker(settings: Settings, store: SqlJobStore) -> Iterator[Callable[..., Worker]]:
    light_nodes.ran.clear()
    light_nodes.gate.clear()
    workers = []

    def make(**options: object) -> Worker:
        workers.append(Worker(settings, store, light_nodes.light_registry(), **options))
        return workers[-1]

    yield make
    light_nodes.gate.set()
    for worker in workers:
        worker.close()
