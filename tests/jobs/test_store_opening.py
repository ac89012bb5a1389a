"""Opening a database: new, old, newer, shared, broken; and what is on disk when a job is accepted."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from atoll.errors import AtollError, InvalidRequest, StorageFull
from atoll.jobs.migrate import MIGRATIONS
from atoll.jobs.schema import SCHEMA_VERSION, metadata
from atoll.jobs.sql_store import SqlJobStore


def test_the_migrations_make_the_tables_that_the_code_uses(store, store_url):
    engine = sqlalchemy.create_engine(store_url)
    with engine.connect() as connection:
        difference = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    assert difference == []
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == SCHEMA_VERSION


def test_many_may_open_a_new_database_at_once(open_store):
    with ThreadPoolExecutor(4) as threads:
        stores = list(threads.map(lambda _: open_store(), range(4)))
    job = stores[0].submit({})
    assert [store.get(job.job_id) for store in stores] == [job] * 4


def test_many_processes_may_open_a_new_database_at_once(tmp_path):
    code = "import sys; from atoll.jobs.sql_store import SqlJobStore; SqlJobStore(sys.argv[1]).submit({})"
    url = f"sqlite:///{tmp_path / 'new.db'}"
    processes = [subprocess.Popen([sys.executable, "-c", code, url]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    store = SqlJobStore(url)
    assert len(store.jobs()) == 3
    store.close()


def test_a_database_of_a_newer_atoll_is_left_alone(open_store, store_url):
    job = open_store().submit({})
    engine = sqlalchemy.create_engine(store_url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(AtollError, match=r"newer Atoll.*version 9999.*Update Atoll") as refused:
        open_store()
    assert refused.value.code == "store_too_new"
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("SELECT job_id FROM jobs")).scalar() == job.job_id
        assert connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version")).scalar() == "9999"
    engine.dispose()


def test_a_home_with_spaces_and_chinese_letters(tmp_path):
    store = SqlJobStore(f"sqlite:///{(tmp_path / '我的 工作室 100%' / 'atoll.db').as_posix()}")
    assert store.submit({}).number == 1
    store.close()
    assert (tmp_path / "我的 工作室 100%" / "atoll.db").is_file()


def test_a_file_that_is_no_database_is_named_and_kept(tmp_path):
    path = tmp_path / "atoll.db"
    path.write_bytes(b"these are my holiday notes" * 100)
    with pytest.raises(AtollError, match=r"atoll\.db cannot be opened: file is not a database"):
        SqlJobStore(f"sqlite:///{path}")
    assert path.read_bytes() == b"these are my holiday notes" * 100


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://x/y"])
def test_a_database_that_others_cannot_open_is_refused(url):
    with pytest.raises(InvalidRequest):
        SqlJobStore(url)


def test_an_unreachable_server_is_told_without_its_password():
    with pytest.raises(AtollError, match="does not answer") as refused:
        SqlJobStore("postgresql://ann:s3cret@127.0.0.1:1/studio")
    assert refused.value.code == "store_unavailable" and "s3cret" not in str(refused.value)


def test_a_full_disk_is_told_and_what_was_stored_stays(tmp_path):
    store = SqlJobStore(f"sqlite:///{tmp_path / 'atoll.db'}")
    job = store.submit({"1": {}})

    @sqlalchemy.event.listens_for(store._engine, "checkout")
    def shrink(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute("PRAGMA max_page_count=1")  # SQLite takes the least that holds what is there

    with pytest.raises(StorageFull, match=r"atoll\.db is full. Make room"):
        for number in range(100):
            store.submit({"1": {"text": "x" * 10_000}}, job_id=f"big-{number}")
    stored = store.jobs()
    assert job in stored and all(found.graph for found in stored)
    store.close()


def test_an_accepted_job_is_on_disk_before_anybody_is_told(tmp_path):
    """The system calls of a submit: the write-ahead log is synced after its last write, before submit returns."""
    strace = Path("/usr/bin/strace")
    if not strace.exists():
        pytest.skip("strace is not installed, so the order of system calls can't be seen here")
    code = (
        "import os, sys; from atoll.jobs.sql_store import SqlJobStore; store = SqlJobStore(sys.argv[1]);"
        "os.write(2, b'submitting'); store.submit({}); os.write(2, b'accepted')"
    )
    trace = tmp_path / "trace"
    calls = ["-f", "-y", "-e", "trace=write,pwrite64,fsync,fdatasync", "-o", trace]
    url = f"sqlite:///{tmp_path / 'new.db'}"
    subprocess.run([strace, *calls, sys.executable, "-c", code, url], check=True, capture_output=True)
    lines = trace.read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if "submitting" in line)
    end = next(n for n, line in enumerate(lines) if '"accepted"' in line)
    on_log = [line for line in lines[start:end] if "new.db-wal" in line]
    assert "pwrite64" in on_log[0] and "sync(" in on_log[-1]
