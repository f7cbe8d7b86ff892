"""Fencing: tokens only grow, and whoever comes with an old one is refused in the transaction that writes."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.infra.postgres.fencing import FencedOffError, guard, next_token
from app.infra.postgres.pool import Database
from tests.integration.postgres.interference import begun


@pytest.fixture
async def elsewhere(database_url: str) -> AsyncIterator[Database]:
    """Another process."""
    database = await Database(database_url, size=5, name="elsewhere").open()
    yield database
    await database.close()


async def write(database: Database, name: str, token: int) -> None:
    """A transaction of somebody who believes that the lock is his."""
    async with database.transaction() as connection:
        await guard(connection, name, token)


async def test_tokens_only_grow(database: Database, elsewhere: Database):
    """Whoever asks, and also when what they were taken for fails."""
    tokens = [await next_token(database), await next_token(elsewhere), await next_token(database)]
    assert tokens == sorted(set(tokens))
    many = await asyncio.gather(*(next_token(somebody) for somebody in (database, elsewhere) * 10))
    assert len(set(many)) == 20
    assert min(many) > tokens[-1]


async def test_whoever_has_an_older_token_than_the_last_writer_is_refused(database: Database):
    """He may write as often as he likes until then; another name is another matter."""
    old, new = await next_token(database), await next_token(database)
    await write(database, "relay", old)
    await write(database, "relay", old)
    await write(database, "relay", new)
    with pytest.raises(FencedOffError, match="relay") as refused:
        await write(database, "relay", old)
    assert (refused.value.name, refused.value.token) == ("relay", old)
    await write(database, "relay", new)
    await write(database, "leases", old)


async def test_a_refusal_undoes_what_was_written_beside_it(database: Database):
    """It is raised in the transaction of the one who came too late."""
    old, new = await next_token(database), await next_token(database)
    await write(database, "relay", new)

    async def write_too_late() -> None:
        async with database.transaction() as connection:
            await connection.execute("INSERT INTO daily_summary (day, currency) VALUES ('2026-01-01', 'USD')")
            await guard(connection, "relay", old)

    with pytest.raises(FencedOffError):
        await write_too_late()
    assert await database.fetch("SELECT 1 FROM daily_summary") == []


@pytest.mark.parametrize("newer_commits", [True, False])
async def test_two_writers_at_once_are_one_after_the_other(
    database: Database, elsewhere: Database, other, newer_commits: bool
):
    """The older waits for the newer; what becomes of him depends on whether that one has written."""
    old, new = await next_token(database), await next_token(elsewhere)
    await write(database, "relay", old)
    async with elsewhere.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await guard(connection, "relay", new)
        waiting = await begun(other, write(database, "relay", old))
        await (transaction.commit() if newer_commits else transaction.rollback())
    if newer_commits:
        with pytest.raises(FencedOffError):
            await waiting
    else:
        await waiting


async def test_the_newer_waits_until_the_older_has_written(database: Database, elsewhere: Database, other):
    """Nothing of the older comes after anything of the newer."""
    old, new = await next_token(database), await next_token(elsewhere)
    async with database.transaction() as connection:
        await guard(connection, "relay", old)
        waiting = await begun(other, write(elsewhere, "relay", new))
        assert not waiting.done()
    await waiting
    with pytest.raises(FencedOffError):
        await write(database, "relay", old)
