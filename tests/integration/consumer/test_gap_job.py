"""What no stream told of is found by comparing store and marks: orders, prices, stock, in every group."""

import asyncio

import pytest

from app.consumer import reconcile
from app.consumer.dispatch import groups
from app.consumer.patience import for_ever
from app.consumer.projections import write_documents
from app.domain.money import Money
from app.infra.postgres.catalogue import Cause
from app.infra.redis.documents import Documents
from tests.integration.consumer.orders import GROUPS, SKU
from tests.integration.consumer.readers import reading, relay


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Nothing is left to the streams."""
    monkeypatch.setattr(reconcile, "QUIET_S", 0.0)
    monkeypatch.setattr(reconcile, "SETTLE_S", 0.0)
    monkeypatch.setattr(reconcile, "INTERVAL_S", 0.2)
    monkeypatch.setattr("app.consumer.reader.BLOCK_S", 0.2)


@pytest.mark.parametrize("number", range(len(GROUPS)))
async def test_events_that_never_reached_a_stream_have_their_effect(
    orders, database, clients, streams, database_url, number
):
    """Also those that were told once and forgotten by a flushed Redis, and those of SKUs."""
    group = groups(write_documents(Documents(clients, "test")))[number]
    await orders.many(8)
    await relay(database_url, streams)
    await clients.writes.flushall()
    async with reading(database, clients, group) as parts:
        task = asyncio.create_task(for_ever("gap", parts.reconciler.run))
        try:
            await caught_up(database, group.name)
            await orders.catalogue.put(SKU, "A disc", Money(1500, "USD"), Cause("corr"))
            await orders.many(4)
            await database.execute("DELETE FROM event_outbox")
            await caught_up(database, group.name)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def caught_up(database, group: str) -> None:
    """Wait until the group has seen every event there is."""
    statement = """SELECT count(*) FROM events e LEFT JOIN marks m ON m.subject = e.subject
        AND m.consumer_group = $1 WHERE e.sequence > coalesce(m.sequence, 0)"""
    async with asyncio.timeout(60):
        while (await database.fetch(statement, group))[0]["count"]:
            await asyncio.sleep(0.02)
