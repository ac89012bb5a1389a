"""`kill -9` of server and worker at random points: every accepted job ends exactly once, and no result is lost."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from light_nodes import light_graph
from PIL import Image

from atoll.artifacts.files import ArtifactFiles
from atoll.jobs.events import EventKind
from atoll.jobs.job import JobState
from atoll.jobs.sql_store import SqlJobStore

HERE = Path(__file__).parent
KILLS = 50
LEASE_S = 2.0
SIZE = 12
LIFE = re.compile(r"q((R[ns]*)r)*((R[ns]*)[ad]*[fcd])?|qc")  # a job's events by their letters below
LETTERS = {"queued": "q", "running": "R", "requeued": "r", "node": "n", "step": "s", "artifact": "a"}
LETTERS |= {"done": "d", "failed": "f", "cancelled": "c"}

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills POSIX process groups")


class Server:
    """The server process; whoever asks waits until one is up and repeats what was not answered."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.process: subprocess.Popen[str] | None = None
        self.changed = threading.Condition()

    def start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent.parent)])}
        with (self.home.parent / "server.log").open("a") as log, self.changed:
            self.process = subprocess.Popen(
                [sys.executable, HERE / "light_server.py", self.home, str(LEASE_S)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
            )  # fmt: skip
            self.changed.notify_all()

    def ask(self, line: dict, answer: str) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.process is not None)
                process = self.process
            try:
                process.stdin.write(json.dumps(line) + "\n")
                process.stdin.flush()
                while told := process.stdout.readline():
                    if told.strip() == answer:
                        return
            except (OSError, ValueError):
                pass
            with self.changed:  # it died before it answered: whether it did its work, only asking again tells
                self.changed.wait_for(lambda killed=process: self.process is not killed)

    def kill(self) -> None:
        process = self.process
        process.kill()
        process.wait()

    def worker(self) -> psutil.Process | None:
        try:
            return next(iter(psutil.Process(self.process.pid).children()), None)
        except psutil.NoSuchProcess:
            return None


class Client(threading.Thread):
    """Submits jobs and now and then cancels one, until it is told to stop."""

    def __init__(self, server: Server, dice: random.Random) -> None:
        super().__init__(daemon=True)
        self.server, self.dice = server, dice
        self.accepted: dict[str, int] = {}  # job id -> seed
        self.cancelled: set[str] = set()
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(self.dice.uniform(0, 0.3)):
            seed = len(self.accepted)
            graph = light_graph(seed, steps=self.dice.randint(1, 12), pause_ms=self.dice.randint(0, 12), size=SIZE)
            graph["9"]["inputs"]["pictures"] = 1 + seed % 2
            job_id = f"job-{seed}"
            self.server.ask({"job_id": job_id, "graph": graph}, f"accepted {job_id}")
            self.accepted[job_id] = seed
            if seed % 9 == 5:
                self.server.ask({"cancel": job_id}, f"cancelled {job_id}")
                self.cancelled.add(job_id)


class Reader(threading.Thread):
    """An owner who looks at the events all the time and resumes after the last one seen."""

    def __init__(self, store: SqlJobStore) -> None:
        super().__init__(daemon=True)
        self.store, self.seen, self.stopped = store, [], threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(0.02):
            self.seen += self.store.events(after=self.seen[-1].seq if self.seen else 0)


def test_server_and_worker_killed_fifty_times(tmp_path):
    seed = random.randrange(10**6)
    print(f"the dice of this run: {seed}")
    dice = random.Random(seed)
    home = tmp_path / "home"
    home.mkdir()
    store = SqlJobStore(f"sqlite:///{home / 'atoll.db'}", lease_s=LEASE_S)
    server = Server(home)
    server.start()
    client, reader = Client(server, random.Random(seed + 1)), Reader(store)
    client.start()
    reader.start()

    victims = ["server", "worker"] * (KILLS // 2)
    dice.shuffle(victims)
    for victim in victims:
        time.sleep(dice.uniform(0, 0.8))
        if victim == "worker":
            while (worker := server.worker()) is None:
                time.sleep(0.01)
            worker.kill()
        else:
            server.kill()
            time.sleep(dice.choice([0, 0, 0.1]))
            server.start()
    client.stopped.set()
    client.join(60)
    assert not client.is_alive()

    deadline = time.monotonic() + 60
    while not all(store.get(job_id).state.is_terminal for job_id in client.accepted):
        assert time.monotonic() < deadline, f"not ended: {store.counts()}"
        time.sleep(0.05)
    server.process.stdin.close()
    server.process.wait(20)
    reader.stopped.set()
    reader.join(10)
    reader.seen += store.events(after=reader.seen[-1].seq)

    assert len(client.accepted) >= 20
    check_every_job(store, client, reader.seen, ArtifactFiles(home / "artifacts"))
    counts = store.counts()
    print(f"{len(client.accepted)} jobs, {counts}")
    assert sum(counts.values()) == len(client.accepted), "no job appeared from nowhere"
    assert store.leases() == []
    assert counts[JobState.DONE] > len(client.accepted) / 2
    store.close()


def check_every_job(store, client, seen, files) -> None:
    assert [event.seq for event in seen] == [event.seq for event in store.events(limit=10**6)], "the reader missed some"
    for job_id, seed in client.accepted.items():
        job = store.get(job_id)
        told = [event for event in seen if event.job_id == job_id]
        letters = "".join(LETTERS[event.kind] for event in told)
        assert LIFE.fullmatch(letters), f"{job_id}: {letters}"
        assert [event.kind.value for event in told if event.kind.is_terminal] == [job.state.value], (
            f"{job_id}: {letters}"
        )
        artifacts = [row.artifact for row in store.artifacts(job_id=job_id)]
        if job.state is JobState.DONE:
            assert [artifact.index for artifact in artifacts] == list(range(1 + seed % 2))
            assert letters.count("a") == len(artifacts)
        else:
            assert artifacts == []
            assert job.state is JobState.CANCELLED or job.failure.code == "worker_died", job.failure
        assert job.state is not JobState.CANCELLED or job_id in client.cancelled
        for artifact in artifacts:
            path = files.path(artifact.sha256)
            assert hashlib.sha256(path.read_bytes()).hexdigest() == artifact.sha256
            expected = np.random.default_rng([seed, artifact.index]).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
            np.testing.assert_array_equal(np.asarray(Image.open(path)), expected)
        attempts = [event for event in told if event.kind is EventKind.RUNNING]
        assert [event.data["attempt"] for event in attempts] == list(range(1, job.attempts + 1))
