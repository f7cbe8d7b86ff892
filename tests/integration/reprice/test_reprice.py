"""A wrong price is mended: shown first, then applied exactly as shown, to each order once."""

import json
from datetime import UTC, datetime, timedelta
from time import monotonic

import pytest

from app.contracts.documents import encode_order
from app.domain import commands as c
from app.domain.errors import Refused
from app.infra.postgres import replays
from app.infra.postgres.orders import PostgresOrders
from app.infra.postgres.replays import Asked, Selection
from app.infra.redis.clients import open_redis
from app.infra.redis.documents import Documents
from app.replay.asking import check
from app.replay.engine import Engine
from app.replay.reprice import Reprice
from bench.history import ACCEPTED, CANCELLED, Kind, put
from tests.integration.reprice.priced import HANDLERS, RIGHT, WRONG, Past, as_recorded, difference


async def test_what_was_shown_is_what_is_applied(priced: Past):
    """Every affected order once, the others not at all; sums by currency; chains whole."""
    await priced.put(100, 30)
    replay = await priced.shown()
    assert (replay.state, replay.total, replay.done, replay.changes) == ("shown", 100, 100, 30)
    assert replay.summary["sums"] == {"USD": {"total": difference(30)}}
    assert await priced.adjustments() == []
    changes = await priced.changes(replay)
    assert all(x.difference == {"total": x.after["total"] - x.before["total"]} for x in changes)
    applied = await priced.apply(replay)
    assert (applied.state, applied.applied) == ("applied", 30)
    assert await priced.adjustments() == as_recorded(replay, changes)
    events = await priced.database.fetch("SELECT data FROM events WHERE type = 'order.repriced.v1'")
    told = [json.loads(row["data"])["difference"]["amount"] for row in events]
    assert (len(told), sum(told)) == (30, difference(30))
    outbox = await priced.database.fetch("SELECT subject FROM event_outbox ORDER BY position")
    assert sorted(row["subject"] for row in outbox) == sorted(x.key["order"] for x in changes)


async def test_asked_at_once_it_is_shown_and_applied_in_one_go(priced: Past):
    """`--apply`."""
    await priced.put(20, 6)
    replay = await priced.shown(is_applied=True)
    assert (replay.state, replay.applied) == ("applied", 6)


async def test_applied_again_nothing_differs(priced: Past):
    """A second replay of the same list finds nothing; asking the first again is nothing new."""
    await priced.put(20, 6)
    replay = await priced.apply(await priced.shown())
    again = await priced.apply(replay)
    assert (again.state, again.applied) == ("applied", 6)
    again = await priced.shown()
    assert (again.changes, again.summary["sums"]) == (0, {})
    assert (await priced.apply(again)).applied == 0
    assert len(await priced.adjustments()) == 6


async def test_a_second_list_mends_what_the_first_made_of_it(priced: Past):
    """Reckoned from the mended price."""
    await priced.put(10, 3)
    await priced.apply(await priced.shown())
    second = await priced.apply(await priced.shown(prices={"cup": RIGHT - 1}))
    assert second.summary["sums"] == {"USD": {"total": (difference(3) // 50) - 2 * 3}}
    order = await PostgresOrders(priced.database).load((await priced.changes(second))[0].key["order"])
    assert order.adjusted_total <= order.total


async def test_a_rate_holds_for_adjusting_as_well(priced: Past):
    """Each adjustment is an event that others have to take in."""
    await priced.put(40, 40)
    replay = await priced.shown()
    await priced.database.execute("UPDATE replays SET rate_per_s = 40")
    began = monotonic()
    assert (await priced.apply(replay)).applied == 40
    assert monotonic() - began > 0.7


async def test_the_world_moved_and_nothing_is_changed(priced: Past):
    """Two were shown; one was applied; the other has to be shown again."""
    await priced.put(20, 6)
    first, second = await priced.shown(), await priced.shown(prices={"cup": 640})
    await priced.apply(second)
    before = await priced.adjustments()
    refused = await priced.apply(first)
    assert (refused.state, refused.applied) == ("refused", 0)
    assert "show this one again" in (refused.error or "")
    assert await priced.adjustments() == before
    with pytest.raises(Refused):
        await priced.apply(refused)


async def test_an_order_that_became_affected_meanwhile_is_noticed(priced: Past):
    """What was not shown is not applied, and nothing else is either."""
    await priced.put(20, 6)
    replay = await priced.shown()
    await put(
        priced.url, [Kind((("cup", 1, WRONG),), ACCEPTED)], until=priced.until, spread=timedelta(seconds=1)
    )
    refused = await priced.apply(replay)
    assert (refused.state, refused.error) == (
        "refused", "21 orders were accepted in that time, and 20 were read.",
    )  # fmt: skip
    assert await priced.adjustments() == []


async def test_an_order_that_comes_to_something_else_is_named(priced: Past):
    """Were it moved by hand, the look before the first adjustment would find it."""
    await priced.put(20, 6)
    replay = await priced.shown()
    victim = (await priced.changes(replay))[4].key["order"]
    await priced.database.execute("UPDATE orders SET total = total - 1 WHERE id = $1", victim)
    refused = await priced.apply(replay)
    assert refused.state == "refused"
    assert (refused.error or "").startswith(victim)
    assert await priced.adjustments() == []


async def test_an_order_that_moved_on_is_adjusted_where_it_is(priced: Past):
    """Cancelled, or carried on, between being shown and applied: its price was wrong all the same."""
    await priced.put(3, 3)
    replay = await priced.shown()
    accepted = priced.ids[2]
    order = await PostgresOrders(priced.database).record(accepted, c.CancelOrder())
    assert (await priced.apply(replay)).applied == 3
    found = await PostgresOrders(priced.database).load(accepted)
    assert (found.status, found.version) == (order.status, order.version + 1)
    assert found.adjusted_total - found.total == 5 * (RIGHT - WRONG)


async def test_one_price_list_is_applied_at_a_time(priced: Past):
    """Nothing moves between the look and the last adjustment."""
    await priced.put(20, 6)
    first, second = await priced.shown(), await priced.shown()
    async with priced.database.transaction() as connection:
        await replays.ask_to_apply(connection, first.id)
    with pytest.raises(Refused) as refused:
        await priced.apply(second)
    assert refused.value.refusal.code == "replay-not-now"
    assert (await priced.carry(first.id)).state == "applied"


async def test_orders_that_cannot_be_adjusted_are_left_out_and_named(priced: Past):
    """Another currency, or a total that no order may have."""
    await priced.put(4, 2)
    euros = Kind((("cup", 1, WRONG),), CANCELLED, currency="EUR")
    many = Kind((("cup", 100, WRONG),), ACCEPTED)
    strange = await put(priced.url, [euros, many], until=priced.until, spread=timedelta(seconds=1))
    replay = await priced.shown(prices={"cup": 1_000_000})
    assert replay.changes == 2
    assert replay.summary["left_out"] == {"currency-differs": 1, "total-too-large": 1}
    assert [words.split(":")[0] for words in replay.summary["left_out_first"]] == strange
    assert (await priced.apply(replay)).applied == 2


async def test_one_order_can_be_mended_alone(priced: Past):
    """`--order`."""
    await priced.put(20, 6)
    everything = await priced.changes(await priced.shown())
    one = everything[3].key["order"]
    replay = await priced.shown(order_id=one)
    assert (replay.total, [change.key["order"] for change in await priced.changes(replay)]) == (1, [one])


async def test_a_span_that_is_left_open_ends_when_the_replay_begins(priced: Past):
    """What is accepted afterwards is in no replay that was shown before."""
    await priced.put(10, 3)
    priced.since = priced.until = None
    replay = await priced.shown()
    await put(priced.url, [Kind((("cup", 1, WRONG),), ACCEPTED)],
              until=datetime.now(UTC) + timedelta(minutes=5), spread=timedelta(seconds=1))  # fmt: skip
    assert (await priced.apply(replay)).applied == 3


async def test_documents_of_final_orders_show_the_adjustment_at_once(priced: Past, redis_url: str):
    """They are kept for an hour, because nothing else changes a final order; consumers may be away."""
    await priced.put(6, 6)
    orders = PostgresOrders(priced.database)
    async with open_redis(redis_url, None, "test", "test") as clients:
        documents = Documents(clients, "test")
        await documents.put_all([await orders.load(each) for each in priced.ids])
        priced.engine = Engine(priced.database, {"reprice": Reprice(documents)}, batch_events=4)
        await priced.apply(await priced.shown())
        for each in priced.ids:
            assert await documents.get(each) == encode_order(await orders.load(each))


async def test_a_redis_that_is_away_holds_nothing_up(priced: Past):
    """Readers ask PostgreSQL then, and the consumers write the documents."""
    await priced.put(6, 6)
    async with open_redis("redis://127.0.0.1:1", None, "test", "test") as clients:
        priced.engine = Engine(priced.database, {"reprice": Reprice(Documents(clients, "test"))})
        assert (await priced.apply(await priced.shown())).applied == 6


PRICE = {"sku": "cup", "price": {"amount": 1, "currency": "USD"}}


@pytest.mark.parametrize(
    ("parameters", "pointer"),
    [
        ({}, "/parameters/prices"),
        ({"prices": []}, "/parameters/prices"),
        ({"prices": [PRICE, PRICE]}, "/parameters/prices/1"),
        ({"prices": [PRICE | {"sku": "a cup"}]}, "/parameters/prices/0"),
        ({"prices": [PRICE | {"price": 1}]}, "/parameters"),
        ({"prices": [PRICE], "price_list": ""}, "/parameters/price_list"),
        ({"prices": [PRICE], "name": "march"}, "/parameters"),
    ],
)
def test_a_list_with_something_wrong_in_it_is_refused_before_anything_is_read(parameters, pointer):
    """With the place of it."""
    with pytest.raises(Refused) as refused:
        check(Asked("reprice", Selection(), parameters), HANDLERS)
    assert [fault.pointer for fault in refused.value.refusal.faults] == [pointer]
    check(Asked("reprice", Selection(), {"prices": [PRICE]}), HANDLERS)


def test_only_acceptances_are_replayed():
    """Other types say nothing of prices."""
    with pytest.raises(Refused):
        check(Asked("reprice", Selection(type="order.completed.v1"), {"prices": [PRICE]}), HANDLERS)
