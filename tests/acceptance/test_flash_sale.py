"""A flash sale: few pieces, a great crowd. All are sold, none twice, and nobody waits for a no."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
import redis.asyncio
from temporalio.client import Client

from app.contracts import admission as keys
from tests.acceptance.rush import (
    Rush,
    accepted_orders,
    answered_orders,
    overheard,
    rush,
    until_accepted,
    until_answered,
)
from tests.acceptance.shop import Shop

UNITS = 50
ORDERS = 20_000
ORDERS_IN_SHORT = 2_000
ORDERS_AT_ONCE = 1_000
FEW_UNITS = 10
FEW_ORDERS = 100
SETTLE_S = 90.0
SETTLE_MANY_S = 700.0
"""While Redis is away, PostgreSQL's stock decides, which knows of pieces when they are reserved: orders in
their thousands may be accepted then, and each is a workflow that ends rejected."""
REFUSALS = 2_000
REFUSAL_P50_MS_MAX = 50.0
"""Far more than it takes, for machines that do other things beside."""
OVERHEARD = 500
WORKFLOWS_MAX = 200
ON_SALE_AGAIN_S = 1.0
OTHER_ROUND_TRIPS = 0.05
"""What is allowed beside the one of each refusal, for all together: hints, heartbeats, looks at the stock."""


async def workflows(shop: Shop, expected: int) -> int:
    """How many workflows were ever started for this shop, once Temporal lists as many as are expected."""
    temporal = shop.status["temporal"]
    client = await Client.connect(temporal["address"], namespace=temporal["namespace"])
    async with asyncio.timeout(30):
        while True:
            found = (await client.count_workflows(f"CustomerId = '{shop.customer}'")).count
            if found >= expected:
                return found
            await asyncio.sleep(0.1)


async def until_none_is_counted(shop: Shop, sku: str) -> None:
    """Wait until the gate knows that nothing is left; it errs upward while orders are under way."""
    async with redis.asyncio.from_url(shop.status["redis"]["url"]) as client, asyncio.timeout(10):
        while int(await client.hget(keys.gate("dev", "counts"), sku) or 1) > 0:
            await asyncio.sleep(0.05)


async def sell_out(shop: Shop, sku: str, units: int, orders: int) -> Rush:
    """A sale of so many pieces to its end; the crowd."""
    await shop.stock(sku, units)
    return await rush(shop, sku, sku, orders)


async def audit(shop: Shop, crowd: Rush, settle_s: float = SETTLE_S) -> None:
    """Exactly what was there is sold, and the books agree."""
    outcome = await shop.audit(settle_s)
    print(f"{crowd.name}: {dict(outcome)}")
    assert outcome["completed"] == shop.stocked[crowd.sku]
    assert set(outcome) <= {"completed", "rejected"}
    assert (await shop.http.get(f"/v1/inventory/{crowd.sku}")).json()["available"] == 0


@pytest.mark.parametrize(
    "orders", [ORDERS_IN_SHORT, pytest.param(ORDERS, marks=pytest.mark.full)], ids=["few", "many"]
)
async def test_a_crowd_for_fifty_pieces_buys_fifty_and_starts_few_workflows(shop: Shop, orders: int) -> None:
    """Two hundred clients; every order is accepted or refused as sold out; few more are begun than sold."""
    crowd = await sell_out(shop, f"flash-{orders}", UNITS, orders)
    await audit(shop, crowd)
    started = await accepted_orders(shop)
    assert await workflows(shop, started) == started
    print(f"orders accepted and workflows started: {started}")
    assert UNITS <= started < WORKFLOWS_MAX


async def test_a_crowd_that_comes_with_the_stock_is_counted_from_the_first_order(shop: Shop) -> None:
    """The SKU is new: nobody has ever asked for it, and two hundred clients do as soon as it is there."""
    await shop.stock("new", FEW_UNITS)
    crowd = await rush(shop, "new", "new", ORDERS_AT_ONCE, at_once=True)
    await audit(shop, crowd)
    started = await accepted_orders(shop)
    print(f"orders accepted: {started}")
    assert started < WORKFLOWS_MAX


@pytest.mark.full
async def test_a_sale_that_opens_before_a_waiting_crowd_starts_few_workflows(shop: Shop) -> None:
    """All are refused until pieces come; those are sold, and hardly more orders begun."""
    await shop.stock("opening", 1)
    assert (await shop.place("opening-first", "opening")).status_code == 202
    answered = await answered_orders(shop)

    async def open_sale() -> None:
        await until_answered(shop, answered + ORDERS_AT_ONCE // 4)
        await shop.restock("opening", FEW_UNITS - 1, key="opening-stock")

    opening = asyncio.create_task(open_sale())
    try:
        crowd = await rush(shop, "opening", "opening", ORDERS_AT_ONCE)
        await opening
    finally:
        opening.cancel()
    await audit(shop, crowd)
    started = await accepted_orders(shop)
    print(f"orders accepted: {started}")
    assert started < WORKFLOWS_MAX


async def test_a_refusal_costs_one_round_trip_to_redis(shop: Shop) -> None:
    """Of a SKU that is sold out: one script a request, and nothing else but what there is for all of them."""
    crowd = await sell_out(shop, "refusing", FEW_UNITS, FEW_ORDERS)
    await audit(shop, crowd)
    await until_none_is_counted(shop, "refusing")
    async with overheard(shop.status["redis"]["url"]) as heard:
        refused = await rush(shop, "refusing", "refused", OVERHEARD)
    assert refused.statuses == {409: OVERHEARD}
    asked = Counter({command: n for (who, command), n in heard.items() if who.startswith("holdfast-gateway")})
    print(f"round trips of the gateway for {OVERHEARD} refusals: {dict(asked)}")
    assert asked["evalsha"] >= OVERHEARD
    assert asked.total() <= OVERHEARD * (1 + OTHER_ROUND_TRIPS)


@pytest.mark.full
async def test_refusals_are_quick(shop: Shop) -> None:
    """At half of what a crowd of refused can make the gateway do, from the moment each was due."""
    await shop.stock("quick", 1)
    crowd = await rush(shop, "quick", "quick", REFUSALS)
    await shop.audit()
    quiet = await rush(shop, "quick", "quick-at-half", REFUSALS, rate=crowd.result.rate / 2)
    assert quiet.statuses == {409: REFUSALS}
    assert quiet.result.latency_ms(0.5)[0] < REFUSAL_P50_MS_MAX


async def killed(shop: Shop) -> None:
    """Kill -9 of Redis; the supervisor brings it back."""
    async with redis.asyncio.from_url(shop.status["redis"]["url"]) as client:
        os.kill((await client.info("server"))["process_id"], signal.SIGKILL)


async def flushed(shop: Shop) -> None:
    """Redis forgets everything."""
    async with redis.asyncio.from_url(shop.status["redis"]["url"]) as client:
        await client.flushall()


@pytest.mark.parametrize(
    ("fault", "units", "orders"),
    [
        (killed, FEW_UNITS, FEW_ORDERS),
        *(
            pytest.param(fault, UNITS, orders, marks=[pytest.mark.full, pytest.mark.timeout(900)])
            for fault in (killed, flushed)
            for orders in (ORDERS_IN_SHORT, ORDERS)
        ),
    ],
)
async def test_the_same_pieces_are_sold_when_redis_fails_in_the_middle(
    shop: Shop, fault: Callable[[Shop], Awaitable[None]], units: int, orders: int
) -> None:
    """Once while pieces are sold and once among the refusals; everybody is answered all the same."""
    answered = await answered_orders(shop)

    async def disturb() -> None:
        await until_accepted(shop, 1)
        await fault(shop)
        await until_answered(shop, answered + orders // 2)
        async with asyncio.timeout(10):
            while not await fails_again(shop, fault):
                await asyncio.sleep(0.05)

    sku = f"flash-{fault.__name__}-{orders}"
    disturbing = asyncio.create_task(disturb())
    try:
        crowd = await sell_out(shop, sku, units, orders)
        await disturbing
    finally:
        disturbing.cancel()
    await audit(shop, crowd, SETTLE_MANY_S)
    print(f"orders accepted: {await accepted_orders(shop)}")


async def fails_again(shop: Shop, fault: Callable[[Shop], Awaitable[None]]) -> bool:
    """Whether Redis was there to fail once more."""
    try:
        await fault(shop)
    except redis.RedisError:
        return False
    return True


async def first_accepted(shop: Shop, sku: str, name: str) -> float:
    """Order one piece after another until one is accepted; how long that took, seconds."""
    began = time.monotonic()
    for number in range(10_000):
        answer = await shop.place(f"{name}-{number}", sku)
        passed_s = time.monotonic() - began
        if answer.status_code == 202:
            print(f"{name}: accepted after {passed_s * 1000:.0f} ms, {number} refusals")
            return passed_s
        assert answer.json()["type"] == "/problems/sold-out", answer.text
        assert passed_s < 10 * ON_SALE_AGAIN_S, "it is never sold again"
    raise AssertionError("that many refusals do not fit into the time")


async def test_new_stock_is_on_sale_within_a_second(shop: Shop) -> None:
    """Five more after the sale: exactly five more are sold."""
    await sell_out(shop, "again", FEW_UNITS, FEW_ORDERS)
    await shop.settled()
    await shop.restock("again", 5, key="again-five")
    assert await first_accepted(shop, "again", "again-next") <= ON_SALE_AGAIN_S
    await rush(shop, "again", "again-last", FEW_ORDERS)
    assert (await shop.audit())["completed"] == FEW_UNITS + 5


async def test_a_piece_that_a_declined_card_gives_back_is_on_sale_within_a_second(shop: Shop) -> None:
    """The last piece goes to somebody who cannot pay, then to somebody who can."""
    await shop.stock("handed-back", 1)
    answer = await shop.place("handed-back-declined", "handed-back", method="pm_card_chargeDeclined")
    assert answer.status_code == 202
    await shop.settled()
    assert await first_accepted(shop, "handed-back", "handed-back-next") <= ON_SALE_AGAIN_S
    assert await shop.audit() == {"rejected": 1, "completed": 1}


async def test_requests_that_are_refused_for_another_reason_take_nothing(shop: Shop) -> None:
    """Ten who expect another price for the last piece leave it to the eleventh."""
    await shop.stock("last", 1)
    wrong = shop.body("last") | {"expected_total": {"amount": 1, "currency": "USD"}}
    for number in range(10):
        answer = await post(shop, wrong, f"last-wrong-{number}")
        assert answer.json()["type"] == "/problems/price-changed", answer.text
    assert await first_accepted(shop, "last", "last-right") <= ON_SALE_AGAIN_S
    assert await shop.audit() == {"completed": 1}


async def post(shop: Shop, body: dict[str, Any], key: str) -> httpx.Response:
    """One POST of an order."""
    return await shop.http.post("/v1/orders", json=body, headers={"Idempotency-Key": key})


async def check_first_answers(shop: Shop, crowd: Rush) -> None:
    """Whoever bought and asks again is answered as the first time, while everybody else is refused."""
    for number, (key, first) in enumerate(crowd.accepted.items()):
        fresh = await post(shop, shop.body(crowd.sku), f"{crowd.name}-late-{number}")
        assert fresh.status_code == 409, fresh.text
        again = await post(shop, shop.body(crowd.sku), key)
        assert again.status_code == 202, again.text
        assert again.content == first.body
        assert again.headers["Idempotent-Replayed"] == "true"
        assert again.headers["Location"].encode() == dict(first.headers)[b"location"]
        other = await post(shop, shop.body(crowd.sku, 2), key)
        assert other.status_code == 422, "the key belongs to another body, sold out or not"


@pytest.mark.parametrize(
    "fault",
    [None, pytest.param(flushed, marks=pytest.mark.full), pytest.param(killed, marks=pytest.mark.full)],
)
async def test_a_repetition_is_answered_as_the_first_time_though_the_sku_is_sold_out(
    shop: Shop, fault: Callable[[Shop], Awaitable[None]] | None
) -> None:
    """Never 409: whether Redis remembers the answer, has forgotten everything, or was just killed."""
    sku = f"repeated-{fault.__name__ if fault else 'remembered'}"
    crowd = await sell_out(shop, sku, FEW_UNITS, FEW_ORDERS)
    await shop.settled()
    assert len(crowd.accepted) >= FEW_UNITS
    if fault is not None:
        await fault(shop)
    await check_first_answers(shop, crowd)
    await audit(shop, crowd)


@pytest.mark.full
@pytest.mark.timeout(240)
async def test_a_repetition_is_answered_as_the_first_time_after_minutes(shop: Shop) -> None:
    """Redis keeps answers for a minute; PostgreSQL keeps them."""
    crowd = await sell_out(shop, "minutes", FEW_UNITS, FEW_ORDERS)
    await shop.settled()
    await asyncio.sleep(61)  # the lifetime itself is under test
    await check_first_answers(shop, crowd)
    await audit(shop, crowd)
