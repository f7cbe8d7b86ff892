"""The customers' summaries: right to the cent, also for orders from before there were any."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from app.consumer.effect import Effect
from app.infra.postgres import migrate as module
from app.infra.postgres.pool import Database
from app.infra.postgres.projections import PostgresProjections
from app.projections.customers import add_to_customers
from tests.integration.consumer.orders import Orders
from tests.integration.consumer.test_effect import deliveries, log_of_record

MIGRATION = "0013_customer_summary.sql"


@pytest.fixture
async def older(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Orders]:
    """Orders in a database that has no such summary yet; `undo` lets it be migrated."""
    everything = module.migrations()
    with monkeypatch.context() as patched:
        patched.setattr(module, "migrations", lambda: [one for one in everything if one[1] != MIGRATION])
        await module.migrate(empty_database_url)
    database = await Database(empty_database_url, size=10, name="test").open()
    orders = Orders(database)
    await orders.stock()
    yield orders
    await database.close()


@pytest.fixture
def older_effect(older: Orders, group) -> Effect:
    """The group as it was before."""
    table = {
        kind: tuple(handler for handler in handlers if handler is not add_to_customers)
        for kind, handlers in group.handlers.items()
    }
    store = PostgresProjections(older.database, "/holdfast/test")
    return Effect(msgspec.structs.replace(group, handlers=table), store)


async def test_orders_of_before_are_counted_once(older, older_effect, group, empty_database_url):
    """What the group had seen is counted by the migration, what it had not by the group: every cent once."""
    await older.many(24)
    events = await log_of_record(empty_database_url)
    seen = events[::2]  # whatever order it saw them in, and of some orders not all
    await older_effect.apply(deliveries(seen[: len(seen) // 2]))
    assert await module.migrate(empty_database_url) == [MIGRATION]
    assert any(row["captured"] for row in await older.customers())
    await older.many(8)
    effect = Effect(group, PostgresProjections(older.database, "/holdfast/test"))
    await effect.apply(deliveries(await log_of_record(empty_database_url)))
    await older.caught_up()


async def test_the_migration_waits_for_what_is_being_counted(older, older_effect, empty_database_url):
    """A transaction of the group that is under way is seen as a whole, or not at all."""
    order = await older.complete(await older.accept())
    await older_effect.apply(deliveries(await log_of_record(empty_database_url)))
    late = await older.accept()
    store = PostgresProjections(older.database, "/holdfast/test")
    async with store.effects("projections", [late.id], {}) as effects:
        migrating = asyncio.create_task(module.migrate(empty_database_url))
        waits = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%marks%'"
        )
        async with asyncio.timeout(60):
            while not (await older.database.fetch(waits))[0]["count"]:
                await asyncio.sleep(0.01)
        await effects.set_marks({late.id: 1})
    assert await migrating == [MIGRATION]
    assert sum(row["accepted"] for row in await older.customers()) == 2
    assert await older.customers() == await older.expected_customers()
    assert order.total == sum(row["captured"] for row in await older.customers())


async def test_first_and_last_are_those_of_the_orders_whatever_came_first(orders, effect, database_url):
    """Counting an older order later changes the first time, not the last."""
    await orders.many(12)
    events = await log_of_record(database_url)
    for event in reversed(events):
        await effect.apply(deliveries([event]))
    await orders.caught_up()
