"""Accepting an order: one transaction for the order, its event, its answer and the call to its workflow."""

import json
from datetime import timedelta

import pytest
from msgspec.structs import replace

from app.domain.errors import Refused, Unavailable
from app.domain.ports import Address
from app.infra.postgres.intake import Answer, Request
from tests.integration.postgres.interference import begun, holding
from tests.integration.postgres.shop import Shop, at_once

CLAIM = """
INSERT INTO idempotency (caller, route, key, body_hash, status, answer) VALUES ($1, $2, $3, '', 202, '')
"""
FORGETFUL = """
CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER forgetful BEFORE INSERT ON idempotency FOR EACH ROW EXECUTE FUNCTION forget();
"""
HOME = Address("Ada", "1 Main St", "Springfield", "12345", "US", phone="+1 555", email="ada@example.com")


async def taken(shop: Shop, request: Request) -> Answer:
    """A request for a cup, as the gateway answers it: each time with an order of its own in mind."""
    order, event = await shop.placed(("cup", 1))
    return await shop.intake.accept(request, order, event, shop.answer(order), address=None, traceparent=None)


async def test_what_is_accepted_reads_back_as_it_was_placed(shop: Shop):
    """Every field, to the microsecond."""
    await shop.stock("cup")
    order, event = await shop.placed(("cup", 2), ("cup", 1))
    order = replace(order, metadata={"cart": "7", "note": "ünïcode \\ \" ' % $1"})
    answer = shop.answer(order)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    given = await shop.intake.accept(shop.request(), order, event, answer, address=HOME, traceparent=trace)
    assert given == answer
    assert await shop.orders.load(order.id) == order
    # The carrier delivers parcels, not mail.
    assert await shop.orders.address(order.id) == replace(HOME, email=None)
    (row,) = await shop.database.fetch("SELECT * FROM events WHERE subject = $1", order.id)
    assert (row["type"], row["traceparent"]) == ("order.accepted.v1", trace)
    assert (row["correlation_id"], row["time"]) == (order.correlation_id, order.created_at)
    assert json.loads(row["data"])["total"] == {"amount": 2100, "currency": "USD"}


async def test_an_order_needs_no_address(shop: Shop):
    """Nobody said where; the carrier is told so."""
    await shop.stock("cup")
    order = await shop.accept(("cup", 1))
    assert await shop.orders.address(order.id) is None


async def test_the_same_key_gives_the_first_answer_byte_for_byte(shop: Shop):
    """And places nothing."""
    await shop.stock("cup")
    request = shop.request()
    first = await taken(shop, request)
    again = await taken(shop, request)
    assert again == replace(first, replayed=True)
    assert await shop.intake.answered(request) == again
    assert await shop.count("orders") == 1


async def test_the_same_key_fifty_times_at_once_is_one_order(shop: Shop):
    """Whoever comes first wins, and all the others get his answer."""
    await shop.stock("cup")
    request = shop.request()
    answers = await at_once(taken(shop, request) for _ in range(50))
    assert len({(answer.status, answer.location, answer.body) for answer in answers}) == 1
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * 49
    assert [await shop.count(table) for table in ("orders", "idempotency", "workflow_outbox")] == [1, 1, 1]


async def test_the_same_key_with_another_body_is_refused(shop: Shop):
    """At once, and also when the two race."""
    await shop.stock("cup")
    request = shop.request()
    other = replace(request, body_hash=b"other")
    await taken(shop, request)
    for again in (taken(shop, other), shop.intake.answered(other)):
        with pytest.raises(Refused) as refused:
            await again
        assert refused.value.refusal.code == "idempotency-key-reused"
    racing = shop.request()
    answers = await at_once(taken(shop, replace(racing, body_hash=body)) for body in [b"a", b"b"] * 10)
    assert sum(isinstance(answer, Refused) for answer in answers) == 10
    assert await shop.count("orders") == 2


async def test_keys_belong_to_a_caller_and_a_route(shop: Shop):
    """Two callers may use the same key, and one may use it for two things."""
    await shop.stock("cup")
    request = shop.request()
    for different in (request, replace(request, caller="key_2"), replace(request, route="POST /v2/orders")):
        assert not (await taken(shop, different)).replayed
    assert await shop.count("orders") == 3


async def test_a_request_that_waits_for_another_takes_its_place_when_that_fails(shop: Shop, other):
    """The first one with this key is rolled back: the second is the first."""
    await shop.stock("cup")
    request = shop.request()
    async with holding(other, CLAIM, request.caller, request.route, request.key):
        waiting = await begun(other, taken(shop, request))
    assert not (await waiting).replayed
    assert await shop.count("orders") == 1


async def test_an_answer_that_was_forgotten_at_that_very_moment_is_not_made_up(shop: Shop):
    """The key is taken, and when we look its answer is gone: nothing was accepted, so nothing is answered."""
    await shop.stock("cup")
    await shop.database.execute(FORGETFUL)
    with pytest.raises(Unavailable):
        await taken(shop, shop.request())
    assert await shop.count("orders") == 0


async def test_answers_are_forgotten_after_thirty_days_and_not_before(shop: Shop):
    """A bounded number at a time."""
    await shop.stock("cup")
    requests = [shop.request() for _ in range(5)]
    for request, days in zip(requests, [29, 31, 32, 33, 0], strict=True):
        await taken(shop, request)
        statement = "UPDATE idempotency SET created_at = now() - $1::interval WHERE key = $2"
        await shop.database.execute(statement, timedelta(days=days), request.key)
    assert [await shop.intake.forget(2) for _ in range(3)] == [2, 1, 0]
    kept = [request for request in requests if await shop.intake.answered(request)]
    assert kept == [requests[0], requests[4]]
