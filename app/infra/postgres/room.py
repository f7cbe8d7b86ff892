"""How many connections the server has room for, compared with how many may be wanted, once at every start.

Guarantees that an installation which could run out of connections in its next rollout is not started: exit 78
and one line, before anything is served. A server that does not answer at once is not waited for: the process
starts as it would have, and its next start asks again.
"""

import asyncio
import sys
from typing import Final

from app.connections import refusal
from app.domain.errors import Unavailable
from app.infra.postgres.pool import Database

EXIT_CONFIGURATION: Final = 78
TIMEOUT_S: Final = 1.5

_ROOM: Final = """
SELECT least(
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true)::int, 0),
    CASE WHEN r.rolconnlimit >= 0 THEN r.rolconnlimit END,
    CASE WHEN d.datconnlimit >= 0 THEN d.datconnlimit END
) FROM pg_roles r, pg_database d WHERE r.rolname = current_user AND d.datname = current_database()"""


class TooSmallError(SystemExit):
    """The database has no room. Where nobody catches it, the program ends with 78; its line was said."""


async def room(database: Database) -> int:
    """How many connections this role may have to this database. Raises Unavailable."""
    async with database.connection() as connection:
        return int(await connection.fetchval(_ROOM))


async def refuse_small_server(database: Database, own: int, total: int | None) -> None:
    """Compare what one process (`own`) and all of them (`total`) may open with what there is.

    Raises TooSmallError.
    """
    try:
        async with asyncio.timeout(TIMEOUT_S):
            why = refusal(own, total, await room(database))
    except (Unavailable, TimeoutError):
        return
    if why is not None:
        sys.stderr.write(f"holdfast: {why}\n")
        raise TooSmallError(EXIT_CONFIGURATION)
