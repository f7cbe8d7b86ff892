"""Following an order: each of its events once and in order, whatever is published, doubled, late or lost."""

import asyncio
import json
import random
from collections.abc import AsyncIterator

import pytest

from app.gateway import auth, live_listener, live_orders
from app.gateway import live as live_module
from app.observability import metrics
from tests.integration.gateway.live import Log, listening_to, logging_to, opened
from tests.integration.gateway.served import NOBODY, Gateway, problem, serving

STEPS = ["inventory.reserved.v1", "payment.authorized.v1", "shipment.booked.v1", "order.confirmed.v1"]


@pytest.fixture
async def log(gateway: Gateway, redis_url: str) -> AsyncIterator[Log]:
    """The log of that gateway."""
    async with logging_to(gateway.database, redis_url) as log:
        yield log


def path(order: dict) -> str:
    """The events of an order."""
    return f"/v1/orders/{order['id']}/events"


async def settle(log: Log, order: dict, status: str = "completed") -> None:
    """Make an order final, as the transaction of its last event does."""
    await log.database.execute(
        "UPDATE orders SET status = $2, version = (SELECT max(sequence) FROM events WHERE subject = $1) "
        "WHERE id = $1",
        *(order["id"], status),
    )


async def test_the_history_comes_first_and_then_what_happens(gateway: Gateway, log: Log):
    """As a stream of events, whose ids are the events' ids, and which ends when the order is final."""
    order = await gateway.place()
    before = metrics.LIVE_EVENTS._value.get()
    async with listening_to(gateway.port, path(order)) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream"
        assert stream.headers["cache-control"] == "no-store"
        assert stream.headers["x-request-id"].startswith("req_")
        assert "ratelimit" in stream.headers
        first = await stream.event()
        stored = (await gateway.client.get(path(order))).json()["items"]
        assert first == stored[0]
        assert stream.last_id == f"{order['id']}:1"
        assert stream.retry_ms > 0
        await log.heard_by(1)
        for kind in STEPS:
            await log.happen(order["id"], kind)
            assert (await stream.event())["type"] == kind
        await log.happen(order["id"], "order.completed.v1")
        assert [event["sequence"] for event in await stream.rest()] == [6]
    assert f"holdfast_live_events_total {before + 6}" in (await gateway.client.get("/metrics")).text


async def test_what_is_doubled_late_or_lost_changes_nothing(gateway: Gateway, log: Log, seed: int):
    """Each event once and in order, for all who listen, while the channel does its worst."""
    chance = random.Random(seed)
    order = await gateway.place()
    listeners = [await opened(gateway.port, path(order)) for _ in range(3)]
    await log.heard_by(1)
    told: list[bytes] = [b"nonsense", b"{}"]
    for _ in range(40):
        told.append(await log.write(order["id"], "shipment.booked.v1"))
        if chance.random() < 0.6:
            await log.publish(*chance.choices(told, k=3))
    await log.happen(order["id"], "order.cancelled.v1")
    for stream in listeners:
        assert [event["sequence"] for event in await stream.rest()] == list(range(1, 43))
        await stream.close()


async def test_an_event_is_one_line_however_it_was_written(gateway: Gateway, log: Log):
    """A line end in it would end the field, and make another event of the rest."""
    order = await gateway.place()
    async with listening_to(gateway.port, path(order)) as stream:
        await stream.events(1)
        await log.heard_by(1)
        envelope = await log.write(order["id"], "order.confirmed.v1", text="two\nlines\r\n")
        await log.publish(json.dumps(json.loads(envelope), indent=2).replace("\n", "\r\n").encode())
        assert (await stream.event())["data"]["text"] == "two\nlines\r\n"


async def test_it_goes_on_behind_the_last_event_that_the_caller_has(gateway: Gateway, log: Log):
    """Named by its id or its sequence, in the header or the query; and 204 where there is nothing more."""
    order = await gateway.place()
    for kind in [*STEPS, "order.completed.v1"]:
        await log.write(order["id"], kind)
    async with listening_to(gateway.port, path(order), last_id=f"{order['id']}:4") as stream:
        assert [event["sequence"] for event in await stream.rest()] == [5, 6]
    await settle(log, order)
    for after in ("2", f"{order['id']}:2"):
        async with listening_to(gateway.port, f"{path(order)}?after={after}") as stream:
            assert [event["sequence"] for event in await stream.rest()] == [3, 4, 5, 6]
        items = (await gateway.client.get(f"{path(order)}?after={after}")).json()["items"]
        assert [event["sequence"] for event in items] == [3, 4, 5, 6]
    async with listening_to(gateway.port, path(order), last_id="6") as stream:
        assert stream.status == 204
    await log.write(order["id"], "payment.refunded.v1")
    await settle(log, order)
    async with listening_to(gateway.port, path(order), last_id="6") as stream:
        assert [event["sequence"] for event in await stream.rest()] == [7]


async def test_without_redis_it_goes_on_from_postgres(database_url: str, monkeypatch: pytest.MonkeyPatch):
    """A little later, and all listeners together."""
    monkeypatch.setattr(live_orders, "POLL_AWAY_S", 0.2)
    async with serving(database_url, NOBODY) as gateway, logging_to(gateway.database, NOBODY) as log:
        orders = [await gateway.place() for _ in range(3)]
        listeners = [await opened(gateway.port, path(order)) for order in orders]
        for order, stream in zip(orders, listeners, strict=True):
            assert (await stream.event())["sequence"] == 1
            await log.write(order["id"], "order.rejected.v1")
        for stream in listeners:
            assert [event["sequence"] for event in await stream.rest()] == [2]
            await stream.close()


async def test_what_was_published_while_nothing_was_heard_is_found(
    gateway: Gateway, log: Log, monkeypatch: pytest.MonkeyPatch
):
    """Whenever the subscription was lost and made again, not only when it is time to look anyway."""
    monkeypatch.setattr(live_orders, "POLL_S", 3_600.0)
    monkeypatch.setattr(live_orders, "POLL_AWAY_S", 3_600.0)
    order = await gateway.place()
    async with listening_to(gateway.port, path(order)) as stream:
        await stream.event()
        await log.heard_by(1)
        await log.write(order["id"], "order.confirmed.v1")
        await log.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        assert (await stream.event())["sequence"] == 2


async def test_whoever_may_not_read_the_order_may_not_follow_it(gateway: Gateway):
    """As when it is read: no such order, wherever it is not the caller's."""
    order = await gateway.place(customer_id="cust-1")
    other = await gateway.key("orders:read", customer="cust-2")
    mine = await gateway.key("orders:read", customer="cust-1")
    none = await gateway.key("products:read")
    stream = {"Accept": "text/event-stream"}
    problem(await gateway.client.get(path(order), headers=stream | other), 404, "not-found")
    problem(await gateway.client.get(path(order), headers=stream | none), 403, "forbidden")
    problem(await gateway.client.get("/v1/orders/nothing/events", headers=stream), 404, "not-found")
    for wrong in ("x", "-1", "ord_06dzpv7x2m8wq3k9n5t1r4c7j0:1", "9999999999"):
        answer = await gateway.client.get(path(order), headers=stream | {"Last-Event-ID": wrong})
        problem(answer, 400, "invalid-parameter")
    problem(await gateway.client.get(f"{path(order)}?limit=1", headers=stream), 400, "invalid-parameter")
    async with listening_to(gateway.port, path(order), key=mine["Authorization"][7:]) as followed:
        assert (await followed.event())["sequence"] == 1
    head = await gateway.client.head(path(order), headers=stream)
    assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream")


async def test_a_key_that_is_revoked_closes_its_streams(gateway: Gateway, monkeypatch: pytest.MonkeyPatch):
    """With the next heartbeat once the gateway knows; until then heartbeats come."""
    monkeypatch.setattr(live_listener, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(auth, "RENEW_S", 0.2)
    monkeypatch.setattr(auth, "FRESH_S", 0.4)
    order = await gateway.place()
    key = await gateway.key("orders:read")
    async with listening_to(gateway.port, path(order), key=key["Authorization"][7:]) as stream:
        await stream.events(1)
        await stream.silence(0.5)
        assert stream.comments >= 2
        await gateway.database.execute("UPDATE api_keys SET revoked_at = now()")
        assert await stream.rest() == []


async def test_a_stream_ends_after_its_time(gateway: Gateway, monkeypatch: pytest.MonkeyPatch):
    """In order, so that the client comes again."""
    monkeypatch.setattr(live_listener, "LIFETIME_S", (0.2, 0.3))
    order = await gateway.place()
    async with listening_to(gateway.port, path(order)) as stream:
        assert len(await stream.rest()) == 1


async def test_when_too_many_listen_the_next_is_told_when_to_come(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
):
    """503 with Retry-After; who hangs up makes room, and nobody who hung up is still counted."""
    monkeypatch.setattr(live_module, "LISTENERS_MAX", 2)
    order = await gateway.place()
    first, second = await opened(gateway.port, path(order)), await opened(gateway.port, path(order))
    answer = await gateway.client.get(path(order), headers={"Accept": "text/event-stream"})
    problem(answer, 503, "overloaded")
    assert int(answer.headers["retry-after"]) > 0
    await first.close()
    async with asyncio.timeout(60):
        while (stream := await opened(gateway.port, path(order))).status != 200:
            await stream.close()
            await asyncio.sleep(0.01)
    await second.close()
    await stream.close()
    await until_listening(gateway, 0)
    assert gateway.services.live._orders._listeners == {}


async def test_who_takes_nothing_is_dropped_and_nobody_waits_for_it(
    gateway: Gateway, log: Log, monkeypatch: pytest.MonkeyPatch
):
    """What waits for it is bounded; when it reads again it finds an end and resumes without loss."""
    monkeypatch.setattr(live_listener, "PATIENCE_S", 0.5)
    monkeypatch.setattr(live_orders, "EVENTS_OF_EACH_MAX", 20)
    order = await gateway.place()
    slow = await opened(gateway.port, path(order), limit=4096, window=4096)
    quick = await opened(gateway.port, path(order))
    taking = asyncio.create_task(quick.events(81))
    for _ in range(80):
        await log.write(order["id"], "shipment.booked.v1", filler="x" * 100_000)
    await log.publish(await log.write(order["id"], "shipment.booked.v1"))
    assert [event["sequence"] for event in await taking] == list(range(1, 82))
    await until_listening(gateway, 1)
    seen = await slow.rest()
    assert [event["sequence"] for event in seen] == list(range(1, len(seen) + 1))
    assert len(seen) < 81
    async with listening_to(gateway.port, path(order), last_id=slow.last_id) as again:
        rest = await again.events(82 - len(seen))
        assert [event["sequence"] for event in rest] == list(range(len(seen) + 1, 83))
    await slow.close()
    await quick.close()


async def until_listening(gateway: Gateway, count: int) -> None:
    """Wait until so many listen to orders."""
    line = f'holdfast_live_listeners{{of="order"}} {count}.0'
    async with asyncio.timeout(60):
        while line not in (await gateway.client.get("/metrics")).text:
            await asyncio.sleep(0.02)
