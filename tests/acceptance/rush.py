"""A crowd that wants one SKU: one order a request, over as many connections as there are clients.

Everybody sends the next order when the last one is answered. Every answer is kept and looked at: an order is
accepted, or the SKU is sold out and the problem says so; whoever is told to come again does, with the same
key.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx
import redis.asyncio
from redis.asyncio.client import Monitor

from bench import load
from tests.acceptance.shop import Shop

CLIENTS = 200
RUN_TIMEOUT_S = 80.0
BOUND_S = 10.0
_LOOK_S = 0.02


@dataclass(frozen=True)
class Rush:
    """What came of a crowd: the load generator's own result, and the answers by number of the request."""

    shop: Shop
    sku: str
    name: str
    result: load.Result

    @property
    def accepted(self) -> dict[str, load.Kept]:
        """Idempotency key → answer, of the orders that were accepted."""
        return {self.key(n): kept for n, kept in self.result.kept.items() if kept.status == 202}

    @property
    def statuses(self) -> dict[int, int]:
        """How often each status was answered."""
        return dict(sorted(self.result.statuses.items()))

    def key(self, number: int) -> str:
        """The Idempotency-Key of a request."""
        return f"{self.name}-{number}"

    def told(self) -> str:
        """The numbers, for people."""
        p50, p99, worst = self.result.latency_ms(0.5, 0.99, 1)
        return (
            f"{self.name}: {self.result.sent} orders, {self.statuses}, {self.result.rate:.0f}/s, "
            f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, worst {worst:.0f} ms"
        )


async def rush(
    shop: Shop, sku: str, name: str, orders: int, *, rate: float | None = None, at_once: bool = False
) -> Rush:
    """Send so many orders of one piece; open (`rate` a second) or, without a rate, one after another.

    `at_once` begins in this very process, in the next moment; else a process of its own is started first.
    """
    body = httpx.Request("POST", shop.url, json=shop.body(sku)).read()  # the bytes of whoever asks again
    headers = {"Authorization": f"Bearer {shop.status['api_key']}"}
    plan = load.Plan(
        port=httpx.URL(shop.url).port or 80,
        requests=[
            load.post("/v1/orders", body, headers | {"Idempotency-Key": f"{name}-{number}"})
            for number in range(orders)
        ],
        connections=CLIENTS,
        seconds=RUN_TIMEOUT_S if rate is None else (orders + 0.5) / rate,  # the last one is due, too
        rate=rate,
        repeat=False,
        bound_s=BOUND_S,
        keep=frozenset(range(orders)),
    )
    done = Rush(shop, sku, name, await (load.run(plan) if at_once else load.run_apart(plan)))
    print(done.told())
    await _look_at_all(done, orders)
    return done


async def _look_at_all(done: Rush, orders: int) -> None:
    """Hold every answer against the contract, and put accepted orders on the shop's list."""
    result = done.result
    assert (result.unanswered, result.lost) == (0, 0), "everybody is answered"
    assert result.sent == orders
    for number, kept in result.kept.items():
        if kept.status == 503:
            assert b"retry-after" in dict(kept.headers), kept.head
            again = await done.shop.place(done.key(number), done.sku)
            assert again.status_code in {202, 409}, again.text
            continue
        said = json.loads(kept.body)
        if kept.status == 202:
            done.shop.placed[said["id"]] = said
        else:
            _check_refusal(kept, said, done.sku)


def _check_refusal(kept: load.Kept, said: dict[str, Any], sku: str) -> None:
    assert kept.status == 409, kept
    assert dict(kept.headers)[b"content-type"].startswith(b"application/problem+json")
    assert said["type"] == "/problems/sold-out", said
    assert [fault["pointer"] for fault in said["errors"]] == ["/lines/0/sku"]
    assert sku in said["errors"][0]["detail"]


async def accepted_orders(shop: Shop) -> int:
    """How many orders of this shop PostgreSQL has, whatever became of them."""
    connection = await asyncpg.connect(shop.status["postgres"]["dsn"])
    try:
        return int(
            await connection.fetchval("SELECT count(*) FROM orders WHERE customer_id = $1", shop.customer)
        )
    finally:
        await connection.close()


async def until_accepted(shop: Shop, orders: int) -> None:
    """Wait until PostgreSQL has so many orders of this shop."""
    async with asyncio.timeout(RUN_TIMEOUT_S):
        while await accepted_orders(shop) < orders:
            await asyncio.sleep(_LOOK_S)


async def answered_orders(shop: Shop) -> int:
    """How many POST /v1/orders the gateway has answered since it began, by its metrics."""
    text = (await shop.http.get("/metrics")).text
    wanted = 'holdfast_http_requests_total{method="POST",route="/v1/orders",'
    return int(sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(wanted)))


async def until_answered(shop: Shop, orders: int) -> None:
    """Wait until the gateway has answered so many."""
    async with asyncio.timeout(RUN_TIMEOUT_S):
        while await answered_orders(shop) < orders:
            await asyncio.sleep(_LOOK_S)


@asynccontextmanager
async def overheard(url: str) -> AsyncIterator[Counter[tuple[str, str]]]:
    """What Redis is asked meanwhile: (name of the connection, command) → how often.

    What scripts do inside the server is no round trip and is left out. Whoever asks under no name is not of
    the platform.
    """
    heard: Counter[tuple[str, str]] = Counter()
    async with redis.asyncio.from_url(url) as client, client.monitor() as monitor:
        listening = asyncio.create_task(_listen(monitor, heard))
        try:
            yield heard
            assert not listening.done(), listening
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        names = {one["addr"]: one["name"] for one in await client.client_list()}
    for (address, command), calls in list(heard.items()):
        del heard[address, command]
        heard[names.get(address, ""), command] += calls


async def _listen(monitor: Monitor, heard: Counter[tuple[str, str]]) -> None:
    while True:
        one = await monitor.next_command()
        if one["client_type"] != "lua":
            heard[
                f"{one['client_address']}:{one['client_port']}", one["command"].split(" ", 1)[0].lower()
            ] += 1
