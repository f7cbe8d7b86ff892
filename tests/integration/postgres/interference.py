"""Somebody else on the same database: holds rows, watches who waits, kills connections."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

import asyncpg

from app.infra.postgres.pool import Connection

R = TypeVar("R")

BLOCKED = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()
"""
KILL = """
SELECT pg_terminate_backend(pid) FROM (
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'holdfast-test' ORDER BY random() LIMIT $1
) found
"""
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


@asynccontextmanager
async def holding(other: Connection, statement: str, *arguments: object) -> AsyncIterator[None]:
    """A transaction that has run a statement and does not end; rolled back when the block ends."""
    transaction = other.transaction()
    await transaction.start()
    await other.execute(statement, *arguments)
    try:
        yield
    finally:
        await transaction.rollback()


async def begun(other: Connection, work: Awaitable[R], waiting: int = 1) -> asyncio.Task[R]:
    """Begin something that will have to wait for a lock, and return when it does."""
    task = asyncio.ensure_future(work)
    async with asyncio.timeout(60):
        while len(await other.fetch(BLOCKED)) < waiting:
            assert not task.done(), "it did not wait for anything"
            await asyncio.sleep(0.005)
            # Within a transaction the list of connections is as it was when it was first looked at.
            await other.execute("SELECT pg_stat_clear_snapshot()")
    return task


async def kill(other: Connection, at_most: int | None = None) -> int:
    """End connections of the pool under test, as the server does when it is shut down; how many."""
    return len(await other.fetch(KILL, at_most))


async def deadlocks(url: str) -> int:
    """How many deadlocks there were in this database since it was made."""
    connection = await asyncpg.connect(url)
    try:
        # Statistics of connections that are still open arrive late, but those of a deadlock at once.
        await connection.execute("SELECT pg_stat_force_next_flush(), pg_stat_clear_snapshot()")
        return int(await connection.fetchval(DEADLOCKS))
    finally:
        await connection.close()
