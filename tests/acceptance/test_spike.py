"""Ten times as many orders as a gateway can take, then as many as before: what it takes, and what it says.

PostgreSQL is far away here (each question takes a tenth of a second to reach it), so that the room for
requests is what bounds the gateway and not the processor that it shares with whoever sends the load.
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from app.dev.seed import seed
from app.dev.stack.ports import any_free
from bench.load import Kept, Plan, post
from tests.acceptance.crowd import Came, crowd
from tests.integration.gateway.process import GatewayProcess, running
from tests.integration.gateway.served import KEY
from tests.proxy import FaultProxy

FAR_S = 0.1  # one way
REFUSED_MS = 20
SKU = "spiked"
POOL = 3


class Spiked:
    """A gateway with little room, its database, and everything it was asked."""

    def __init__(
        self, gateway: GatewayProcess, far: FaultProxy, database: asyncpg.Connection, room: int
    ) -> None:
        self.gateway = gateway
        self.far = far
        self.database = database
        self.room = room
        self.accepted: dict[str, bytes] = {}
        """Idempotency key → body of the 202."""

    def order(self, key: str) -> bytes:
        """A whole request; the same for the same key."""
        body = {
            "customer_id": "spike",
            "currency": "USD",
            "lines": [{"sku": SKU, "quantity": 1}],
            "payment_method": "pm_card_visa",
        }
        headers = {"Authorization": f"Bearer {KEY}", "Idempotency-Key": key}
        return post("/v1/orders", json.dumps(body).encode(), headers)

    async def send(
        self, keys: list[str], *, connections: int, rate: float | None, seconds: float = 60.0
    ) -> Came:
        """Order under these keys, at this rate or (None) one after the other on each connection."""
        plan = Plan(
            port=self.gateway.port,
            requests=[self.order(key) for key in keys],
            connections=connections,
            seconds=(len(keys) + 0.5) / rate if rate else seconds,
            rate=rate,
            repeat=False,
            bound_s=30,
            keep=frozenset(range(len(keys))),
        )
        came = await crowd(plan)
        assert came.lost == 0
        assert set(came.ms) <= {202, 503}, {number: kept.body for number, kept in came.kept.items()}
        for number in came.numbers(202):
            key, body = keys[number], came.kept[number].body
            assert self.accepted.setdefault(key, body) == body, "a key has one answer"
        for number in came.numbers(503):
            check_refusal(came.kept[number])
        return came

    async def until_all_are_taken(self, keys: list[str]) -> None:
        """Order again whatever was refused, with the same keys, as often as it needs; nothing is far now."""
        self.far.heal()
        while keys:
            came = await self.send(keys, connections=self.room // 2, rate=None)
            keys = [keys[number] for number in came.numbers(503)]

    async def orders(self) -> int:
        """How many PostgreSQL has."""
        return int(await self.database.fetchval("SELECT count(*) FROM orders WHERE customer_id = 'spike'"))

    async def connections(self) -> int:
        """How many the gateway has to PostgreSQL."""
        return int(
            await self.database.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'holdfast-gateway'"
                " AND datname = current_database()"
            )
        )


def check_refusal(kept: Kept) -> None:
    """A whole problem that says when to come again."""
    headers = dict(kept.headers)
    assert headers[b"content-type"] == b"application/problem+json", kept
    assert int(headers[b"retry-after"]) >= 1
    assert headers[b"x-request-id"]
    # A machine that is busy with other tests may be too slow even for what was let in.
    assert json.loads(kept.body)["type"] in {"/problems/overloaded", "/problems/unavailable"}


@asynccontextmanager
async def spiked(database_url: str, redis_url: str, folder: Path, *, room: int) -> AsyncIterator[Spiked]:
    """A gateway far from its database, with this room."""
    await seed(database_url, KEY)
    async with FaultProxy(database_url, seed=1) as far:
        settings = {"REQUESTS_MAX": str(room), "DATABASE_POOL_SIZE": str(POOL), "LOG_FORMAT": "json"}
        async with running(any_free(), far.url, redis_url, folder, **settings) as gateway:
            database = await asyncpg.connect(database_url)
            try:
                product = {"sku": SKU, "name": SKU, "price": {"amount": 100, "currency": "USD"}}
                assert (await gateway.client.put(f"/v1/products/{SKU}", json=product)).is_success
                stock = {"warehouse": "east", "delta": 1_000_000, "reason": "received"}
                path = f"/v1/inventory/{SKU}/adjustments"
                answer = await gateway.client.post(path, json=stock, headers={"Idempotency-Key": "stock"})
                assert answer.is_success, answer.text
                one = Spiked(gateway, far, database, room)
                await one.until_all_are_taken([f"warm-{n}" for n in range(100)])  # the pool is open
                far.to_server.delay_s = FAR_S
                yield one
            finally:
                await database.close()


async def test_what_a_spike_is_refused_is_taken_when_it_comes_again(
    database_url: str, redis_url: str, tmp_path: Path
):
    """Whole problems at once, no connection too many; each key becomes one order in the end."""
    async with spiked(database_url, redis_url, tmp_path, room=32) as one:
        keys = [f"k-{number}" for number in range(300)]
        came = await one.send(keys, connections=100, rate=1_000)
        refused = [keys[number] for number in came.numbers(503)]
        assert refused, "there was no room for all of them"
        assert await one.orders() >= len(one.accepted) >= len(keys) - len(refused)
        assert await one.connections() <= POOL
        await one.until_all_are_taken(refused)
        assert await one.orders() == len(one.accepted)
        assert set(keys) <= set(one.accepted)
        told = [json.loads(line) for line in one.gateway.log.read_text("utf-8").splitlines()]
        assert sum(line.get("refused", 0) for line in told if line["event"] == "overloaded") <= len(refused)
        assert sum(line["event"] == "request" and line["status"] == 503 for line in told) == 0


@pytest.mark.full
@pytest.mark.timeout(300)
async def test_ten_times_as_much_takes_nothing_from_what_is_taken(
    database_url: str, redis_url: str, tmp_path: Path
):
    """Goodput stays, refusals are quick, memory comes back, and afterwards it is as before."""
    async with spiked(database_url, redis_url, tmp_path, room=64) as one:
        at_once = one.room * 3 // 4  # as many as are let in
        in_step = await one.send(
            [f"in-step-{n}" for n in range(100_000)], connections=at_once, rate=None, seconds=3
        )
        # So many callers fall into step with the batches that they wait for. Others do not: the plateau is
        # what comes of twice as many orders.
        rate = 2 * in_step.in_time[202] / in_step.seconds
        plateau = await one.send([f"plateau-{n}" for n in range(int(rate * 6))], connections=384, rate=rate)
        capacity = plateau.in_time[202] / plateau.seconds
        before_mb = one.gateway.resident_mb

        keys = [f"spike-{n}" for n in range(int(10 * capacity * 6))]
        spike = await one.send(keys, connections=384, rate=10 * capacity)
        goodput = spike.in_time[202] / spike.seconds
        back = await one.send(
            [f"back-{n}" for n in range(int(capacity * 3))], connections=384, rate=0.5 * capacity
        )
        print(
            f"in step {rate / 2:.0f}/s, plateau {capacity:.0f}/s, "
            f"in the spike {goodput:.0f}/s ({goodput / capacity:.0%}); "
            f"refused {len(spike.ms[503])}: p50 {spike.quantile_ms(503, 0.5):.1f} ms, "
            f"p95 {spike.quantile_ms(503, 0.95):.1f} ms, p99 {spike.quantile_ms(503, 0.99):.1f} ms "
            f"(this machine wakes late by p50 {spike.late_ms(0.5):.1f}, p95 {spike.late_ms(0.95):.1f} ms); "
            f"taken p50 {spike.quantile_ms(202, 0.5):.0f} ms; "
            f"memory {before_mb:.0f} → {one.gateway.resident_mb:.0f} MB"
        )
        assert goodput >= 0.95 * capacity
        # A refusal wakes four threads of two processes one after the other; how late, is the machine's doing.
        assert spike.quantile_ms(503, 0.5) <= REFUSED_MS + 4 * spike.late_ms(0.5)
        assert spike.quantile_ms(503, 0.95) <= REFUSED_MS + 4 * spike.late_ms(0.95)
        # But for moments in which this machine stood still, and sent at once what was due meanwhile.
        assert len(back.ms.get(503, [])) <= 0.05 * len(back.kept), "there is room again"
        assert await one.connections() <= POOL
        assert one.gateway.resident_mb <= before_mb + 32
        refused = [keys[number] for number in spike.numbers(503)]
        await one.until_all_are_taken(refused[:300])
        assert await one.orders() == len(one.accepted)
        assert "too many" not in one.gateway.log.read_text("utf-8")
        assert await one.gateway.stop() == os.EX_OK
