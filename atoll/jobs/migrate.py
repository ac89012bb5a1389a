"""Bringing a database to this version's tables, once, whoever opens it first."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from atoll.errors import AtollError
from atoll.jobs.schema import SCHEMA_VERSION

MIGRATIONS = Path(__file__).parent / "migrations"


def schema_version(connection: Connection) -> str | None:
    """The version of the tables; None in a database without ours."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def migrate(connection: Connection, where: str) -> None:
    """Run the missing migrations in the caller's transaction, which must keep other migrators out.

    Raises: AtollError "store_too_new" for tables of a newer Atoll, which are left as they are.
    """
    from alembic import command  # a quarter of a second to import, needed once per database
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", MIGRATIONS.as_posix().replace("%", "%%"))
    config.attributes["connection"] = connection
    version = schema_version(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if version is not None and version not in known:
        raise AtollError(
            f"{where} was written by a newer Atoll: its tables are of version {version}, this Atoll knows versions up "
            f"to {SCHEMA_VERSION}. Nothing was changed. Update Atoll, or choose another home.",
            code="store_too_new",
        )
    command.upgrade(config, "head")
