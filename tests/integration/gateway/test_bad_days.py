"""PostgreSQL dead or frozen, Redis dead or flushed, too many requests: answers stay quick and honest."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from app.dev.servers import EmbeddedPostgres
from app.domain.errors import Unavailable
from app.gateway import auth, cached_orders
from app.gateway.edge import Edge
from app.infra.postgres.migrate import migrate
from app.observability.access_log import AccessLog
from tests.busy import BUSY_S
from tests.integration.gateway.lifecycle import confirm
from tests.integration.gateway.served import NOBODY, Gateway, problem, serving
from tests.patience import hasty


@pytest.fixture
async def postgres(tmp_path_factory) -> AsyncIterator[EmbeddedPostgres]:
    """A PostgreSQL that the test may kill."""
    # Durable: the fast mode may lose its last commits, the migrations too, when it is killed.
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), follow=signal.SIGQUIT)
    await server.start()
    await migrate(server.dsn)
    yield server
    await server.stop()


@pytest.fixture
def production(patience: None) -> Iterator[None]:
    """What production waits for, and no longer."""
    with hasty():
        yield


async def until_ready(gateway: Gateway) -> None:
    """Wait until readiness says so."""
    async with asyncio.timeout(60):
        while (await gateway.client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.05)


async def test_with_postgres_dead_posts_fail_at_once_and_cached_reads_go_on(
    postgres: EmbeddedPostgres, redis_url: str, monkeypatch
):
    """503 with Retry-After within moments; after the restart the same key places the order once."""
    monkeypatch.setattr(auth, "FRESH_S", 0.1)
    async with serving(postgres.dsn, redis_url) as gateway:
        order = await gateway.place()
        await gateway.post(f"/v1/orders/{order['id']}/cancel", {})
        await finish(gateway, order["id"])
        path = f"/v1/orders/{order['id']}"
        assert (await gateway.client.get(path)).json()["status"] == "cancelled"
        await gateway.database.close()
        await postgres.kill()
        await asyncio.sleep(0.2)  # longer than keys are fresh
        started = time.monotonic()
        refused = await gateway.post("/v1/orders", gateway.order(), idempotency="k")
        assert time.monotonic() - started < 2 + BUSY_S
        problem(refused, 503, "unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        for _ in range(50):
            assert (await gateway.client.get(path)).json()["status"] == "cancelled"
        problem(await gateway.client.get("/v1/products"), 503, "unavailable")
        assert (await gateway.client.get("/livez")).status_code == 200
        assert (await gateway.client.get("/startupz")).status_code == 200
        ready = await gateway.client.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]["postgres"]) == (503, "failing")
        await postgres.start()
        await until_ready(gateway)
        assert (await gateway.post("/v1/orders", gateway.order(), idempotency="k")).status_code == 202


async def finish(gateway: Gateway, order_id: str) -> None:
    """Close a cancelled order that holds nothing, and show it."""
    from app.domain.commands import CloseOrder, RecordVoid
    from app.domain.errors import Refusal

    orders = gateway.services.orders
    order = await orders.record(order_id, CloseOrder())
    if isinstance(order, Refusal):
        await orders.record(order_id, RecordVoid())
        order = await orders.record(order_id, CloseOrder())
    assert not isinstance(order, Refusal), order
    await gateway.services.cached.show(order)


@pytest.mark.usefixtures("production")
async def test_with_postgres_frozen_answers_come_in_time(
    postgres: EmbeddedPostgres, redis_url: str, monkeypatch
):
    """A server that takes connections and never answers costs three seconds, not the caller's patience."""
    async with serving(postgres.dsn, redis_url, DATABASE_POOL_SIZE="3") as gateway:
        await gateway.place()
        frozen = [postgres.pid, *children(postgres.pid)]
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            started = time.monotonic()
            answers = await asyncio.gather(
                *(gateway.post("/v1/orders", gateway.order(), idempotency=f"f-{n}") for n in range(20))
            )
            assert time.monotonic() - started < 8  # a statement's own timeout is ten
            for answer in answers:
                problem(answer, 503, "unavailable")
            assert (await gateway.client.get("/livez")).status_code == 200
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
        await until_ready(gateway)
        async with asyncio.timeout(60):
            for n in range(20):
                while (
                    answer := await gateway.post("/v1/orders", gateway.order(), idempotency=f"f-{n}")
                ).status_code == 503:
                    await asyncio.sleep(0.05)
                assert answer.status_code == 202
        assert await gateway.database.fetchval("SELECT count(*) FROM orders") == 21


def children(pid: int | None) -> list[int]:
    """The processes that a process has started."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")
    return [int(child) for child in found.split()]


async def test_without_redis_everything_works(database_url: str):
    """Dead Redis costs no answer, and next to no time."""
    async with serving(database_url, NOBODY) as gateway:
        order = await gateway.place()
        started = time.monotonic()
        for _ in range(50):
            answer = await gateway.client.get(f"/v1/orders/{order['id']}")
            assert answer.json() == order
        assert time.monotonic() - started < 5 + BUSY_S
        placing = asyncio.create_task(
            gateway.post("/v1/orders", gateway.order(customer_id="w"), headers={"Prefer": "wait=10"})
        )
        statement = "SELECT id FROM orders WHERE customer_id = 'w'"
        while not (identity := await gateway.database.fetchval(statement)):
            await asyncio.sleep(0.01)
        await confirm(gateway, identity)
        assert (await placing).status_code == 200


async def test_a_flushed_redis_is_filled_again(gateway: Gateway, redis_server):
    """What is not there is read from PostgreSQL and written back."""
    import redis.asyncio

    order = await gateway.place()
    path = f"/v1/orders/{order['id']}"
    async with redis.asyncio.from_url(redis_server.url) as client:
        await client.flushall()
        assert (await gateway.client.get(path)).json() == order
        async with asyncio.timeout(60):
            while not await client.keys(f"hf:test:*{order['id']}*"):
                await asyncio.sleep(0.01)


async def test_reads_of_one_order_at_once_ask_once(database_url: str, monkeypatch):
    """One flight per key, also where nothing is cached."""
    async with serving(database_url, NOBODY) as gateway:
        order = await gateway.place()
        loads = []
        load = gateway.services.orders.load

        async def counted(order_id: str):
            loads.append(order_id)
            await asyncio.sleep(0.2)
            return await load(order_id)

        monkeypatch.setattr(gateway.services.cached._orders, "load", counted)
        answers = await asyncio.gather(*(gateway.client.get(f"/v1/orders/{order['id']}") for _ in range(30)))
        assert {answer.json()["id"] for answer in answers} == {order["id"]}
        assert len(loads) < 5


async def test_a_few_reads_go_round_the_cache(gateway: Gateway, monkeypatch):
    """The way to PostgreSQL is taken all the time; with the share at one, every read takes it."""
    order = await gateway.place()
    path = f"/v1/orders/{order['id']}"
    await gateway.client.get(path)
    monkeypatch.setattr(cached_orders, "ROUND_THE_CACHE", 1.0)
    await gateway.database.execute("UPDATE orders SET waiting_on = 'payments'")
    assert (await gateway.client.get(path)).json()["waiting_on"] == "payments"


async def test_too_many_requests_are_refused_within_milliseconds(gateway: Gateway):
    """503 with Retry-After instead of a queue; probes are answered nevertheless."""
    from litestar import Litestar, get

    held = asyncio.Event()

    @get("/held")
    async def hold() -> str:
        await held.wait()
        return "done"

    @get("/livez")
    async def live() -> str:
        return "ok"

    edge = Edge(Litestar([hold, live], openapi_config=None), AccessLog(), requests_max=6)
    transport = httpx.ASGITransport(edge)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        holding = [asyncio.create_task(client.get("/held")) for _ in range(3)]
        while edge._in_flight < 3:
            await asyncio.sleep(0.01)
        started = time.monotonic()
        refused = await client.get("/held")
        assert time.monotonic() - started < 0.5 + BUSY_S
        problem(refused, 503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await client.get("/livez")).status_code == 200
        held.set()
        assert [(await one).status_code for one in holding] == [200] * 3
        assert (await client.get("/held")).status_code == 200


@pytest.mark.usefixtures("production")
async def test_a_full_pool_is_waited_for_at_most_two_seconds(database_url: str, redis_url: str):
    """With every connection taken, the answer is 503, in time."""
    async with serving(database_url, redis_url, DATABASE_POOL_SIZE="1") as gateway:
        await gateway.place()
        async with gateway.services.intake._database.connection():
            started = time.monotonic()
            refused = await gateway.post("/v1/orders", gateway.order())
            assert time.monotonic() - started < 4 + BUSY_S
            problem(refused, 503, "unavailable")
            with pytest.raises(Unavailable):
                await gateway.services.lists.customer("ord_x")
        assert (await gateway.post("/v1/orders", gateway.order())).status_code == 202
