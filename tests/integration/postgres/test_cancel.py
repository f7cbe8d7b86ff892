"""Cancelling: in time or too late, once, with one winner against the release."""

import asyncio
import random

import pytest

from app.contracts.documents import encode_order
from app.domain import commands as c
from app.domain.errors import Refusal, Refused
from app.domain.order import Order, Status, StockStatus
from app.infra.postgres.intake import Answer, Request
from tests.integration.postgres.shop import CONNECTIONS, Shop, at_once, to_complete, to_undo

ROUNDS = 200


async def cancel(
    shop: Shop, order: Order, request: Request | None = None, reason: str | None = None
) -> tuple[Answer, Order | None]:
    """A customer cancels."""
    route = f"POST /v1/orders/{order.id}/cancel"
    return await shop.intake.cancel(request or shop.request(route), order.id, reason, encode_order)


async def calls(shop: Shop, order: Order) -> list[tuple[str, str | None]]:
    """What the order's workflow is told, in order."""
    statement = "SELECT kind, detail FROM workflow_outbox WHERE order_id = $1 ORDER BY id"
    return [(row["kind"], row["detail"]) for row in await shop.database.fetch(statement, order.id)]


async def test_two_hundred_times_a_cancellation_races_a_release_and_one_of_them_wins(shop: Shop):
    """Never both, never neither; stock and money are right whoever won."""
    await shop.stock("cup", east=10 * ROUNDS)
    dice = random.Random(7)
    won = {"cancel": 0, "release": 0}
    places = asyncio.Semaphore(CONNECTIONS // 2)

    async def race() -> None:
        async with places:
            order = await shop.confirmed(("cup", 1))
            work = [cancel(shop, order), shop.orders.record(order.id, c.ReleaseOrder())]
            both = await asyncio.gather(*dice.sample(work, 2), return_exceptions=True)
            refused = [answer for answer in both if isinstance(answer, Refusal | Refused)]
            assert len(refused) == 1, both
            order = await shop.orders.load(order.id)
            if isinstance(refused[0], Refused):
                assert refused[0].refusal.code == "too-late"
                won["release"] += 1
                assert (order.status, order.stock) == (Status.DISPATCHED, StockStatus.SHIPPED)
                assert await calls(shop, order) == [("start", None)]
                rest = to_complete(order)[1:]
            else:
                assert refused[0].code == "cancelling"
                won["cancel"] += 1
                assert (order.status, order.stock) == (Status.CANCELLING, StockStatus.RESERVED)
                assert await calls(shop, order) == [("start", None), ("cancel", None)]
                rest = to_undo(order)
            assert (await shop.record(order.id, *rest)).is_final

    await asyncio.gather(*(race() for _ in range(ROUNDS)))
    assert sum(won.values()) == ROUNDS
    assert min(won.values()) > 0, won
    assert await shop.shelf("cup", "east") == (10 * ROUNDS - won["release"], 0)
    rows = await shop.database.fetch("SELECT type, count(*) FROM events GROUP BY type")
    counts = {row["type"]: row["count"] for row in rows}
    assert counts["payment.captured.v1"] == counts["order.completed.v1"] == won["release"]
    assert counts["payment.voided.v1"] == counts["order.cancelled.v1"] == won["cancel"]


async def test_the_same_key_twenty_times_at_once_is_one_cancellation(shop: Shop):
    """One event, one call to the workflow, twenty equal answers."""
    await shop.stock("cup", east=5)
    order = await shop.confirmed(("cup", 1))
    request = shop.request(f"POST /v1/orders/{order.id}/cancel")
    answers = await at_once(cancel(shop, order, request) for _ in range(20))
    assert len({(answer.status, answer.body) for answer, _ in answers}) == 1
    assert sorted(answer.replayed for answer, _ in answers) == [False] + [True] * 19
    assert sum(after is not None for _, after in answers) == 1
    assert await calls(shop, order) == [("start", None), ("cancel", None)]


async def test_different_keys_at_once_all_hear_that_it_is_being_cancelled(shop: Shop):
    """Whoever comes second changes nothing."""
    await shop.stock("cup", east=5)
    order = await shop.confirmed(("cup", 1))
    answers = await at_once(cancel(shop, order) for _ in range(10))
    assert {after.version for _, after in answers} == {order.version + 1}


async def test_the_same_key_with_another_body_is_refused(shop: Shop):
    """One of two that race for it gets its answer, the other does not get that answer."""
    await shop.stock("cup", east=5)
    order = await shop.confirmed(("cup", 1))
    route = f"POST /v1/orders/{order.id}/cancel"
    requests = [shop.request(route, "mine", body) for body in [b"a", b"b"] * 5]
    answers = await at_once(cancel(shop, order, request) for request in requests)
    refused = [answer for answer in answers if isinstance(answer, Refused)]
    assert len(refused) == 5
    assert {answer.refusal.code for answer in refused} == {"idempotency-key-reused"}


async def test_too_late_is_not_remembered(shop: Shop):
    """A refusal takes no key: the caller may use it for something that works."""
    await shop.stock("cup", east=5)
    order = await shop.confirmed(("cup", 1))
    await shop.record(order.id, c.ReleaseOrder())
    request = shop.request(f"POST /v1/orders/{order.id}/cancel")
    for _ in range(2):
        with pytest.raises(Refused) as refused:
            await cancel(shop, order, request)
        assert refused.value.refusal.code == "too-late"
    assert await shop.intake.answered(request) is None
    assert await calls(shop, order) == [("start", None)]


async def test_what_the_customer_said_stays_in_the_order_and_out_of_its_events(shop: Shop):
    """Events leave PostgreSQL, personal words do not."""
    await shop.stock("cup", east=5)
    order = await shop.confirmed(("cup", 1))
    await cancel(shop, order, reason="Ada is ill")
    (row,) = await shop.database.fetch("SELECT cancel_reason FROM orders WHERE id = $1", order.id)
    assert row["cancel_reason"] == "Ada is ill"
    rows = await shop.database.fetch("SELECT data FROM events")
    assert not any("Ada" in row["data"] for row in rows)


async def test_cancelling_what_is_cancelled_calls_nobody(shop: Shop):
    """There is no workflow any more that could do something."""
    await shop.stock("cup", east=5)
    order = await shop.confirmed(("cup", 1))
    _, order = await cancel(shop, order)
    await shop.record(order.id, *to_undo(order))
    answer, after = await cancel(shop, order)
    assert (answer.status, after.status) == (200, Status.CANCELLED)
    assert await calls(shop, order) == [("start", None), ("cancel", None)]


async def test_a_delivery_tells_the_workflow_which_parcel(shop: Shop):
    """In the transaction that puts it on record; a delivery that cannot be is told to nobody."""
    await shop.stock("cup", east=5)
    order = await shop.confirmed(("cup", 1))
    (parcel,) = order.fulfilments
    assert isinstance(await shop.intake.deliver(order.id, parcel.id), Refusal)
    await shop.record(order.id, c.ReleaseOrder())
    delivered = await shop.intake.deliver(order.id, parcel.id)
    assert delivered.status is Status.DISPATCHED
    assert await calls(shop, order) == [("start", None), ("delivered", parcel.id)]
