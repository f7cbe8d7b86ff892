"""Orders put in place in bulk are what the platform itself would have there."""

from datetime import UTC, datetime, timedelta

import pytest

from app.infra.postgres.pool import Connection, Database
from bench.history import ACCEPTED, CANCELLED, COMPLETED, REJECTED, Kind, put
from tests.integration.postgres.audit import audit
from tests.integration.postgres.past import verified

LINES = (("cup", 2, 700), ("spoon", 3, 50))


async def test_orders_in_bulk_are_whole(database: Database, database_url: str, other: Connection):
    """Rows, chains and books agree with one another, whatever way the orders went; nothing doubts them."""
    ways = (ACCEPTED, COMPLETED, CANCELLED, REJECTED)
    kinds = [Kind(LINES, way) for way in ways] * 5 + [Kind((("leaflet", 1, 0),))]
    now = datetime.now(UTC)
    ids = await put(database_url, kinds, until=now, marks=("projections",), outbox=True)
    await database.execute("INSERT INTO workflow_outbox (order_id, kind) SELECT id, 'start' FROM orders")
    await audit(database)
    verdict = await verified(other)
    assert (verdict.is_whole, verdict.subjects) == (True, len(ids)), verdict
    assert ids == sorted(ids)
    (row,) = await database.fetch("SELECT min(created_at), max(updated_at) FROM orders")
    assert now - timedelta(hours=21) < row["min"] < now - timedelta(hours=19) < row["max"] < now
    behind = await database.fetch(
        "SELECT FROM orders LEFT JOIN marks ON id = subject WHERE version <> sequence"
    )
    assert behind == []


@pytest.mark.full
async def test_fifty_thousand_orders_take_seconds(database_url: str, other: Connection):
    """So that tests and benchmarks can afford them."""
    began = datetime.now(UTC)
    await put(database_url, [Kind(LINES)] * 50_000, until=began)
    assert datetime.now(UTC) - began < timedelta(seconds=60)
    assert await other.fetchval("SELECT count(*) FROM events") == 50_000 * 11
