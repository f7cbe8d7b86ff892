"""Shards are shared out, taken over at once, and whoever lost one writes nothing."""

import asyncio
import signal
import time
from contextlib import AsyncExitStack

import pytest

from app.consumer.effect import Delivery
from app.infra.postgres.leases import LEASE_S, LeaseLostError, ShardLeases
from tests.busy import BUSY_S
from tests.integration.consumer.processes import running
from tests.integration.consumer.readers import SHARDS, nothing_pending, reading, relay

TAKE_OVER_S = 2.0

OWNERS = "SELECT shard, owner, token FROM shard_leases WHERE consumer_group = $1 ORDER BY shard"


async def owners(database, group: str = "projections") -> list[str | None]:
    """Who has which shard."""
    return [row["owner"] for row in await database.fetch(OWNERS, group)]


async def until_shared(database, members: int) -> list[str | None]:
    """Wait until every shard has an owner and so many processes have a fair share."""
    share = -(-SHARDS // members)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found = await owners(database)
        names = set(found)
        is_shared = found and None not in names and len(names) == members
        if is_shared and all(found.count(name) <= share for name in names):
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"not shared by {members}: {found}")


async def test_shards_are_shared_out_anew_when_processes_come_and_go(database, clients, group, monkeypatch):
    """Equal shares, without configuration; who leaves hands back at once."""
    for module in ("app.consumer.leases", "app.infra.postgres.leases"):
        monkeypatch.setattr(f"{module}.LEASE_S", 60.0)  # that none ends by itself
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(reading(database, clients, group))
        first = await until_shared(database, 1)
        second = AsyncExitStack()
        await second.enter_async_context(reading(database, clients, group))
        assert set(await until_shared(database, 2)) > set(first)
        await second.aclose()
        left = time.monotonic()
        await until_shared(database, 1)
        assert time.monotonic() - left < 1.5 + BUSY_S


async def test_an_owner_that_lost_its_shard_commits_nothing(database, orders, effect):
    """The token of the lease is looked at in the effect's transaction."""
    order = await orders.accept()
    one, two = (ShardLeases(database, name, ["projections"], SHARDS) for name in ("one", "two"))
    await one.beat()
    tokens = await one.take("projections", SHARDS)
    await two.beat()
    assert await two.take("projections", SHARDS) == {}, "its owner lives"
    async with asyncio.timeout(LEASE_S + BUSY_S):
        while not (taken := await two.take("projections", SHARDS)):
            await asyncio.sleep(0.05)
            await two.beat()
    assert taken.keys() == tokens.keys()
    assert all(taken[shard] > tokens[shard] for shard in tokens)
    with pytest.raises(LeaseLostError):
        await effect.apply([Delivery(order.id, 1)], tokens)
    assert await orders.behind() == 1
    await effect.apply([Delivery(order.id, 1)], taken)
    await orders.caught_up()


async def test_a_shard_that_is_being_written_is_not_taken(database, store, orders):
    """Whoever comes waits for the next moment, and does not stand in a line behind a transaction."""
    order = await orders.accept()
    one, two = (ShardLeases(database, name, ["projections"], SHARDS) for name in ("one", "two"))
    await one.beat()
    tokens = await one.take("projections", 1)
    await database.execute("UPDATE consumer_members SET expires_at = now()")
    await two.beat()
    async with store.effects("projections", [order.id], tokens):
        assert set(await two.take("projections", SHARDS)) == set(range(SHARDS)) - set(tokens)
    assert set(await two.take("projections", SHARDS)) == set(tokens)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_process_that_dies_or_stands_still_is_replaced_within_two_seconds(
    database_url, redis_url, orders, database, how
):
    """Exactly once all the same; one that comes back is fenced off, and gets a share again."""
    async with running(database_url, redis_url) as one, running(database_url, redis_url) as two:
        await one.until_live("/readyz")
        await two.until_live("/readyz")
        await until_shared(database, 2)
        placing = asyncio.create_task(orders.many(80, at_once=2, pause_s=0.02))
        await asyncio.sleep(0.7)  # in the middle of it
        one.process.send_signal(how)
        died = time.monotonic()
        await until_shared(database, 1)
        taken_s = time.monotonic() - died
        if how == signal.SIGSTOP:
            one.process.send_signal(signal.SIGCONT)
            await until_shared(database, 2)
        await placing
        await orders.all_caught_up()
        # What stands still in the middle of a transaction is given up by the server, two seconds later.
        assert taken_s < TAKE_OVER_S + (2.0 if how == signal.SIGSTOP else 0.0) + BUSY_S, taken_s


async def test_what_a_dead_owner_was_given_is_found_by_the_next(  # noqa: PLR0917
    database, database_url, clients, group, orders, streams, consumer, monkeypatch
):
    """All owners read under one name; the next begins with what is pending, and looks again."""
    monkeypatch.setattr("app.consumer.reader.BLOCK_S", 0.3)
    monkeypatch.setattr("app.consumer.reader.CLAIM_INTERVAL_S", 0.5)
    await consumer.create()
    async with reading(database, clients, group):
        await until_shared(database, 1)
        await orders.many(4)
        await relay(database_url, streams)
        await nothing_pending(clients)
        await orders.many(4)
        # An owner that lost its shards without knowing is given entries under the common name.
        reads = asyncio.create_task(consumer.read(range(SHARDS), count=1000, block_s=1))
        await relay(database_url, streams)
        await reads
        await nothing_pending(clients)
    await orders.caught_up()
