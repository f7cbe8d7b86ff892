"""Many listeners at a gateway of its own process: what they cost, and that a restart costs no event."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from app.dev.seed import seed
from app.dev.stack.ports import any_free
from tests.busy import BUSY_S
from tests.integration.gateway.live import Log, Stream, logging_to, opened
from tests.integration.gateway.process import GatewayProcess, running
from tests.integration.gateway.served import KEY

LAST = 12
ORDER = {
    "customer_id": "cust-1",
    "currency": "USD",
    "lines": [{"sku": "tea-earl-grey", "quantity": 1}],
    "payment_method": "pm_card_visa",
}


class Follower:
    """Follows an order as a browser does: comes again with the last id until there is nothing more."""

    def __init__(self, port: int, order_id: str):
        self.port = port
        self.path = f"/v1/orders/{order_id}/events"
        self.stream: Stream | None = None
        self.seen: list[int] = []
        self.opened = 0

    async def run(self) -> None:
        """Until the order's last event."""
        last_id = ""
        while not self.seen or self.seen[-1] < LAST:
            try:
                stream = self.stream = await opened(self.port, self.path, last_id=last_id)
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.05)
                continue
            self.opened += 1
            while stream.status == 200 and (event := await stream.event(60)) is not None:
                self.seen.append(event["sequence"])
            last_id = stream.last_id or last_id
            await stream.close()


@asynccontextmanager
async def placed(database_url: str, redis_url: str, gateway: GatewayProcess, count: int) -> AsyncIterator:
    """So many orders, and the log behind them."""
    connection = await asyncpg.connect(database_url)
    try:
        found = []
        for number in range(count):
            answer = await gateway.client.post(
                "/v1/orders", json=ORDER, headers={"Idempotency-Key": f"k-{number}"}
            )
            assert answer.status_code == 202, answer.text
            found.append(answer.json()["id"])
        async with logging_to(connection, redis_url) as log:
            yield found, log
    finally:
        await connection.close()


@asynccontextmanager
async def following(followers: list[Follower]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Everybody follows inside the block."""
    tasks = [asyncio.create_task(follower.run()) for follower in followers]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def all_at(followers: list[Follower], sequence: int) -> None:
    """Wait until everybody has that event."""
    async with asyncio.timeout(60):
        while not all(follower.seen and follower.seen[-1] >= sequence for follower in followers):
            await asyncio.sleep(0.02)


async def move(log: Log, orders: list[str], kind: str = "shipment.booked.v1") -> None:
    """One more event of every order."""
    for order_id in orders:
        await log.happen(order_id, kind)


@pytest.mark.parametrize(
    ("listeners", "memory_mb"),
    [pytest.param(60, 30), pytest.param(1_000, 100, marks=[pytest.mark.full, pytest.mark.timeout(300)])],
)
async def test_everybody_sees_every_event_once_and_in_order_across_a_restart(
    database_url: str, redis_url: str, tmp_path: Path, listeners: int, memory_mb: int
):
    """Events go on while the gateway is away; its end is quick; listeners are cheap."""
    await seed(database_url, KEY)
    port = any_free()
    async with (
        running(port, database_url, redis_url, tmp_path) as gateway,
        placed(database_url, redis_url, gateway, max(5, listeners // 20)) as (orders, log),
    ):
        before = gateway.resident_mb
        followers = [Follower(port, orders[number % len(orders)]) for number in range(listeners)]
        async with following(followers) as tasks:
            await all_at(followers, 1)
            for _ in range(4):
                await move(log, orders)
            await all_at(followers, 5)
            grown = gateway.resident_mb - before
            moving = asyncio.create_task(move(log, orders))
            told = time.monotonic()
            assert await gateway.stop() == 0
            stopped_s = time.monotonic() - told
            print(f"{listeners} listeners: {grown:.1f} MB more, stopped within {stopped_s:.2f} s")
            assert grown < memory_mb
            assert stopped_s < 5 + BUSY_S
            await moving
            await move(log, orders)
            async with running(port, database_url, redis_url, tmp_path):
                for _ in range(4):
                    await move(log, orders)
                await move(log, orders, "order.completed.v1")
                async with asyncio.timeout(60):
                    await asyncio.gather(*tasks)
        for follower in followers:
            assert follower.seen == list(range(1, LAST + 1))
            assert follower.opened >= 2


async def test_who_takes_nothing_does_not_hold_the_process(database_url: str, redis_url: str, tmp_path: Path):
    """SIGTERM ends its connection, too, long before SHUTDOWN_TIMEOUT_S."""
    await seed(database_url, KEY)
    async with (
        running(any_free(), database_url, redis_url, tmp_path, SHUTDOWN_TIMEOUT_S="30") as gateway,
        placed(database_url, redis_url, gateway, 1) as ((order_id,), log),
    ):
        path = f"/v1/orders/{order_id}/events"
        idle = await opened(gateway.port, path)
        stuck = await opened(gateway.port, path, limit=4096, window=4096)
        for _ in range(80):
            await log.write(order_id, "shipment.booked.v1", filler="x" * 100_000)
        await log.happen(order_id, "shipment.booked.v1")
        assert len(await idle.events(82)) == 82
        told = time.monotonic()
        assert await gateway.stop() == 0
        assert time.monotonic() - told < 5 + BUSY_S
        assert await idle.rest() == []
        assert len(await stuck.rest()) < 82
        await idle.close()
        await stuck.close()
        assert "gave_up" not in gateway.log.read_text("utf-8")
