"""Nothing rests on a lock: with two holders at once, the older one's writes are refused where they happen."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.hotpath.locks import Lease
from app.hotpath.locks_lease import RELEASE
from app.infra.postgres.fencing import FencedOffError, guard, next_token
from app.infra.postgres.pool import Database
from tests.integration.hotpath.lock_world import Process, process


@pytest.fixture
async def one(redis_url) -> AsyncIterator[Process]:
    """A process."""
    async with process(redis_url) as opened:
        yield opened


@pytest.fixture
async def two(redis_url) -> AsyncIterator[Process]:
    """Another."""
    async with process(redis_url) as opened:
        yield opened


class Ledger:
    """Something exclusive: entries that one holder of a lock after another may append."""

    NAME = "test-ledger"

    def __init__(self, database: Database) -> None:
        self.database = database

    async def append(self, token: int, entry: str) -> None:
        """Write under a token."""
        async with self.database.transaction() as connection:
            await guard(connection, self.NAME, token)
            await connection.execute("INSERT INTO entries VALUES ($1, $2)", token, entry)

    async def entries(self) -> list[str]:
        """All of them, in the order of writing."""
        return [row["entry"] for row in await self.database.fetch("SELECT entry FROM entries ORDER BY id")]


@pytest.fixture
async def ledger(database_url) -> AsyncIterator[Ledger]:
    """An empty one."""
    database = await Database(database_url, size=4, name="test").open()
    await database.execute(
        "CREATE TABLE entries (token bigint, entry text, id bigint GENERATED ALWAYS AS IDENTITY)"
    )
    yield Ledger(database)
    await database.close()


@pytest.mark.parametrize("how", ["deleted", "flushed", "expired"])
async def test_of_two_holders_only_the_newer_one_writes(one, two, ledger, how):
    """However the first one lost its lock without knowing it: it still writes until the second one has."""
    first = await one.locks.hold("n", lifetime_s=60).__aenter__()
    first_token = await next_token(ledger.database)
    await ledger.append(first_token, "first")
    if how == "flushed":
        await one.client.execute("FLUSHALL")
    elif how == "deleted":
        await one.client.execute("DEL", first.key)
    else:
        await one.client.execute("PEXPIRE", first.key, 1)
    async with two.locks.hold("n", lifetime_s=60) as second:
        assert first.is_held  # both believe so
        assert second.is_held
        second_token = await next_token(ledger.database)
        await ledger.append(first_token, "first, late and harmless: nobody has written since")
        await ledger.append(second_token, "second")
        with pytest.raises(FencedOffError):
            await ledger.append(first_token, "first, too late")
        await ledger.append(second_token, "second again")
    assert [entry.partition(",")[0] for entry in await ledger.entries()] == [
        "first",
        "first",
        "second",
        "second again",
    ]
    assert first_token < second_token


async def test_many_false_holders_leave_entries_in_the_order_of_their_tokens(one, two, ledger):
    """Locks are deleted under everybody all the time; no older token ever writes after a newer one."""
    refused = 0

    async def write(process_: Process, number: int) -> None:
        nonlocal refused
        async with process_.locks.hold("n", lifetime_s=60) as lease:
            token = await next_token(ledger.database)
            if number % 3:
                await take_away(lease)
                await asyncio.sleep(0.003 * (number % 5))
            try:
                await ledger.append(token, str(number))
            except FencedOffError:
                refused += 1

    async def take_away(lease: Lease) -> None:
        await one.client.execute("DEL", lease.key)
        await one.locks.ask(RELEASE, (lease.key,), "nobody.1")  # wakes the next, while this one goes on

    await asyncio.gather(*(write((one, two)[number % 2], number) for number in range(120)))
    tokens = [row["token"] for row in await ledger.database.fetch("SELECT token FROM entries ORDER BY id")]
    assert tokens == sorted(tokens)
    assert len(tokens) + refused == 120
    assert refused > 10
