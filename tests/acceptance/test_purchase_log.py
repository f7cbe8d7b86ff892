"""A real purchase log, imported while Redis is killed: every projection adds up to the file, to the cent."""

import asyncio
import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from app.dev.importing.purchases import Purchase, read
from tests.acceptance.shop import Shop
from tests.acceptance.stack import Stack
from tests.integration.consumer import orders as sums

OF_THE_LOG = "SELECT count(*) FROM orders WHERE customer_id LIKE 'cdnow-%'"
LEDGER = """
SELECT sum(e.credit - e.debit)::bigint FROM ledger_entries e JOIN orders o ON o.id = e.order_id
WHERE e.account = 'revenue' AND o.customer_id LIKE 'cdnow-%'
"""
CUSTOMERS = """
SELECT customer_id, accepted, completed, rejected, cancelled, items, captured, refunded
FROM customer_summary WHERE customer_id LIKE 'cdnow-%'
"""
PROJECTIONS = {
    "SELECT * FROM daily_summary ORDER BY day, currency": sums.EXPECTED,
    "SELECT * FROM customer_summary ORDER BY customer_id, currency": sums.EXPECTED_CUSTOMERS,
    "SELECT * FROM analytics_minutes ORDER BY 1, 2, 3": sums.EXPECTED_MINUTES,
}
"""What there is → what there should be, counted straight from the log of record."""


@pytest.mark.timeout(300)
async def test_a_purchase_log_adds_up_while_redis_is_killed_twice(
    stack: Stack, shop: Shop, repository: Path
) -> None:
    """A hundred purchases, all groups at work."""
    await imported(stack, shop, repository / "samples" / "cdnow_1000.txt", 100)


@pytest.mark.full
@pytest.mark.timeout(1200)
async def test_a_long_purchase_log_adds_up_while_redis_is_killed_twice(
    stack: Stack, shop: Shop, repository: Path
) -> None:
    """The whole sample, or what HOLDFAST_TEST_PURCHASES names."""
    given = os.environ.get("HOLDFAST_TEST_PURCHASES", repository / "samples" / "cdnow_1000.txt")
    await imported(stack, shop, Path(given), None)


async def imported(stack: Stack, shop: Shop, file: Path, limit: int | None) -> None:
    """Import the log with two kills on the way, and hold everything that was counted against it."""
    purchases, status = read(file, limit), shop.status
    connection = await asyncpg.connect(shop.status["postgres"]["dsn"])
    try:
        before = Counter(await customers(connection))
        there = await connection.fetchval(OF_THE_LOG)
        ledger = await connection.fetchval(LEDGER) or 0
        command = ("import", str(file), "--json", *(("--limit", str(limit)) if limit else ()))
        importing = asyncio.create_task(stack.command(*command, timeout_s=1000))
        for part in (1, 2):
            while await connection.fetchval(OF_THE_LOG) < there + part * len(purchases) // 3:
                assert not importing.done(), importing.result()
                await asyncio.sleep(0.05)
            assert not importing.done(), "the kill comes in the middle"
            os.kill(status["redis"]["pid"], signal.SIGKILL)
            status = await stack.until_ready()
        code, said = await importing
        assert code == 0, said
        audit = json.loads(said[said.index("{") :])
        assert audit["ok"], audit
        await caught_up(connection)
        for is_there, should_be in PROJECTIONS.items():
            assert await rows(connection, is_there) == await rows(connection, should_be)
        assert await connection.fetchval(LEDGER) - ledger == audit["money"]["file"]
        found = Counter(await customers(connection))
        found.subtract(before)
        assert +found == +of_the_file(purchases)
        await seen_by_customers(shop.http, purchases[0].customer)
    finally:
        await connection.close()


def of_the_file(purchases: list[Purchase]) -> Counter[tuple[str, str]]:
    """What the file says of each customer."""
    found: Counter[tuple[str, str]] = Counter()
    for purchase in purchases:
        found[purchase.customer, "accepted"] += 1
        found[purchase.customer, "completed"] += 1
        found[purchase.customer, "items"] += purchase.pieces
        found[purchase.customer, "captured"] += purchase.cents
    return found


async def customers(connection: asyncpg.Connection) -> dict[tuple[str, str], int]:
    """What was counted of each customer."""
    return {
        (row["customer_id"], name): value
        for row in await connection.fetch(CUSTOMERS)
        for name, value in row.items()
        if name != "customer_id"
    }


async def seen_by_customers(http: httpx.AsyncClient, customer: str) -> None:
    """The summary over HTTP is what the customer's orders come to."""
    summary = (await http.get(f"/v1/customers/{customer}/summary")).json()
    answer = await http.get("/v1/orders", params={"customer_id": customer, "limit": "200"})
    captured = sum(order["payment"]["captured"]["amount"] for order in answer.json()["items"])
    assert [of["captured"]["amount"] for of in summary["currencies"]] == [captured]
    minutes = await http.get("/v1/analytics/minutely", params={"limit": "200"})
    assert sum(minute["completed"] for minute in minutes.json()["items"])


async def caught_up(connection: asyncpg.Connection) -> None:
    """Wait until every event there is has had its effect in every group."""
    async with asyncio.timeout(90):
        while await connection.fetchval(sums.BEHIND_IN_ANY, sums.GROUPS):
            await asyncio.sleep(0.1)


async def rows(connection: asyncpg.Connection, statement: str) -> list[dict[str, Any]]:
    """What a statement gives."""
    return [dict(row) for row in await connection.fetch(statement)]
