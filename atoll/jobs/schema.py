"""The tables of the job store. A change here needs a migration in `migrations/versions` (a test compares the two).

JSON lies in text columns, written by us, so that both databases keep it character by character.
"""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, ForeignKey, Index, Integer, MetaData, String, Table, Text

SCHEMA_VERSION = "0001"  # the newest of migrations/versions

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

jobs = Table(
    "jobs",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("job_id", String(64), nullable=False, unique=True),
    Column("owner", Text, nullable=False),
    Column("graph", Text, nullable=False),
    Column("extra", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("submitted_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("failure", Text),
    Index("ix_jobs_state_number", "state", "number"),
    sqlite_autoincrement=True,
)

tasks = Table(
    "tasks",
    metadata,
    Column("task_id", Integer, primary_key=True, autoincrement=True),
    Column("job_id", ForeignKey("jobs.job_id"), nullable=False, index=True),
    Column("priority", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("worker_deaths", Integer, nullable=False),
    Column("worker", Text),
    Column("token", String(32)),
    Column("expires_at", Float),
    sqlite_autoincrement=True,
)
Index("ix_tasks_queue", tasks.c.state, tasks.c.priority.desc(), tasks.c.task_id)

events = Table(
    "events",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("job_id", ForeignKey("jobs.job_id"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("data", Text, nullable=False),
    Column("preview", Text),  # of a step; dropped when the job ends
    Column("time", Float, nullable=False),
    Index("ix_events_job_id_seq", "job_id", "seq"),
    sqlite_autoincrement=True,  # a number is never given twice, even after the newest rows are gone
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("job_id", ForeignKey("jobs.job_id"), nullable=False, index=True),
    Column("sha256", String(64), nullable=False, index=True),
    Column("filename", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("node_id", Text, nullable=False),
    Column("batch_index", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Index("ix_artifacts_kind_number", "kind", "number"),
    sqlite_autoincrement=True,
)
