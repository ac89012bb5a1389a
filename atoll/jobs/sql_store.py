"""The job store in SQL: SQLite in one file by default, PostgreSQL for a farm.

Events and the order in which they can be seen: a reader resumes after the last number it saw, so a row may never
become visible after one with a higher number. SQLite has one writer at a time, which is enough. PostgreSQL numbers rows
before they are committed, so there every transaction that writes events first takes one lock and keeps it until its
commit is visible. Locks are always taken in the order task, job, events.

What is stored for good: SQLite waits for the disk when a job is accepted (a worker may see it a moment earlier),
cancelled or recorded; the rest (claims, steps) may be lost in a power cut, and then work is done again. PostgreSQL
likewise.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Executable,
    RowMapping,
    and_,
    bindparam,
    create_engine,
    event,
    func,
    insert,
    make_url,
    or_,
    select,
    text,
    update,
)
from sqlalchemy import exc as sql_errors
from sqlalchemy.dialects import postgresql, sqlite

from atoll.artifacts.artifact import Artifact
from atoll.errors import AtollError, InvalidRequest, JobCancelled, LeaseLost, MissingDependency, NotFound, StorageFull
from atoll.jobs.events import Event, EventKind, NewEvent
from atoll.jobs.job import (
    MAX_WORKER_DEATHS,
    MOVES,
    Claim,
    Failure,
    Job,
    JobArtifact,
    JobHead,
    JobState,
    Lease,
    Outcome,
    Task,
)
from atoll.jobs.migrate import migrate, schema_version
from atoll.jobs.schema import SCHEMA_VERSION, artifacts, events, jobs, tasks

BUSY_TIMEOUT_S = 30.0  # how long a writer waits for another one
JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
EVENTS_LOCK, MIGRATION_LOCK = 0x41746F6C01, 0x41746F6C02  # PostgreSQL advisory locks: "Atol" and a number
PREVIEW = "preview"


class SqlJobStore:
    """A `JobStore` in the database at `url`. Opening it makes or migrates the tables.

    Args:
        url: as SQLAlchemy takes it, `sqlite:///path` or `postgresql://...`.
        lease_s: how long a claim or a renewal holds a task.
        clock: seconds since 1970.

    Raises: AtollError "store_unavailable" or "store_too_new", MissingDependency without a PostgreSQL driver.
    """

    def __init__(self, url: str, *, lease_s: float = 30.0, clock: Callable[[], float] = time.time) -> None:
        self.lease_s = lease_s
        self._clock = clock
        parsed = make_url(url)
        self._sqlite_path = _sqlite_path(parsed)
        self._where = f"{self._sqlite_path}" if self._sqlite_path else parsed.render_as_string(hide_password=True)
        if self._sqlite_path:
            self._sqlite_path.parent.mkdir(parents=True, exist_ok=True)
            self._engine = _sqlite_engine(parsed)
            add_job: Any = sqlite.insert(jobs)
        else:
            self._engine = _postgresql_engine(parsed)
            add_job = postgresql.insert(jobs)
        self._add_job = add_job.on_conflict_do_nothing(index_elements=["job_id"]).returning(jobs.c.number)
        self._readers = self._engine
        self._writers = self._engine.execution_options(begin="write")
        self._durable_writers = self._engine.execution_options(begin="durable")
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._engine.dispose()

    # The owner's side

    def submit(
        self,
        graph: dict[str, Any],
        *,
        owner: str = "local",
        priority: int = 0,
        extra: dict[str, Any] | None = None,
        job_id: str | None = None,
        on_queued: Callable[[], None] | None = None,
    ) -> Job:
        job_id = str(uuid.uuid4()) if job_id is None else job_id
        if not JOB_ID.fullmatch(job_id):
            raise InvalidRequest(f"A job's id is 1 to 64 letters, digits, '-' or '_'; {job_id[:80]!r} is not.")
        now = self._clock()
        row = {
            "job_id": job_id,
            "owner": owner,
            "graph": _to_json(graph),
            "extra": _to_json(extra or {}),
            "priority": priority,
            "state": JobState.QUEUED,
            "cancel_requested": False,
            "attempts": 0,
            "submitted_at": now,
        }
        with self._transaction(self._writers if self._sqlite_path else self._durable_writers) as connection:
            added = connection.execute(self._add_job, row).scalar()
            if added is None:
                job = _get(connection, job_id)
                if job.owner != owner or _canonical(job.graph) != _canonical(graph):
                    raise InvalidRequest(
                        f"Job {job_id} was submitted before, with another graph. Nothing was queued. Leave the id out, "
                        "or choose a new one.",
                        code="job_exists",
                    )
            else:
                job = Job(**{**row, "number": added, "graph": graph, "extra": extra or {}})
                task = {"job_id": job_id, "priority": priority, "state": JobState.QUEUED}
                connection.execute(_ADD_TASK, {**task, "attempts": 0, "worker_deaths": 0})
                self._append(connection, job_id, [NewEvent(EventKind.QUEUED, {"priority": priority})], now)
        if on_queued is not None:
            on_queued()
        self._sync_log()
        return job

    def get(self, job_id: str) -> Job:
        with self._transaction(self._readers) as connection:
            return _get(connection, job_id)

    def jobs(
        self,
        *,
        states: Collection[JobState] | None = None,
        owner: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Job]:
        query = select(jobs).order_by(jobs.c.number.desc()).limit(limit)
        if states is not None:
            query = query.where(jobs.c.state.in_(list(states)))
        if owner is not None:
            query = query.where(jobs.c.owner == owner)
        if before is not None:
            query = query.where(jobs.c.number < before)
        with self._transaction(self._readers) as connection:
            return [_job(row) for row in connection.execute(query).mappings()]

    def heads(
        self, *, states: Collection[JobState] | None = None, owner: str | None = None, offset: int = 0, limit: int = 50
    ) -> list[JobHead]:
        columns = [jobs.c[field.name] for field in fields(JobHead)]
        query = select(*columns).order_by(jobs.c.number.desc()).offset(offset).limit(limit)
        if states is not None:
            query = query.where(jobs.c.state.in_(list(states)))
        if owner is not None:
            query = query.where(jobs.c.owner == owner)
        with self._transaction(self._readers) as connection:
            rows = connection.execute(query).mappings().all()
        return [JobHead(**{**row, "state": JobState(row["state"])}) for row in rows]

    def counts(self) -> dict[JobState, int]:
        with self._transaction(self._readers) as connection:
            rows = connection.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state)).all()
        return dict.fromkeys(JobState, 0) | {JobState(state): count for state, count in rows}

    def queue_position(self, job_id: str) -> int | None:
        with self._transaction(self._readers) as connection:
            task = connection.execute(select(tasks).where(tasks.c.job_id == job_id)).mappings().first()
            if task is None:
                raise _no_such_job(job_id)
            if task["state"] != JobState.QUEUED:
                return None
            ahead = or_(
                tasks.c.priority > task["priority"],
                and_(tasks.c.priority == task["priority"], tasks.c.task_id < task["task_id"]),
            )
            query = select(func.count()).select_from(tasks).where(tasks.c.state == JobState.QUEUED, ahead)
            return connection.execute(query).scalar_one()

    def cancel(self, job_id: str) -> Job:
        with self._transaction(self._durable_writers) as connection:
            task = _first(connection, _TASK_OF_JOB, of_job=job_id)
            if task is None:
                raise _no_such_job(job_id)
            if task["state"] == JobState.QUEUED:
                self._end(connection, task, Outcome(JobState.CANCELLED))
            elif task["state"] == JobState.RUNNING:
                connection.execute(update(jobs).where(jobs.c.job_id == job_id).values(cancel_requested=True))
            return _get(connection, job_id)

    def events(self, job_id: str | None = None, *, after: int = 0, limit: int = 1000) -> list[Event]:
        query, wanted = (_EVENTS, {}) if job_id is None else (_EVENTS_OF_JOB, {"of_job": job_id})
        with self._transaction(self._readers) as connection:
            rows = connection.execute(query, {"after": after, "most": limit, **wanted}).mappings()
            return [_event(row) for row in rows]

    def last_seq(self) -> int:
        with self._transaction(self._readers) as connection:
            return connection.execute(_LAST_SEQ).scalar() or 0

    def artifacts(
        self,
        *,
        job_id: str | None = None,
        kind: str | None = "output",
        before: int | None = None,
        limit: int = 50,
    ) -> list[JobArtifact]:
        query = select(artifacts).limit(limit)
        query = query.order_by(artifacts.c.number.desc() if job_id is None else artifacts.c.number)
        if job_id is not None:
            query = query.where(artifacts.c.job_id == job_id)
        if kind is not None:
            query = query.where(artifacts.c.kind == kind)
        if before is not None:
            query = query.where(artifacts.c.number < before)
        with self._transaction(self._readers) as connection:
            return [_artifact(row) for row in connection.execute(query).mappings()]

    def artifact(self, sha256: str) -> JobArtifact:
        query = select(artifacts).where(artifacts.c.sha256 == sha256).order_by(artifacts.c.number.desc()).limit(1)
        with self._transaction(self._readers) as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            raise NotFound(f"No artifact is named {sha256}.")
        return _artifact(row)

    # The worker's side

    def claim(self, worker: str, *, job_id: str | None = None) -> Claim | None:
        query, wanted = (_NEXT_TASK, {}) if job_id is None else (_QUEUED_TASK_OF_JOB, {"of_job": job_id})
        now = self._clock()
        with self._transaction(self._writers) as connection:
            task = _first(connection, query, **wanted)
            if task is None:
                return None
            lease = Lease(task["task_id"], task["job_id"], worker, uuid.uuid4().hex, now + self.lease_s)
            attempts = task["attempts"] + 1
            self._move(
                connection,
                task,
                JobState.RUNNING,
                {"attempts": attempts, "started_at": now},
                {"attempts": attempts, "worker": worker, "token": lease.token, "expires_at": lease.expires_at},
            )
            running = NewEvent(EventKind.RUNNING, {"worker": worker, "attempt": attempts})
            self._append(connection, lease.job_id, [running], now)
            job = _get(connection, lease.job_id)
            return Claim(job, Task(lease.task_id, lease.job_id, attempts, task["worker_deaths"]), lease)

    def report(self, lease: Lease, new_events: Sequence[NewEvent] = ()) -> None:
        # The lock keeps the lease from being taken before these events are in; not needed only to look.
        query = _HOLDER_LOCKED if new_events else _HOLDER
        with self._transaction(self._writers if new_events else self._readers) as connection:
            row = _first(connection, query, of_task=lease.task_id)
            if row is None or row["token"] != lease.token:
                raise _lease_lost(lease)
            if row["cancel_requested"]:
                raise JobCancelled(f"Job {lease.job_id} was cancelled.")
            self._append(connection, lease.job_id, new_events, self._clock())

    def renew(self, lease: Lease) -> Lease:
        expires_at = self._clock() + self.lease_s
        held = and_(tasks.c.task_id == lease.task_id, tasks.c.token == lease.token)
        with self._transaction(self._writers) as connection:
            if connection.execute(update(tasks).where(held).values(expires_at=expires_at)).rowcount == 0:
                raise _lease_lost(lease)
        return Lease(lease.task_id, lease.job_id, lease.worker, lease.token, expires_at)

    def record(self, lease: Lease, outcome: Outcome) -> None:
        with self._transaction(self._durable_writers) as connection:
            task = _first(connection, _TASK_OF_LEASE, of_task=lease.task_id, of_token=lease.token)
            if task is None:
                raise _lease_lost(lease)
            self._end(connection, task, outcome)

    def release(self, lease: Lease, *, reason: str, died: bool) -> bool:
        with self._transaction(self._durable_writers) as connection:
            task = _first(connection, _TASK_OF_LEASE, of_task=lease.task_id, of_token=lease.token)
            if task is None:
                return False
            self._give_back(connection, task, reason, died)
            return True

    def release_expired(self) -> list[str]:
        expired = and_(tasks.c.state == JobState.RUNNING, tasks.c.expires_at < self._clock())
        with self._transaction(self._readers) as connection:
            found = connection.execute(select(tasks.c.task_id).where(expired)).scalars().all()
        released = []
        for task_id in found:
            with self._transaction(self._durable_writers) as connection:
                still = select(tasks).where(tasks.c.task_id == task_id, expired).with_for_update(skip_locked=True)
                task = _first(connection, still)
                if task is not None:
                    self._give_back(connection, task, f"its worker {task['worker']} fell silent", died=True)
                    released.append(task["job_id"])
        return released

    def leases(self) -> list[Lease]:
        with self._transaction(self._readers) as connection:
            rows = connection.execute(select(tasks).where(tasks.c.state == JobState.RUNNING)).mappings().all()
        return [Lease(row["task_id"], row["job_id"], row["worker"], row["token"], row["expires_at"]) for row in rows]

    # Inside a transaction

    def _give_back(self, connection: Connection, task: RowMapping, reason: str, died: bool) -> None:
        deaths = task["worker_deaths"] + died
        if _get(connection, task["job_id"]).cancel_requested:
            self._end(connection, task, Outcome(JobState.CANCELLED))
        elif deaths >= MAX_WORKER_DEATHS:
            message = (
                f"The job took down its worker {deaths} times and is not tried again (last: {reason}). "
                "Often memory is short: try a smaller size or batch, then look at the worker's log."
            )
            self._end(connection, task, Outcome(JobState.FAILED, failure=Failure("worker_died", message)))
        else:
            self._move(connection, task, JobState.QUEUED, {}, {"worker_deaths": deaths, **_NO_LEASE})
            self._append(connection, task["job_id"], [NewEvent(EventKind.REQUEUED, {"reason": reason})], self._clock())

    def _end(self, connection: Connection, task: RowMapping, outcome: Outcome) -> None:
        """Write an outcome: state, artifacts, their events and the last event; drop the previews."""
        now, job_id = self._clock(), task["job_id"]
        failure = asdict(outcome.failure) if outcome.failure else None
        job_values = {"finished_at": now, "failure": failure and _to_json(failure)}
        self._move(connection, task, outcome.state, job_values, _NO_LEASE)
        told = [NewEvent(EventKind.ARTIFACT, asdict(artifact)) for artifact in outcome.artifacts]
        if outcome.artifacts:
            rows = [_artifact_row(artifact, job_id, now) for artifact in outcome.artifacts]
            connection.execute(_ADD_ARTIFACTS, rows)
        last = {**outcome.data, **(failure or {})}
        if outcome.state is JobState.DONE:
            last["artifacts"] = len(told)
        connection.execute(_DROP_PREVIEWS, {"of_job": job_id})
        self._append(connection, job_id, [*told, NewEvent(EventKind(outcome.state.value), last)], now)

    def _move(
        self,
        connection: Connection,
        task: RowMapping,
        state: JobState,
        job_values: dict[str, Any],
        task_values: dict[str, Any],
    ) -> None:
        """The only place where a state changes."""
        if state not in MOVES[JobState(task["state"])]:
            raise AtollError(f"Job {task['job_id']} is {task['state']}; it cannot become {state}.", code="illegal_move")
        connection.execute(_MOVE_TASK, {"of_task": task["task_id"], "state": state, **task_values})
        connection.execute(_MOVE_JOB, {"of_job": task["job_id"], "state": state, **job_values})

    def _append(self, connection: Connection, job_id: str, new_events: Sequence[NewEvent], now: float) -> None:
        if not new_events:
            return
        if self._sqlite_path is None:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({EVENTS_LOCK})"))
        rows = []
        for new in new_events:
            data = {name: value for name, value in new.data.items() if name != PREVIEW}
            row = {"job_id": job_id, "kind": new.kind, "data": _to_json(data), "time": now}
            rows.append({**row, "preview": new.data.get(PREVIEW)})
        connection.execute(_ADD_EVENTS, rows)

    # The database

    def _open(self) -> None:
        if self._sqlite_path:
            _use_wal(self._engine, self._where)
        with self._transaction(self._readers) as connection:
            if schema_version(connection) == SCHEMA_VERSION:
                return
        with self._transaction(self._durable_writers) as connection:
            if self._sqlite_path is None:
                connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
            migrate(connection, self._where)

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        try:
            with engine.begin() as connection:
                yield connection
        except (sql_errors.DBAPIError, sqlite3.Error) as error:
            raise self._translated(error) from error

    def _sync_log(self) -> None:
        """Wait until what was committed before is on the disk: what `synchronous=FULL` does, but after others see it.

        Only the log is opened: closing a second handle of the database itself would drop SQLite's locks.
        """
        if self._sqlite_path is None:
            return
        try:
            log = os.open(f"{self._sqlite_path}-wal", os.O_RDWR)
        except FileNotFoundError:  # the log was moved into the database, which syncs both
            return
        try:
            os.fsync(log)
        except OSError as error:
            raise AtollError(f"{self._where} cannot be written: {error}.", code="store_unavailable") from error
        finally:
            os.close(log)

    def _translated(self, error: sql_errors.DBAPIError | sqlite3.Error) -> AtollError:
        cause = error.orig if isinstance(error, sql_errors.DBAPIError) else error
        code = getattr(cause, "sqlite_errorcode", None)
        full = code == sqlite3.SQLITE_FULL or getattr(cause, "sqlstate", None) == "53100"
        if code is not None and code & 0xFF == sqlite3.SQLITE_IOERR and self._sqlite_path:
            full = shutil.disk_usage(self._sqlite_path.parent).free < 1 << 20
        if full:
            return StorageFull(f"The disk of the job store {self._where} is full. Make room there and try again.")
        return AtollError(f"The job store {self._where} does not answer: {cause}.", code="store_unavailable")


# What runs for every picture is built once: building a statement takes SQLAlchemy longer than running it.
_ADD_TASK, _ADD_EVENTS, _ADD_ARTIFACTS = insert(tasks), insert(events), insert(artifacts)
_JOB = select(jobs).where(jobs.c.job_id == bindparam("of_job"))
_TASK_OF_JOB = select(tasks).where(tasks.c.job_id == bindparam("of_job")).with_for_update()
_TASK_OF_LEASE = (
    select(tasks)
    .where(tasks.c.task_id == bindparam("of_task"), tasks.c.token == bindparam("of_token"))
    .with_for_update()
)
_NEXT_TASK = (
    select(tasks)
    .where(tasks.c.state == JobState.QUEUED)
    .order_by(tasks.c.priority.desc(), tasks.c.task_id)
    .limit(1)
    .with_for_update(skip_locked=True)
)
_QUEUED_TASK_OF_JOB = _NEXT_TASK.where(tasks.c.job_id == bindparam("of_job"))
_HOLDER = (
    select(tasks.c.token, jobs.c.cancel_requested)
    .join(jobs, jobs.c.job_id == tasks.c.job_id)
    .where(tasks.c.task_id == bindparam("of_task"))
)
_HOLDER_LOCKED = _HOLDER.with_for_update(of=tasks)
_MOVE_TASK = update(tasks).where(tasks.c.task_id == bindparam("of_task"))
_MOVE_JOB = update(jobs).where(jobs.c.job_id == bindparam("of_job"))
_DROP_PREVIEWS = (
    update(events).where(events.c.job_id == bindparam("of_job"), events.c.preview.is_not(None)).values(preview=None)
)
_EVENTS = select(events).where(events.c.seq > bindparam("after")).order_by(events.c.seq).limit(bindparam("most"))
_EVENTS_OF_JOB = _EVENTS.where(events.c.job_id == bindparam("of_job"))
_LAST_SEQ = select(func.max(events.c.seq))
_NO_LEASE: dict[str, Any] = {"worker": None, "token": None, "expires_at": None}


def _sqlite_path(url: URL) -> Path | None:
    backend = url.get_backend_name()
    if backend == "sqlite":
        if not url.database or url.database == ":memory:" or url.query:
            raise InvalidRequest("The job store needs a file: sqlite:///path/to/atoll.db. Other processes open it too.")
        return Path(url.database)
    if backend != "postgresql":
        raise InvalidRequest(f"database_url is of {backend!r}; Atoll keeps jobs in sqlite or postgresql.")
    return None


def _sqlite_engine(url: URL) -> Engine:
    engine = create_engine(
        url, connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}, pool_size=8, max_overflow=64
    )

    @event.listens_for(engine, "connect")
    def on_connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself; on_begin does
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        begin = connection.get_execution_options().get("begin")
        raw = connection.connection.dbapi_connection
        assert isinstance(raw, sqlite3.Connection)
        if begin is None:
            raw.execute("BEGIN")
        else:  # a writer that begins as a reader could only fail when it finds that another one was first
            raw.execute(f"PRAGMA synchronous={'FULL' if begin == 'durable' else 'NORMAL'}")
            raw.execute("BEGIN IMMEDIATE")

    return engine


def _postgresql_engine(url: URL) -> Engine:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    try:
        engine = create_engine(url, pool_pre_ping=True, pool_size=8, max_overflow=16)
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"database_url is of PostgreSQL, and {error.name} is not installed. Run: pip install 'atoll[postgresql]'."
        ) from error

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        if connection.get_execution_options().get("begin") == "write":
            connection.exec_driver_sql("SET LOCAL synchronous_commit TO off")

    return engine


def _use_wal(engine: Engine, where: str) -> None:
    """Readers beside a writer. It stays with the file, so the first opener changes it; no busy timeout covers that."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            with engine.connect() as connection:
                raw = connection.connection.dbapi_connection
                assert isinstance(raw, sqlite3.Connection)
                if raw.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                    raw.execute("PRAGMA journal_mode=WAL")
                return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise AtollError(
                    f"The job store {where} cannot be opened: {error}.", code="store_unavailable"
                ) from error
            time.sleep(0.01)
        except (sqlite3.DatabaseError, sql_errors.DBAPIError) as error:
            raise _unopened(where, error.orig if isinstance(error, sql_errors.DBAPIError) else error) from error


def _unopened(where: str, cause: object) -> AtollError:
    return AtollError(f"The job store {where} cannot be opened: {cause}.", code="store_unavailable")


def _first(connection: Connection, query: Executable, **parameters: Any) -> RowMapping | None:
    return connection.execute(query, parameters).mappings().first()


def _get(connection: Connection, job_id: str) -> Job:
    row = _first(connection, _JOB, of_job=job_id)
    if row is None:
        raise _no_such_job(job_id)
    return _job(row)


def _no_such_job(job_id: str) -> NotFound:
    return NotFound(f"There is no job {job_id[:80]!r}.")


def _lease_lost(lease: Lease) -> LeaseLost:
    return LeaseLost(f"Worker {lease.worker} no longer holds the task of job {lease.job_id}; nothing was written.")


def _job(row: RowMapping) -> Job:
    failure = json.loads(row["failure"]) if row["failure"] else None
    return Job(
        **{
            **row,
            "graph": json.loads(row["graph"]),
            "extra": json.loads(row["extra"]),
            "state": JobState(row["state"]),
            "failure": Failure(**failure) if failure else None,
        }
    )


def _event(row: RowMapping) -> Event:
    data, kind = json.loads(row["data"]), EventKind(row["kind"])
    if kind is EventKind.STEP:
        data[PREVIEW] = row["preview"]
    return Event(row["seq"], row["job_id"], kind, data, row["time"])


def _artifact(row: RowMapping) -> JobArtifact:
    fields = {name: row[name] for name in ("sha256", "filename", "media_type", "size_bytes", "width", "height", "kind")}
    artifact = Artifact(**fields, node_id=row["node_id"], index=row["batch_index"])
    return JobArtifact(row["number"], row["job_id"], artifact, row["created_at"])


def _artifact_row(artifact: Artifact, job_id: str, now: float) -> dict[str, Any]:
    row = asdict(artifact)
    return {**row, "batch_index": row.pop("index"), "job_id": job_id, "created_at": now}


def _to_json(value: Any) -> str:
    """Raises: InvalidRequest for what JSON does not have (NaN, infinities, objects)."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"This cannot be written as JSON: {error}. Nothing was stored.") from error


def _canonical(graph: dict[str, Any]) -> str:
    return json.dumps(graph, sort_keys=True)
