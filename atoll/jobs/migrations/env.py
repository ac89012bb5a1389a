"""Alembic's entry. The store hands in a connection with an open transaction, so a migration happens whole or not."""

from __future__ import annotations

from alembic import context

from atoll.jobs.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
context.run_migrations()
