"""Fencing: the truth behind a lock. Whoever comes too late is refused where he writes, not where he waits.

A lock in Redis can be lost without its holder knowing: he is frozen, or cut off, and somebody else has it by
then. So whoever holds it takes a token, greater than every token before it, and shows it in the transaction
in which he writes. From the first write with a newer token on, an older one is refused. If the process dies
here, its token is never shown again, and nobody waits for it.
"""

from typing import Final

from app.infra.postgres.pool import Connection, Database
from app.infra.postgres.statements import statements

SQL: Final = statements("fencing")


class FencedOffError(Exception):
    """Somebody with a newer token has written: the lock was lost, and what is being done must not be done."""

    def __init__(self, name: str, token: int) -> None:
        """Token number `token` for what is locked as `name` is too old."""
        super().__init__(f"token {token} for {name} is too old: somebody else has written since")
        self.name = name
        self.token = token


async def next_token(database: Database) -> int:
    """A token greater than every one that was given out before, over all names. Raises Unavailable.

    It is on disk when this returns: a PostgreSQL that is killed never gives it out twice.
    """
    return int((await database.fetch(SQL["next_token"]))[0]["token"])


async def guard(connection: Connection, name: str, token: int) -> None:
    """Let the caller's transaction write under `name`; nobody else does until it ends.

    Call it first in the transaction. The same token may write as often as it likes. Raises FencedOffError
    where a newer one has written, or is just writing.
    """
    if await connection.fetchval(SQL["guard"], name, token) is None:
        raise FencedOffError(name, token)
