"""What waits in PostgreSQL is measured as it is, and by queries that stay quick."""

import pytest

from app.infra.postgres import backlog
from app.infra.postgres.backlog import OPEN, WAITING_ON, ages, open_orders
from app.infra.postgres.pool import Database
from app.observability import metrics

HOUR_S = 3600
OUTBOXES = {"events": "event_outbox", "workflows": "workflow_outbox", "jobs": "workflow_jobs"}


async def measured(database: Database, name: str) -> dict[str, float]:
    """The ages of one gauge, by its label."""
    return {r.labels[0]: r.value for r in await ages(database) if r.of.name == name}


async def plan(database: Database, statement: str, *arguments: object) -> str:
    """How PostgreSQL carries a statement out where tables are too large to be read as a whole."""
    async with database.transaction() as connection:
        await connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        rows = await connection.fetch(f"EXPLAIN {statement}", *arguments)
    return "\n".join(row[0] for row in rows)


async def test_where_nothing_waits_every_age_is_zero(database):
    """A zero was measured; who cannot measure serves nothing."""
    assert await measured(database, "holdfast_outbox_age_seconds") == dict.fromkeys(OUTBOXES, 0)
    assert await measured(database, "holdfast_oldest_open_order_seconds") == dict.fromkeys(OPEN, 0)


async def test_the_oldest_order_of_each_open_status_is_measured(database, orders):
    """Not the youngest, not the final ones, and each status by itself."""
    old = await orders.accept()
    await orders.accept()
    confirmed = await orders.confirm(await orders.accept())
    await orders.complete(await orders.accept())
    await database.execute(
        "UPDATE orders SET created_at = created_at - interval '1 hour' WHERE id = $1", old.id
    )
    await database.execute(
        "UPDATE orders SET created_at = created_at - interval '2 hours' WHERE id = $1", confirmed.id
    )
    found = await measured(database, "holdfast_oldest_open_order_seconds")
    assert HOUR_S <= found["accepted"] < 2 * HOUR_S
    assert found["confirmed"] >= 2 * HOUR_S
    assert found["dispatched"] == 0


@pytest.mark.parametrize(("outbox", "table"), OUTBOXES.items())
async def test_the_oldest_row_of_each_outbox_is_measured(database, orders, outbox, table):
    """An order makes two of them, a webhook the third."""
    await orders.accept()
    await database.execute(
        "INSERT INTO workflow_jobs (kind, workflow_id, argument) VALUES ('some', 'some/1', '{}')"
    )
    await database.execute(f"UPDATE {table} SET created_at = created_at - interval '1 hour'")
    found = await measured(database, "holdfast_outbox_age_seconds")
    assert [name for name, age_s in found.items() if age_s >= HOUR_S] == [outbox]


async def test_open_orders_are_counted_and_what_they_wait_for(database, orders):
    """Final ones are not; those that wait for nothing are only counted."""
    for _ in range(3):
        await orders.accept()
    await orders.complete(await orders.accept())
    await database.execute(
        "UPDATE orders SET waiting_on = 'operator' WHERE id = (SELECT id FROM orders ORDER BY id LIMIT 1)"
    )
    found = {(r.of.name, *r.labels): r.value for r in await open_orders(database)}
    waiting = dict.fromkeys(WAITING_ON, 0) | {"operator": 1}
    assert found == {("holdfast_open_orders",): 3} | {
        ("holdfast_orders_waiting", on): count for on, count in waiting.items()
    }


async def test_no_more_open_orders_are_counted_than_there_is_time_for(database, orders, monkeypatch):
    """A count that costs more the worse things are would make them worse."""
    monkeypatch.setattr(backlog, "COUNTED_MAX", 2)
    for _ in range(3):
        await orders.accept()
    assert next(r.value for r in await open_orders(database) if r.of is metrics.OPEN_ORDERS) == 2


async def test_ages_are_the_first_rows_of_indexes(database):
    """Also of a status that no order has: nothing is sorted, and no order of another status is read."""
    found = await plan(database, backlog.SQL["ages"], OPEN)
    assert "Index Scan Backward using orders_by_status" in found
    assert "Sort" not in found
    assert "Filter" not in found


async def test_open_orders_are_found_by_their_index(database):
    """Of millions of orders few are open."""
    found = await plan(database, backlog.SQL["open_orders"], 10)
    assert "using orders_open" in found
