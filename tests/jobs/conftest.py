"""The databases that the store's suite runs over. PostgreSQL is a private cluster, started for the tests."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


def _postgresql_programs() -> Path | None:
    """The folder of initdb and postgres, newest version first; installed from Debian's packages when we may."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))
    if folders:
        return folders[-1]
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    return None


def _install_postgresql() -> str:
    """Returns: why it can't be installed, or an empty string when it now is."""
    if sys.platform != "linux" or not shutil.which("apt-get"):
        return "there is no apt-get to install it with"
    if os.geteuid() != 0:
        return "only root may install it: sudo apt-get install postgresql"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "postgresql"]):
        try:
            ran = subprocess.run(["apt-get", *command], env=environment, capture_output=True, text=True, timeout=240)
        except subprocess.TimeoutExpired:
            return f"apt-get {command[0]} took too long"
    return ran.stderr.strip()[-300:] if ran.returncode else ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """The URL of a server with no durability, listening on loopback; its database is `postgres`."""
    programs = _postgresql_programs()
    if programs is None:
        fault = _install_postgresql()
        programs = _postgresql_programs()
        if programs is None:
            pytest.skip(f"PostgreSQL is not installed, and {fault or 'its package holds no initdb'}.")
    user = {}
    folder = Path(tempfile.mkdtemp(prefix="atoll-pg-"))
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(folder, "postgres", "postgres")
        user = {"user": "postgres", "group": "postgres", "extra_groups": []}
    data = folder / "data"
    initdb = [programs / "initdb", "-D", data, "-U", "atoll", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"]
    ran = subprocess.run(initdb, cwd=folder, capture_output=True, text=True, **user)
    if ran.returncode:
        shutil.rmtree(folder)
        pytest.skip(f"PostgreSQL's initdb failed: {ran.stderr.strip()[-300:]}")
    port = _free_port()
    options = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off"}
    command = [programs / "postgres", "-D", data, *(f"--{name}={value}" for name, value in options.items())]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, **user)
    try:
        _wait_for_server(port, server, folder / "log")
        yield f"postgresql+psycopg://atoll@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGQUIT)  # at once: nothing in it is worth a checkpoint
        server.wait(30)
        shutil.rmtree(folder)


def _wait_for_server(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(f"host=127.0.0.1 port={port} user=atoll dbname=postgres").close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"PostgreSQL did not start: {log.read_text()[-1000:]}")
            time.sleep(0.05)


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new, empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'jobs.db'}"
    return _emptied(request.getfixturevalue("postgresql_url"))


def _emptied(server_url: str) -> str:
    """The one database without its tables: quicker than a new database, whose files must be copied and removed."""
    import psycopg

    with psycopg.connect(server_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("SET client_min_messages TO warning")
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return server_url


class Clock:
    """Time as an argument: it stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_store(store_url: str, clock: Clock) -> Iterator[Callable[[], object]]:
    """Open the test's database, each time as another process would."""
    from atoll.jobs.sql_store import SqlJobStore

    opened = []

    def open_it() -> SqlJobStore:
        opened.append(SqlJobStore(store_url, lease_s=30.0, clock=clock))
        return opened[-1]

    yield open_it
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[[], object]) -> object:
    return open_store()
