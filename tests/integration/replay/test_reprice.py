"""A wrong price is mended: shown first, then applied exactly as shown, to each order once."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from app.contracts.documents import encode_order
from app.domain import commands as c
from app.domain.errors import Refused
from app.infra.postgres import replays
from app.infra.postgres.orders import PostgresOrders
from app.infra.postgres.pool import Database
from app.infra.postgres.replays import Asked, Selection
from app.infra.redis.clients import open_redis
from app.infra.redis.documents import Documents
from app.replay.asking import check
from app.replay.engine import Engine
from app.replay.reprice import Reprice
from bench.history import ACCEPTED, CANCELLED, Kind, put
from tests.integration.postgres.past import verified
from tests.integration.replay.priced import HANDLERS, RIGHT, WRONG, Past, as_recorded, difference


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool on the test's database."""
    opened = await Database(database_url, size=5, name="test").open()
    yield opened
    await opened.close()


@pytest.fixture
async def past(database: Database, database_url: str) -> AsyncIterator[Past]:
    """A past, whose chains are whole when the test is over."""
    yield Past(database, database_url)
    connection = await asyncpg.connect(database_url)
    verdict = await verified(connection)
    await connection.close()
    assert verdict.is_whole, verdict.found


async def test_what_was_shown_is_what_is_applied(past: Past):
    """Every affected order once, the others not at all; sums by currency; chains whole."""
    await past.put(100, 30)
    replay = await past.shown()
    assert (replay.state, replay.total, replay.done, replay.changes) == ("shown", 100, 100, 30)
    assert replay.summary["sums"] == {"USD": {"total": difference(30)}}
    assert await past.adjustments() == []
    changes = await past.changes(replay)
    assert all(x.difference == {"total": x.after["total"] - x.before["total"]} for x in changes)
    applied = await past.apply(replay)
    assert (applied.state, applied.applied) == ("applied", 30)
    assert await past.adjustments() == as_recorded(replay, changes)
    events = await past.database.fetch("SELECT data FROM events WHERE type = 'order.repriced.v1'")
    told = [json.loads(row["data"])["difference"]["amount"] for row in events]
    assert (len(told), sum(told)) == (30, difference(30))
    outbox = await past.database.fetch("SELECT subject FROM event_outbox ORDER BY position")
    assert sorted(row["subject"] for row in outbox) == sorted(x.key["order_id"] for x in changes)


async def test_asked_at_once_it_is_shown_and_applied_in_one_go(past: Past):
    """`--apply`."""
    await past.put(20, 6)
    replay = await past.shown(is_applied=True)
    assert (replay.state, replay.applied) == ("applied", 6)


async def test_applied_again_nothing_differs(past: Past):
    """A second replay of the same list finds nothing; asking the first again is nothing new."""
    await past.put(20, 6)
    replay = await past.apply(await past.shown())
    again = await past.apply(replay)
    assert (again.state, again.applied) == ("applied", 6)
    again = await past.shown()
    assert (again.changes, again.summary["sums"]) == (0, {})
    assert (await past.apply(again)).applied == 0
    assert len(await past.adjustments()) == 6


async def test_a_second_list_mends_what_the_first_made_of_it(past: Past):
    """Reckoned from the mended price."""
    await past.put(10, 3)
    await past.apply(await past.shown())
    second = await past.apply(await past.shown(prices={"cup": RIGHT - 1}))
    assert second.summary["sums"] == {"USD": {"total": (difference(3) // 50) - 2 * 3}}
    order = await PostgresOrders(past.database).load((await past.changes(second))[0].key["order_id"])
    assert order.adjusted_total <= order.total


async def test_the_world_moved_and_nothing_is_changed(past: Past):
    """Two were shown; one was applied; the other has to be shown again."""
    await past.put(20, 6)
    first, second = await past.shown(), await past.shown(prices={"cup": 640})
    await past.apply(second)
    before = await past.adjustments()
    refused = await past.apply(first)
    assert (refused.state, refused.applied) == ("refused", 0)
    assert "show this one again" in (refused.error or "")
    assert await past.adjustments() == before
    with pytest.raises(Refused):
        await past.apply(refused)


async def test_an_order_that_became_affected_meanwhile_is_noticed(past: Past):
    """What was not shown is not applied, and nothing else is either."""
    await past.put(20, 6)
    replay = await past.shown()
    await put(past.url, [Kind((("cup", 1, WRONG),), ACCEPTED)], until=past.until, spread=timedelta(seconds=1))
    refused = await past.apply(replay)
    assert (refused.state, refused.error) == (
        "refused", "21 orders were accepted in that time, and 20 were read.",
    )  # fmt: skip
    assert await past.adjustments() == []


async def test_an_order_that_comes_to_something_else_is_named(past: Past):
    """Were it moved by hand, the look before the first adjustment would find it."""
    await past.put(20, 6)
    replay = await past.shown()
    victim = (await past.changes(replay))[4].key["order_id"]
    await past.database.execute("UPDATE orders SET total = total - 1 WHERE id = $1", victim)
    refused = await past.apply(replay)
    assert refused.state == "refused"
    assert (refused.error or "").startswith(victim)
    assert await past.adjustments() == []


async def test_an_order_that_moved_on_is_adjusted_where_it_is(past: Past):
    """Cancelled, or carried on, between being shown and applied: its price was wrong all the same."""
    await past.put(3, 3)
    replay = await past.shown()
    accepted = past.ids[2]
    order = await PostgresOrders(past.database).record(accepted, c.CancelOrder())
    assert (await past.apply(replay)).applied == 3
    found = await PostgresOrders(past.database).load(accepted)
    assert (found.status, found.version) == (order.status, order.version + 1)
    assert found.adjusted_total - found.total == 5 * (RIGHT - WRONG)


async def test_one_price_list_is_applied_at_a_time(past: Past):
    """Nothing moves between the look and the last adjustment."""
    await past.put(20, 6)
    first, second = await past.shown(), await past.shown()
    async with past.database.transaction() as connection:
        await replays.ask_to_apply(connection, first.id)
    with pytest.raises(Refused) as refused:
        await past.apply(second)
    assert refused.value.refusal.code == "replay-not-now"
    assert (await past.carry(first.id)).state == "applied"


async def test_orders_that_cannot_be_adjusted_are_left_out_and_named(past: Past):
    """Another currency, or a total that no order may have."""
    await past.put(4, 2)
    euros = Kind((("cup", 1, WRONG),), CANCELLED, currency="EUR")
    many = Kind((("cup", 100, WRONG),), ACCEPTED)
    strange = await put(past.url, [euros, many], until=past.until, spread=timedelta(seconds=1))
    replay = await past.shown(prices={"cup": 1_000_000})
    assert replay.changes == 2
    assert replay.summary["left_out"] == {"currency-differs": 1, "total-too-large": 1}
    assert [words.split(":")[0] for words in replay.summary["left_out_first"]] == strange
    assert (await past.apply(replay)).applied == 2


async def test_one_order_can_be_mended_alone(past: Past):
    """`--order`."""
    await past.put(20, 6)
    everything = await past.changes(await past.shown())
    one = everything[3].key["order_id"]
    replay = await past.shown(order_id=one)
    assert (replay.total, [change.key["order_id"] for change in await past.changes(replay)]) == (1, [one])


async def test_a_span_that_is_left_open_ends_when_the_replay_begins(past: Past):
    """What is accepted afterwards is in no replay that was shown before."""
    await past.put(10, 3)
    past.since = past.until = None
    replay = await past.shown()
    await put(past.url, [Kind((("cup", 1, WRONG),), ACCEPTED)],
              until=datetime.now(UTC) + timedelta(minutes=5), spread=timedelta(seconds=1))  # fmt: skip
    assert (await past.apply(replay)).applied == 3


async def test_documents_of_final_orders_show_the_adjustment_at_once(past: Past, redis_url: str):
    """They are kept for an hour, because nothing else changes a final order; consumers may be away."""
    await past.put(6, 6)
    orders = PostgresOrders(past.database)
    async with open_redis(redis_url, None, "test", "test") as clients:
        documents = Documents(clients, "test")
        await documents.put_all([await orders.load(each) for each in past.ids])
        past.engine = Engine(past.database, {"reprice": Reprice(documents)}, batch_events=4)
        await past.apply(await past.shown())
        for each in past.ids:
            assert await documents.get(each) == encode_order(await orders.load(each))


async def test_a_redis_that_is_away_holds_nothing_up(past: Past):
    """Readers ask PostgreSQL then, and the consumers write the documents."""
    await past.put(6, 6)
    async with open_redis("redis://127.0.0.1:1", None, "test", "test") as clients:
        past.engine = Engine(past.database, {"reprice": Reprice(Documents(clients, "test"))})
        assert (await past.apply(await past.shown())).applied == 6


PRICE = {"sku": "cup", "price": {"amount": 1, "currency": "USD"}}


@pytest.mark.parametrize(
    ("parameters", "pointer"),
    [
        ({}, "/parameters"),
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
