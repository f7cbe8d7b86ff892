"""Many orders adjusted in one transaction: rows, events, chains and outbox, whoever comes in between."""

import asyncio

import asyncpg
import pytest

from app.contracts.price_lists import PriceList
from app.domain import commands as c
from app.domain.errors import Refused
from app.domain.money import Money
from app.domain.order import Order
from app.domain.reprice import Repricing
from app.infra.postgres.pool import Connection
from app.infra.postgres.repricing import Change, adjust_all, reckon
from tests.integration.postgres.shop import Shop, at_once, to_complete, to_confirm, to_undo

MARCH = PriceList("march", {"cup": Money(650, "USD"), "spoon": Money(60, "USD")})


async def adjust(shop: Shop, changes: list[Change], replay: str = "rpl_1") -> list:
    """Adjust in a transaction of its own."""
    async with shop.database.transaction() as connection:
        return await adjust_all(connection, replay, MARCH, changes)


async def shown(shop: Shop, *order_ids: str) -> list[Change]:
    """What is shown of these orders."""
    async with shop.database.connection() as connection:
        found = await reckon(connection, order_ids, MARCH.prices)
    return [Change(each.order.id, each.outcome.before, each.outcome.after) for each in found]


async def three(shop: Shop) -> list[str]:
    """Orders in three statuses."""
    await shop.stock("cup", 700, east=50)
    await shop.stock("spoon", 50, east=50)
    accepted = await shop.accept(("cup", 2))
    completed = await shop.confirmed(("cup", 1), ("spoon", 3))
    await shop.record(completed.id, *to_complete(completed))
    cancelled = await shop.confirmed(("spoon", 1))
    cancelled = await shop.record(cancelled.id, c.CancelOrder())
    await shop.record(cancelled.id, *to_undo(cancelled))
    return [accepted.id, completed.id, cancelled.id]


async def test_orders_of_any_status_are_adjusted_together(shop: Shop):
    """Each by what differs in it; rows, chains and outbox are held against each other by the audit."""
    ids = await three(shop)
    before = [await shop.orders.load(each) for each in ids]
    adjusted = {order.id: order for order in await adjust(shop, await shown(shop, *ids))}
    assert [adjusted[each].adjusted_total - adjusted[each].total for each in ids] == [-100, -50 + 30, 10]
    after = [await shop.orders.load(each) for each in ids]
    assert after == [adjusted[each] for each in ids]
    assert [order.version for order in after] == [order.version + 1 for order in before]
    assert [order.status for order in after] == [order.status for order in before]


async def test_adjusting_again_changes_nothing(shop: Shop):
    """A batch that was committed and not heard of is done again, with some that were not in it."""
    ids = await three(shop)
    changes = await shown(shop, *ids)
    await adjust(shop, changes[:2])
    first = {order.id: order for order in await adjust(shop, changes)}
    again = {order.id: order for order in await adjust(shop, changes)}
    assert first == again
    assert await shop.count("price_adjustments") == 3


async def test_one_order_that_is_not_as_it_was_shown_stops_all(shop: Shop):
    """Nothing of the batch is written."""
    ids = await three(shop)
    changes = await shown(shop, *ids)
    await adjust(shop, [next(x for x in changes if x.order_id == ids[1])], "rpl_0")
    with pytest.raises(Refused) as refused:
        await adjust(shop, changes)
    assert refused.value.refusal.code == "total-moved"
    assert refused.value.refusal.detail.startswith(ids[1])
    assert await shop.count("price_adjustments") == 1


async def test_an_order_that_is_not_there_stops_all(shop: Shop):
    """Orders are never deleted, so somebody is in the wrong database."""
    ids = await three(shop)
    with pytest.raises(LookupError, match="ord_gone"):
        await adjust(shop, [*await shown(shop, *ids), Change("ord_gone", 1, 2)])


async def test_two_at_once_adjust_once(shop: Shop):
    """Whoever comes second waits for the first, and finds it done."""
    ids = await three(shop)
    changes = await shown(shop, *ids)
    await asyncio.gather(adjust(shop, changes), adjust(shop, changes[::-1]), adjust(shop, changes))
    assert await shop.count("price_adjustments") == 3


async def test_steps_of_the_order_go_on_in_between(shop: Shop):
    """The version moves from outside between any two steps; what is charged is what was agreed."""
    await shop.stock("cup", 700, east=5)
    order = await shop.reserved(("cup", 2))
    (change,) = await shown(shop, order.id)
    await adjust(shop, [change])
    order = await shop.record(
        order.id, c.RecordIntent("pi_1"), c.RecordAuthorization("pi_1", order.total),
        *(c.RecordBooking(f.id, "shp_1", None) for f in order.fulfilments),
    )  # fmt: skip
    assert order.status == "confirmed"
    await adjust(shop, [Change(order.id, 1300, 1300)], "rpl_2")  # nothing differs any more
    order = await shop.record(order.id, *to_complete(order))
    assert (order.status, order.payment.captured, order.adjusted_total) == ("completed", 1400, 1300)
    assert len(order.adjustments) == 1


async def test_orders_are_carried_on_while_they_are_adjusted(shop: Shop):
    """Steps and batches wait for each other's orders, and neither undoes the other."""
    await shop.stock("cup", 700, east=50)
    orders = [await shop.reserved(("cup", 1)) for _ in range(12)]
    changes = await shown(shop, *(order.id for order in orders))

    async def carry(order: Order) -> None:
        confirmed = await shop.record(order.id, *to_confirm(order))
        await shop.record(order.id, *to_complete(confirmed))

    batches = [changes[n : n + 4] for n in range(0, 12, 4)]
    outcomes = await at_once([*map(carry, orders), *(adjust(shop, batch) for batch in batches)])
    assert [outcome for outcome in outcomes if isinstance(outcome, BaseException)] == []
    for order in orders:
        found = await shop.orders.load(order.id)
        assert (found.status, found.payment.captured, found.adjusted_total) == ("completed", 700, 650)


async def test_an_order_is_adjusted_alone_as_well(shop: Shop):
    """By the way that every other command takes."""
    await shop.stock("cup", 700, east=5)
    order = await shop.accept(("cup", 1))
    order = await shop.record(order.id, c.RepriceOrder("rpl_1", "march", {**MARCH.prices}, 700, 650))
    assert order == await shop.orders.load(order.id)


async def test_what_cannot_be_adjusted_says_why(shop: Shop):
    """An order in another currency is told apart from one that does not differ."""
    await shop.stock("cup", 700, east=5)
    order = await shop.accept(("cup", 1))
    euros = {"cup": Money(650, "EUR")}
    async with shop.database.connection() as connection:
        (found,) = await reckon(connection, [order.id], euros)
        (same,) = await reckon(connection, [order.id], {"cup": Money(700, "USD")})
    assert found.outcome.code == "currency-differs"
    assert same.outcome == Repricing(700, 700, ())


TWICE = """
INSERT INTO price_adjustments
    (order_id, replay_id, id, price_list, sequence, currency, total_before, total_after, created_at)
SELECT order_id, replay_id, 'adj_x', price_list, sequence, currency, 1, 2, now() FROM price_adjustments
"""


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        (TWICE, asyncpg.UniqueViolationError),
        ("UPDATE price_adjustments SET total_after = 0", asyncpg.RaiseError),
        ("DELETE FROM price_adjustments", asyncpg.RaiseError),
    ],
)
async def test_the_database_itself_keeps_adjustments_single_and_as_they_are(
    shop: Shop, other: Connection, statement: str, error: type[Exception]
):
    """Not even a defect of ours adjusts an order twice by one replay."""
    ids = await three(shop)
    await adjust(shop, await shown(shop, *ids))
    with pytest.raises(error):
        await other.execute(statement)
