"""Two hundred endpoints that are all dead and want every event: orders go on as if they were not there."""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from tests.acceptance.shop import Shop
from tests.acceptance.stack import Stack
from tests.integration.webhooks.receiver import Receiver, events_of

ENDPOINTS = 200
BACK = 2
"""So many come back; the others are switched off, which fails what waits for them."""
ORDERS = 100
AT_ONCE = 4
ORDER_S = 30.0
"""What a single order took, and more, when deliveries were begun whatever their endpoint was like."""
SERVERS_SHARE_MAX = 0.25
"""Of what Temporal's server uses meanwhile, what it uses once no order is under way any more."""
DRAIN_S = 600.0


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    """A stack of the test's own: what it is charged with is nobody else's."""
    stack = Stack(tmp_path / "data")
    await stack.up()
    try:
        yield stack
    finally:
        await stack.down()


class Clock:
    """Processor seconds that some processes have used since it was made, and those of the wall."""

    def __init__(self, status: dict) -> None:
        pids = {"temporal": [status["temporal"]["pid"]], "worker": status["worker"]["pids"]}
        self._processes = {name: [psutil.Process(pid) for pid in some] for name, some in pids.items()}
        self._at = self._used()
        self._began = time.monotonic()

    def _used(self) -> dict[str, float]:
        return {
            name: sum(sum(process.cpu_times()[:2]) for process in some)
            for name, some in self._processes.items()
        }

    def share(self) -> dict[str, float]:
        """Processor seconds a second."""
        seconds = time.monotonic() - self._began
        return {name: round((used - self._at[name]) / seconds, 3) for name, used in self._used().items()}


async def endpoints(database: asyncpg.Connection, url: str) -> None:
    """Endpoints that want everything; as many as four customers' could."""
    await database.execute(
        "INSERT INTO webhook_endpoints (id, url, description, event_types, secret) "
        "SELECT 'whe_dead' || n, $1, '', '{}', 'whsec_c2VjcmV0' FROM generate_series(1, $2) n",
        url,
        ENDPOINTS,
    )


async def complete(shop: Shop, number: int) -> float:
    """Place one order and wait until it is completed; how long that took, in seconds."""
    began = time.monotonic()
    answer = await shop.place(f"starving-{number}", "starving")
    assert answer.status_code == 202, answer.text
    async with asyncio.timeout(10 * ORDER_S):
        while (await shop.order(answer.json()["id"]))["status"] != "completed":
            await asyncio.sleep(0.1)
    return time.monotonic() - began


async def states(database: asyncpg.Connection) -> Counter[str]:
    """How many deliveries stand how."""
    rows = await database.fetch("SELECT state, waits, count(*) AS n FROM webhook_deliveries GROUP BY 1, 2")
    return Counter({f"{row['state']}{'/waits' if row['waits'] else ''}": row["n"] for row in rows})


@pytest.mark.full
@pytest.mark.timeout(1800)
async def test_orders_are_not_starved_by_dead_endpoints(stack: Stack, receiver: Receiver) -> None:
    """Each is completed in time, and Temporal is as idle after them; all is sent to who comes back."""
    status = await stack.until_ready()
    shop = Shop(status)
    database = await asyncpg.connect(status["postgres"]["dsn"])
    try:
        await receiver.down()
        await shop.stock("starving", 10 * ORDERS)
        await endpoints(database, receiver.url)
        clock = Clock(status)
        numbers = iter(range(ORDERS))

        async def one_by_one() -> list[float]:
            return [await complete(shop, number) for number in numbers]

        took = [s for some in await asyncio.gather(*(one_by_one() for _ in range(AT_ONCE))) for s in some]
        meanwhile = clock.share()
        clock = Clock(status)
        await asyncio.sleep(20)
        afterwards = clock.share()
        print(f"orders: median {statistics.median(took):.2f} s, longest {max(took):.2f} s; {meanwhile}")
        print(f"afterwards: {afterwards}; deliveries: {await states(database)}")
        assert max(took) < ORDER_S
        assert afterwards["temporal"] < SERVERS_SHARE_MAX

        await database.execute(
            "UPDATE webhook_endpoints SET is_enabled = false WHERE id <> ALL ($1)",
            [f"whe_dead{n}" for n in range(1, BACK + 1)],
        )
        await receiver.up()
        await database.execute("UPDATE webhook_breakers SET open_until = now() WHERE open_until IS NOT NULL")
        await database.execute("UPDATE webhook_deliveries SET next_at = least(next_at, now()) WHERE waits")
        began = time.monotonic()
        events = await database.fetchval("SELECT count(*) FROM events")
        async with asyncio.timeout(DRAIN_S):
            while (now := await states(database)).keys() - {"delivered", "failed"} or not now["delivered"]:
                await asyncio.sleep(0.5)
        print(f"then: {now} within {time.monotonic() - began:.0f} s")
        wanted = {
            row["id"] for row in await database.fetch("SELECT subject || ':' || sequence AS id FROM events")
        }
        came = Counter(events_of(receiver))
        assert len(wanted) == events
        assert all(came[event] >= BACK for event in wanted if event.startswith("ord_"))
        failed = await database.fetchval(
            "SELECT count(*) FROM webhook_deliveries d JOIN webhook_endpoints e ON e.id = d.endpoint_id "
            "WHERE e.is_enabled AND d.state <> 'delivered'"
        )
        assert failed == 0
    finally:
        await database.close()
        await shop.close()
