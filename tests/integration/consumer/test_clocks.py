"""Clocks that jump, of consumer, PostgreSQL, Redis: nothing is lost, doubled, or waited for till they agree.

No clock is moved here: what a jump leaves behind is put where it would be.
"""

import asyncio
import time
from datetime import datetime, timedelta
from functools import partial

import pytest

from app.consumer import dead_letters, reconcile
from app.consumer.patience import for_ever
from app.contracts.streams import FIELD, stream
from app.infra.postgres.dead_letters import DeadLetters
from app.infra.postgres.leases import ShardLeases
from app.infra.postgres.workflow_jobs import WorkflowJob, WorkflowJobs, add
from app.infra.postgres.workflow_outbox import WorkflowOutbox
from app.infra.redis.stream_upkeep import StreamUpkeep
from tests.integration.consumer import readers
from tests.integration.consumer.readers import SHARDS, nothing_pending, reading

AN_HOUR = timedelta(hours=1)


@pytest.fixture
def relay(database_url, streams):
    """Publishes what waits."""
    return partial(readers.relay, database_url, streams)


class Ahead(datetime):
    """The clock of a host that is an hour ahead."""

    @classmethod
    def now(cls, tz=None):
        """The time, as it says."""
        return datetime.now(tz) + AN_HOUR


async def test_the_gap_job_of_a_host_whose_clock_is_ahead_leaves_nothing_out(
    orders, database, clients, group, monkeypatch
):
    """It goes by the clock by which orders are changed, not by its own."""
    for name, seconds in (("QUIET_S", 0.0), ("SETTLE_S", 0.0), ("INTERVAL_S", 0.1)):
        monkeypatch.setattr(reconcile, name, seconds)
    monkeypatch.setattr(reconcile, "datetime", Ahead)
    monkeypatch.setattr("app.consumer.reader.BLOCK_S", 0.2)
    async with reading(database, clients, group) as parts:
        await asyncio.wait_for(parts.reconciler._lost.wait(), 10)
        parts.reconciler._lost.clear()
        gap_job = asyncio.create_task(for_ever("gap", parts.reconciler.run))
        try:
            for _ in range(3):  # its first way goes through everything, those after it through what changed
                await orders.many(4)
                await database.execute("DELETE FROM event_outbox")
                await orders.caught_up(timeout_s=10)
        finally:
            gap_job.cancel()
            await asyncio.gather(gap_job, return_exceptions=True)


async def test_who_died_before_the_databases_clock_was_set_back_is_dead(database):
    """Its lease seems to last for an hour; nobody waits that long for its shards."""
    one, two = (ShardLeases(database, name, ["projections"], SHARDS) for name in ("one", "two"))
    await one.beat()
    await one.take("projections", SHARDS)
    await database.execute("UPDATE consumer_members SET expires_at = expires_at + interval '1 hour'")
    view = (await two.beat())["projections"]
    assert set(view.members) == {"two"}
    assert len(await two.take("projections", SHARDS)) == SHARDS


async def test_who_lives_keeps_its_shards_when_the_databases_clock_is_set_forward(database, clients, group):
    """Everybody seems dead for a moment: whoever says so first has all of them, and they are shared again."""
    async with reading(database, clients, group), reading(database, clients, group):
        for _ in range(3):
            await database.execute("UPDATE consumer_members SET expires_at = expires_at - interval '1 hour'")
            await asyncio.sleep(0.2)
        owners = (
            "SELECT owner, count(*) FROM shard_leases WHERE consumer_group = 'projections' GROUP BY owner"
        )
        async with asyncio.timeout(60):
            while sorted(row["count"] for row in await database.fetch(owners)) != [SHARDS // 2] * 2:
                await asyncio.sleep(0.05)


async def test_a_letter_is_tried_again_though_the_databases_clock_was_set_back(database, orders):
    """When it was due was reckoned by the clock of before."""
    letters = DeadLetters(database)
    order = await orders.accept()
    assert await letters.add("projections", order.id, dead_letters.failure_of(RuntimeError("no"), 1))
    assert await letters.due("projections", ("order.accepted.v1",), 10) == [], "it is not time yet"
    await database.execute("UPDATE dead_letters SET next_at = next_at + interval '1 hour'")
    assert len(await letters.due("projections", ("order.accepted.v1",), 10)) == 1
    assert await letters.due("projections", ("order.accepted.v1",), 10) == [], "it is claimed"


async def test_a_workflow_is_told_though_the_databases_clock_was_set_back(database, orders):
    """Whoever had claimed the call died, and its claim seems to last for an hour."""
    await orders.accept()
    async with database.transaction() as connection:
        await add(connection, [WorkflowJob("webhook", "webhook/1", {})])
    calls, jobs = WorkflowOutbox(database), WorkflowJobs(database, ["webhook"])
    for outbox, table in ((calls, "workflow_outbox"), (jobs, "workflow_jobs")):
        assert len(await outbox.claim(10, 15.0)) == 1
        assert await outbox.claim(10, 15.0) == [], "it is claimed"
        await database.execute(f"UPDATE {table} SET claimed_until = claimed_until + interval '1 hour'")
        assert len(await outbox.claim(10, 15.0)) == 1


async def test_entries_of_a_redis_whose_clock_was_ahead_are_read_and_trimmed(
    orders, database, clients, group, relay
):
    """Their ids are of tomorrow, and so are all behind them: they have no age, but an end."""
    tomorrow = int((time.time() + 86400) * 1000)
    for shard in range(SHARDS):
        await clients.hot.execute("XADD", stream("test", shard), f"{tomorrow}-0", FIELD, b"{}")
    await clients.hot.execute("CONFIG", "SET", "stream-node-max-entries", 1)
    upkeep = StreamUpkeep(clients, SHARDS, ("projections",))
    try:
        async with reading(database, clients, group):
            await orders.many(8)
            assert await relay()
            await nothing_pending(clients)
            await orders.caught_up()
        assert (await upkeep.lag("projections")).oldest_s == 0
        await upkeep.trim(keep_s=60)
        assert sum([await clients.hot.execute("XLEN", stream("test", n)) for n in range(SHARDS)]) <= SHARDS
        await orders.many(8)
        await relay()
        assert await upkeep.trim(keep_s=60) == 0, "nobody has acknowledged these"
        async with reading(database, clients, group):
            await nothing_pending(clients)
            await orders.caught_up()
    finally:
        await clients.hot.execute("CONFIG", "SET", "stream-node-max-entries", 100)
