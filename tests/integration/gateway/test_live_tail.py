"""Following everything: from now on or from behind an event, each at least once, whatever Redis does."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from app.gateway import live as live_module
from app.gateway import live_listener, live_orders, live_tail
from app.infra.postgres.live_events import LiveEvents
from tests.integration.gateway.live import Log, Stream, listening_to, logging_to, opened
from tests.integration.gateway.served import NOBODY, Gateway, problem, serving
from tests.proxy import FaultProxy

ALL = "/v1/events"
LONG_AGO = timedelta(hours=1)


@pytest.fixture
async def log(gateway: Gateway, redis_url: str) -> AsyncIterator[Log]:
    """The log of that gateway."""
    async with logging_to(gateway.database, redis_url) as log:
        yield log


def ids(events: list[dict]) -> list[str]:
    """Their ids."""
    return [event["id"] for event in events]


async def until(stream: Stream, identity: str) -> list[str]:
    """The ids of what comes, up to that one."""
    found = []
    while not found or found[-1] != identity:
        event = await stream.event()
        assert event is not None
        found.append(event["id"])
    return found


async def test_it_starts_now_and_tells_everything(gateway: Gateway, log: Log):
    """Orders, prices and stock; nothing of before; published or not yet, doubled or not, once."""
    await log.write("before", "price.changed.v1")
    async with listening_to(gateway.port, ALL) as stream:
        assert stream.headers["content-type"] == "text/event-stream"
        await log.heard_by(1)
        unheard = await log.write("a", "price.changed.v1")
        await log.redis.client_kill_filter(
            _type="pubsub"
        )  # whoever subscribes again looks for what it missed
        assert ids([await stream.event()]) == ["a:1"]
        await log.publish(unheard)
        for number in range(2, 30):
            envelope = await log.write("a", "inventory.adjusted.v1")
            await log.publish(envelope, envelope)
            assert ids([await stream.event()]) == [f"a:{number}"]
        await stream.silence()


FORGED = "a:1\nevent: order.completed.v1\ndata: {}\n\nid: b:1"
JUNK: list[dict] = [
    {"id": FORGED},
    {"id": FORGED, "subject": FORGED.rpartition(":")[0]},
    {"type": "price.changed.v1\ndata: {}\n\n"},
    {"type": "price.changed.v1\r"},
    {"type": ""},
    {"id": "b:1"},
    {"subject": "b"},
    {"id": "a b:1", "subject": "a b"},
    {"id": "a:0", "sequence": 0},
    {"id": "a:-1", "sequence": -1},
    {"id": f"a:{2**31}", "sequence": 2**31},
]


async def test_junk_on_the_channel_is_told_to_nobody(gateway: Gateway, log: Log):
    """An id or a type with a line end would forge an event for whoever follows; the log says it once."""
    event = {"id": "a:1", "type": "price.changed.v1", "subject": "a", "sequence": 1, "data": {}}
    with capture_logs() as said:
        async with listening_to(gateway.port, ALL) as stream:
            await log.heard_by(1)
            await log.publish(b"\xff", b"[" * 5_000, *(json.dumps(event | junk).encode() for junk in JUNK))
            await log.happen("real", "price.changed.v1")
            assert ids([await stream.event()]) == ["real:1"]
    assert [one["event"] for one in said].count("live_message_dropped") == 1


async def test_an_event_of_a_newer_release_is_told(gateway: Gateway, log: Log):
    """Its type is known to nobody here, but it has the form of one."""
    async with listening_to(gateway.port, ALL) as stream:
        await log.heard_by(1)
        await log.happen("x", "order.gift_wrapped.v12")
        assert ids([await stream.event()]) == ["x:1"]


async def test_it_tells_only_the_types_that_are_wanted(gateway: Gateway, log: Log):
    """Named with or without their versions; a name that is none is refused."""
    async with listening_to(gateway.port, f"{ALL}?type=order.completed.v1,price.changed") as stream:
        await log.heard_by(1)
        for kind in ("order.completed.v1", "order.accepted.v1", "price.changed.v1"):
            await log.happen("x", kind)
        assert ids(await stream.events(2)) == ["x:1", "x:3"]
    headers = {"Accept": "text/event-stream"}
    problem(await gateway.client.get(f"{ALL}?type=order.done", headers=headers), 400, "invalid-parameter")
    problem(await gateway.client.get(f"{ALL}?types=x", headers=headers), 400, "invalid-parameter")


async def test_it_goes_on_behind_an_event_and_leaves_nothing_out(
    gateway: Gateway, log: Log, monkeypatch: pytest.MonkeyPatch
):
    """However long ago and however much, in pages; what happens meanwhile comes, too."""
    monkeypatch.setattr("app.infra.postgres.live_events.PAGE", 20)
    start = datetime.now(UTC) - LONG_AGO
    for number in range(150):
        await log.write(f"old-{number % 7}", "price.changed.v1", at=start + number * timedelta(seconds=9))
    await log.write("known", "price.changed.v1", at=start + timedelta(minutes=1))
    await log.write("late", "price.changed.v1", at=start + timedelta(seconds=50))
    async with listening_to(gateway.port, ALL, last_id="known:1") as stream:
        await log.heard_by(1)
        seen = []
        for number in range(1, 6):
            await log.happen("new", "price.changed.v1")
            seen += await until(stream, f"new:{number}")
        rows = await log.database.fetch(
            "SELECT subject || ':' || sequence AS id FROM events WHERE time >= $1 AND subject <> 'known'",
            start + timedelta(seconds=60),
        )
        assert {row["id"] for row in rows} <= set(seen)
        assert "late:1" in seen
        assert len(seen) == len(set(seen))
        assert "old-0:1" not in seen
        for subject in {identity.partition(":")[0] for identity in seen}:
            own = [int(identity.partition(":")[2]) for identity in seen if identity.startswith(f"{subject}:")]
            assert own == sorted(own)


async def test_without_redis_it_goes_on_from_postgres(database_url: str, monkeypatch: pytest.MonkeyPatch):
    """A little later."""
    monkeypatch.setattr(live_tail, "POLL_AWAY_S", 0.2)
    async with (
        serving(database_url, NOBODY) as gateway,
        logging_to(gateway.database, NOBODY) as log,
        listening_to(gateway.port, ALL) as stream,
    ):
        for number in range(1, 4):
            await log.write("a", "price.changed.v1")
            assert ids([await stream.event()]) == [f"a:{number}"]


async def test_that_postgres_is_away_is_said_once(
    database_url: str, redis_url: str, seed: int, monkeypatch: pytest.MonkeyPatch
):
    """And once that it is back, for all who follow orders and for all who follow everything."""
    looks: Counter[str] = Counter()
    for asked in ("after", "now"):
        monkeypatch.setattr(LiveEvents, asked, counted(looks, asked, getattr(LiveEvents, asked)))
    for module in (live_orders, live_tail):
        monkeypatch.setattr(module, "PAUSE_S", 0.01)
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(FaultProxy(database_url, seed=seed))
        gateway = await stack.enter_async_context(serving(proxy.url, redis_url))
        database = await asyncpg.connect(database_url)
        stack.push_async_callback(database.close)
        log = await stack.enter_async_context(logging_to(database, redis_url))
        orders = [await gateway.place() for _ in range(2)]
        paths = [*(f"/v1/orders/{order['id']}/events" for order in orders), ALL, ALL]
        streams = [await opened(gateway.port, path) for path in paths]
        await log.heard_by(1)
        said = stack.enter_context(capture_logs())
        await proxy.refuse()
        await proxy.end()
        for order in orders:
            await log.write(order["id"], "order.rejected.v1")
        await log.redis.client_kill_filter(_type="pubsub")  # who subscribes again looks for what it missed
        looks.clear()
        async with asyncio.timeout(60):
            while min(looks["after"], looks["now"]) < 3:
                await asyncio.sleep(0.01)
        proxy.heal()
        for number, stream in enumerate(streams):
            await until(stream, f"{orders[number % 2]['id']}:2")
            await stream.close()
    told = Counter((one["event"], one["of"]) for one in said if one["event"].startswith("live_events_"))
    assert told == dict.fromkeys(product(("live_events_wait", "live_events_go_on"), ("order", "all")), 1)


def counted(
    looks: Counter[str], name: str, ask: Callable[..., Awaitable[Any]]
) -> Callable[..., Awaitable[Any]]:
    """The same, and how often it was asked."""

    async def counting(*arguments: Any) -> Any:
        looks[name] += 1
        return await ask(*arguments)

    return counting


async def test_what_was_not_heard_is_found(gateway: Gateway, log: Log):
    """What happened while the subscription was lost, and then what is heard, in their order, once."""
    async with listening_to(gateway.port, ALL) as first, listening_to(gateway.port, ALL) as second:
        await log.heard_by(1)
        for turn in range(3):
            await log.happen("a", "price.changed.v1")
            await log.write("a", "price.changed.v1")  # nobody ever hears of it
            await log.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            # Published, as everything is: the subscription may be back, and caught up, before it is written.
            await log.happen("a", "price.changed.v1")
            await log.heard_by(1)
            await log.happen("a", "price.changed.v1")
            expected = [f"a:{number}" for number in range(4 * turn + 1, 4 * turn + 5)]
            assert ids(await first.events(4)) == expected
            assert ids(await second.events(4)) == expected


async def test_who_is_the_last_to_leave_ends_the_subscription(gateway: Gateway, log: Log):
    """And whoever comes then starts anew, from then on."""
    for number in range(1, 4):
        async with listening_to(gateway.port, ALL) as stream:
            await log.heard_by(1)
            await log.happen("a", "price.changed.v1")
            assert ids([await stream.event()]) == [f"a:{number}"]
        await log.heard_by(0)


async def test_it_is_for_keys_that_see_everything(gateway: Gateway, monkeypatch: pytest.MonkeyPatch):
    """Not for a customer's, not without the scopes, not for who would take JSON; and for so many."""
    headers = {"Accept": "text/event-stream"}
    mine = await gateway.key(customer="cust-1")
    problem(await gateway.client.get(ALL, headers=headers | mine), 403, "forbidden")
    some = await gateway.key("orders:read", "products:read")
    assert (
        "inventory:read"
        in problem(await gateway.client.get(ALL, headers=headers | some), 403, "forbidden")["detail"]
    )
    problem(await gateway.client.get(ALL), 406, "not-acceptable")
    for wrong in ("x", "nothing:1", "7"):
        answer = await gateway.client.get(ALL, headers=headers | {"Last-Event-ID": wrong})
        problem(answer, 400, "invalid-parameter")
    monkeypatch.setattr(live_module, "TAILS_MAX", 1)
    async with listening_to(gateway.port, ALL):
        problem(await gateway.client.get(ALL, headers=headers), 503, "overloaded")


async def test_who_takes_nothing_of_everything_is_dropped(
    gateway: Gateway, log: Log, monkeypatch: pytest.MonkeyPatch
):
    """Others hear on; what waits for one reader is bounded."""
    monkeypatch.setattr(live_listener, "FRAMES_MAX", 50)
    quick = await opened(gateway.port, ALL)
    slow = await opened(gateway.port, ALL, limit=4096, window=4096)
    await log.heard_by(1)
    for number in range(1, 120):
        await log.happen("a", "price.changed.v1", filler="x" * 100_000)
        assert ids([await quick.event()]) == [f"a:{number}"]
    async with asyncio.timeout(60):
        while 'holdfast_live_listeners{of="all"} 1.0' not in (await gateway.client.get("/metrics")).text:
            await asyncio.sleep(0.02)
    assert len(await slow.rest()) < 119
    await slow.close()
    await quick.close()
