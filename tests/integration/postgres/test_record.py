"""Recording what happened to an order: state, events, stock and ledger in one transaction, once."""

from datetime import UTC, datetime, timedelta

import pytest

from app.domain import commands as c
from app.domain.decide import evolve_all
from app.domain.errors import Refusal
from app.domain.events import Reason
from app.domain.order import Order, Status, StockStatus
from app.domain.payment import PaymentStatus
from tests.integration.postgres.shop import INTENT, REASON, Shop, at_once, to_complete, to_undo


async def types(shop: Shop, order: Order) -> list[str]:
    """The types of an order's events, in order."""
    rows = await shop.database.fetch("SELECT type FROM events WHERE subject = $1 ORDER BY sequence", order.id)
    return [row["type"].removesuffix(".v1") for row in rows]


async def test_an_order_goes_all_the_way(shop: Shop):
    """Each answer is what is stored, and the shelves are lighter at the end."""
    await shop.stock("cup", east=5, west=5)
    order = await shop.confirmed(("cup", 7))
    assert order.status is Status.CONFIRMED
    for command in to_complete(order):
        order = await shop.record(order.id, command)
        assert await shop.orders.load(order.id) == order
    assert order.status is Status.COMPLETED
    assert [await shop.shelf("cup", house) for house in ("east", "west")] == [(0, 0), (3, 0)]
    assert await types(shop, order) == [
        "order.accepted",
        "inventory.reserved",
        "payment.authorized",
        "shipment.booked",
        "shipment.booked",
        "order.confirmed",
        "order.dispatched",
        "inventory.shipped",
        "shipment.dispatched",
        "shipment.dispatched",
        "payment.captured",
        "shipment.delivered",
        "shipment.delivered",
        "order.completed",
    ]


async def test_an_order_that_costs_nothing_goes_all_the_way(shop: Shop):
    """Without a single movement of money."""
    await shop.stock("leaflet", price=0, east=5)
    order = await shop.confirmed(("leaflet", 5))
    order = await shop.record(order.id, *to_complete(order))
    assert (order.status, await shop.count("ledger_transfers")) == (Status.COMPLETED, 0)


async def test_a_cancelled_order_leaves_nothing_behind(shop: Shop):
    """The shelves are full again, and the books are even."""
    await shop.stock("cup", east=5)
    order = await shop.confirmed(("cup", 5))
    order = await shop.record(order.id, c.CancelOrder())
    order = await shop.record(order.id, *to_undo(order))
    assert order.status is Status.CANCELLED
    assert await shop.shelf("cup", "east") == (5, 0)
    assert await shop.count("reservations") == 0


async def test_a_declined_order_is_rejected_with_the_providers_words(shop: Shop):
    """They are kept on the order until it is closed with its reason."""
    await shop.stock("cup", east=5)
    order = await shop.reserved(("cup", 5))
    decline = c.RecordDecline("card_declined", "insufficient_funds", "Not enough money.")
    order = await shop.record(order.id, c.RecordIntent(INTENT), decline)
    assert (await shop.orders.load(order.id)).payment.decline.decline_code == "insufficient_funds"
    order = await shop.record(order.id, *to_undo(order))
    assert (order.status, order.reason) == (Status.REJECTED, REASON)
    assert await shop.shelf("cup", "east") == (5, 0)


async def test_a_refusal_writes_nothing(shop: Shop):
    """Not a version, not an event, not a note."""
    await shop.stock("cup", east=5)
    order = await shop.reserved(("cup", 1))
    for command in (
        c.ReleaseOrder(),
        c.RecordCapture(700),
        c.CloseOrder(REASON),
        c.RecordDelivery("ful_x_1"),
    ):
        assert isinstance(await shop.orders.record(order.id, command), Refusal)
    assert await shop.orders.load(order.id) == order


async def test_an_order_that_does_not_exist_is_not_found(shop: Shop):
    """Every way to it says so alike."""
    for asking in (
        shop.orders.load("ord_x"),
        shop.orders.record("ord_x", c.CancelOrder()),
        shop.orders.reserve("ord_x"),
        shop.intake.deliver("ord_x", "ful_x_1"),
        shop.intake.cancel(shop.request(), "ord_x", None, lambda _: b""),
    ):
        with pytest.raises(LookupError):
            await asking


async def test_recording_it_twenty_times_at_once_is_recording_it_once(shop: Shop):
    """Workers that were given the same step wait for one another at the order's row."""
    await shop.stock("cup", east=5)
    order = await shop.reserved(("cup", 1))
    await shop.record(order.id, c.RecordIntent(INTENT))
    (parcel,) = order.fulfilments
    steps = [
        c.RecordAuthorization(INTENT, 700),
        c.RecordBooking(parcel.id, "shp_1", None),
        c.ReleaseOrder(),
        c.RecordDispatch(parcel.id),
        c.RecordCapture(700),
        c.RecordDelivery(parcel.id),
    ]
    for step in steps:
        answers = await at_once(shop.orders.record(order.id, step) for _ in range(20))
        versions = {answer.version for answer in answers}
        assert len(versions) == 1, step
    assert (await shop.orders.load(order.id)).status is Status.COMPLETED
    assert len(set(await types(shop, order))) == len(await types(shop, order))


async def test_all_steps_at_once_end_where_they_end_one_by_one(shop: Shop):
    """Whatever comes too early is refused and asked again, as Temporal does it."""
    await shop.stock("cup", east=5, west=5)
    order = await shop.reserved(("cup", 8))
    await shop.record(order.id, c.RecordIntent(INTENT))
    steps = [
        c.RecordAuthorization(INTENT, order.total),
        *(c.RecordBooking(f.id, f.id, None) for f in order.fulfilments),
        *to_complete(order),
    ]
    for _ in range(len(steps)):
        await at_once(shop.orders.record(order.id, step) for step in steps)
    assert (await shop.orders.load(order.id)).status is Status.COMPLETED


async def test_notes_with_the_provider_are_no_events(shop: Shop):
    """The intent's id and the number of its keys are stored; the version stays."""
    await shop.stock("cup", east=5)
    order = await shop.reserved(("cup", 1))
    noted = await shop.record(order.id, c.RecordIntent(INTENT), c.WearOutKey(1))
    assert (noted.payment.intent, noted.payment.key_number, noted.version) == (INTENT, 2, order.version)
    assert await shop.orders.load(order.id) == noted
    again = await shop.record(order.id, c.RecordIntent("pi_2"), c.WearOutKey(1))
    assert again == noted


async def test_an_intent_that_comes_after_the_cancellation_is_not_stored(shop: Shop):
    """So nobody will confirm it, and the order can be closed."""
    await shop.stock("cup", east=5)
    order = await shop.reserved(("cup", 1))
    await shop.record(order.id, c.CancelOrder())
    order = await shop.record(order.id, c.RecordIntent(INTENT))
    assert order.payment.intent is None
    assert (await shop.record(order.id, *to_undo(order))).status is Status.CANCELLED


async def test_money_taken_by_hand_is_given_back_with_the_books_in_order(shop: Shop):
    """Captured at the provider while we thought it was held."""
    await shop.stock("cup", east=5)
    order = await shop.confirmed(("cup", 2))
    order = await shop.record(order.id, c.CancelOrder(), c.RecordRefund(1400))
    assert (order.payment.status, order.payment.refunded) == (PaymentStatus.REFUNDED, 1400)
    order = await shop.record(order.id, *to_undo(order))
    assert order.status is Status.CANCELLED


async def test_times_of_events_never_run_backwards(shop: Shop):
    """Also when the database's clock is set back between two of them."""
    await shop.stock("cup", east=5)
    order = await shop.reserved(("cup", 1))
    ahead = datetime.now(UTC) + timedelta(hours=1)
    await shop.database.execute("UPDATE orders SET updated_at = $2 WHERE id = $1", order.id, ahead)
    assert (await shop.record(order.id, c.CancelOrder())).updated_at == ahead


async def test_what_an_order_waits_for_is_said_once_it_stands_still_and_forgotten_when_it_moves(shop: Shop):
    """An order that has just moved waits for nobody; one that is final waits for nothing."""
    await shop.stock("cup", east=5)
    order = await shop.reserved(("cup", 1))
    assert not await shop.orders.set_waiting(order.id, "payments")
    await stand_still(shop, order)
    assert await shop.orders.set_waiting(order.id, "payments")
    waiting = await shop.orders.load(order.id)
    assert (waiting.waiting_on, waiting.version) == ("payments", order.version)
    order = await shop.record(order.id, c.CancelOrder())
    assert order.waiting_on is None
    order = await shop.record(order.id, *to_undo(order))
    await stand_still(shop, order)
    assert not await shop.orders.set_waiting(order.id, "payments")
    assert (await shop.orders.load(order.id)).waiting_on is None


async def stand_still(shop: Shop, order: Order) -> None:
    """Let the order's last move be a while ago."""
    statement = "UPDATE orders SET updated_at = updated_at - interval '2 seconds' WHERE id = $1"
    await shop.database.execute(statement, order.id)


async def test_an_order_remembers_everything_that_can_be_said_of_it(shop: Shop):
    """Texts that mean something to SQL, JSON or a shell come back as they went."""
    await shop.stock("cup", east=5)
    order = await shop.reserved(("cup", 1))
    nasty = "'; DROP TABLE orders; -- \\u0000 \\ \" \n\t \u202e 💳 $1 %s {}"
    order = await shop.record(order.id, c.RecordIntent(nasty), c.RecordDecline(nasty, nasty, nasty))
    order = await shop.record(order.id, c.ReleaseStock(), c.CloseOrder(Reason("x", nasty, (nasty,), nasty)))
    assert await shop.orders.load(order.id) == order
    assert order.stock is StockStatus.RELEASED


async def test_the_answer_of_a_command_is_the_order_as_the_next_one_finds_it(shop: Shop):
    """What `record` returns needs no second look."""
    await shop.stock("cup", east=5)
    order = await shop.reserved(("cup", 1))
    answer = await shop.record(order.id, c.CancelOrder())
    assert answer == await shop.orders.load(order.id)
    assert evolve_all(order, (), order.updated_at) == order
