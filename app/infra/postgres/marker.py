"""The marker in PostgreSQL: the one row of `environment_marker`, from which all other markers come.

Guarantees that no statement is run in the database of another environment: every new connection is asked
first. An unmarked database gets the marker of the first mode or `holdfast migrate` that comes with an
ENVIRONMENT; nothing changes it after that but an operator. If the process dies here, it is written or not.
"""

import sys
from typing import Final

import asyncpg

from app.domain.errors import Unavailable
from app.infra.markers import EXIT_CONFIGURATION, ElsewhereError, Markers, difference
from app.infra.postgres.pool import Connection, Database, Examine
from app.infra.postgres.statements import statements

SERVICE: Final = "postgres"
PRODUCTION: Final = "production"
"""The one environment that nobody changes by the way, without saying that it is meant."""

_MEND: Final = "UPDATE environment_marker SET environment = '{own}', marked_at = now()"
_SQL: Final = statements("marker")


async def read(connection: Connection) -> str | None:
    """The environment that the database belongs to; None when nobody has said so yet, or nothing could."""
    if not await connection.fetchval(_SQL["there_is"]):
        return None
    found: str | None = await connection.fetchval(_SQL["read"])
    return found


async def write(connection: Connection, environment: str) -> str | None:
    """Mark the database, unless it is marked; the environment that it belongs to now."""
    await connection.execute(_SQL["write"], environment)
    return await read(connection)


def examiner(markers: Markers) -> Examine:
    """What asks each new connection of a mode. It raises Unavailable where nothing may be asked of it."""

    async def examine(connection: Connection) -> None:
        try:
            found = await connection.fetchval(_SQL["read"])
            if found is None:
                found = await write(connection, markers.environment)
        except asyncpg.UndefinedTableError:
            raise Unavailable(SERVICE, "its schema is older than this release: holdfast migrate") from None
        except asyncpg.UndefinedColumnError:
            raise Unavailable(SERVICE, "environment_marker is no table of ours") from None
        except asyncpg.InsufficientPrivilegeError:
            raise Unavailable(
                SERVICE, "environment_marker needs GRANT SELECT, INSERT for this role"
            ) from None
        mend = _MEND.format(own=markers.environment)
        markers.compare("DATABASE_URL", SERVICE, str(found), mend=mend)
        markers.is_sure = True

    return examine


def complaint(found: str | None, environment: str, *, changes: bool) -> str | None:
    """Why a command may not be run on a database, or None. It need not be told an ENVIRONMENT, as a rule.

    It may never be told another one; and what `changes` something in production must be told that one.
    """
    if found is None or found == environment:
        return None
    if environment:
        return difference("DATABASE_URL", SERVICE, found, environment, mend=_MEND.format(own=environment))
    if changes and found == PRODUCTION:
        return f"ENVIRONMENT must be {PRODUCTION!r} to change this: DATABASE_URL leads to that database"
    return None


async def refuse(connection: Connection, environment: str, *, changes: bool, why: str = "") -> None:
    """Go no further with a command that is not meant for this database. Raises ElsewhereError.

    `why` is said where it is refused as a change and does not look like one.
    """
    line = complaint(await read(connection), environment, changes=changes)
    if line is not None and why and not environment:
        line = f"{line}; {why}"
    if line is not None:
        sys.stderr.write(f"holdfast: {line}\n")
        raise ElsewhereError(EXIT_CONFIGURATION)


async def refuse_for(database: Database, environment: str, *, changes: bool, why: str = "") -> None:
    """`refuse`, with a pool. Raises Unavailable, too."""
    async with database.connection() as connection:
        await refuse(connection, environment, changes=changes, why=why)
