"""Every order that any sequence of commands can make, and every command to each: nothing is sampled.

Commands come in every flavour that matters: right and wrong amounts, both parcels and one that does not
exist, a stale key number. Two orders are the same here when they differ in version and times only.
"""

import re
from collections import Counter
from functools import cache
from typing import NamedTuple

import msgspec
import pytest
from msgspec.structs import replace

from app.domain import commands as c
from app.domain.decide import decide, evolve_all, note
from app.domain.errors import Refusal
from app.domain.events import OrderEvent, OrderRepriced
from app.domain.fulfilment import FulfilmentStatus
from app.domain.ledger import Account, transfers
from app.domain.order import FINAL, Order, Status, StockStatus
from app.domain.payment import PaymentStatus
from tests.unit.orders import AT, FIRST, INTENT, PLANS, REASON, REPRICED, SECOND, TOTAL, free, placed

UNKNOWN = FIRST.removesuffix("1") + "7"

COMMANDS: tuple[c.Command, ...] = (
    c.RecordReservation(PLANS),
    c.RejectOrder(REASON),
    c.RecordIntent(INTENT),
    c.WearOutKey(1),
    c.RecordAuthorization(INTENT, TOTAL),
    c.RecordAuthorization(INTENT, TOTAL - 1),
    c.RecordDecline("card_declined", None, "Declined."),
    *(c.RecordBooking(parcel, f"shp_{parcel}", None) for parcel in (FIRST, SECOND, UNKNOWN)),
    c.ReleaseOrder(),
    *(c.RecordDispatch(parcel) for parcel in (FIRST, SECOND, UNKNOWN)),
    c.RecordCapture(TOTAL),
    c.RecordCapture(TOTAL - 1),
    *(c.RecordDelivery(parcel) for parcel in (FIRST, SECOND, UNKNOWN)),
    c.CancelOrder(),
    *(c.RecordShipmentCancelled(parcel) for parcel in (FIRST, SECOND, UNKNOWN)),
    c.RecordVoid(),
    c.RecordRefund(TOTAL),
    c.RecordRefund(TOTAL - 1),
    c.ReleaseStock(),
    c.CloseOrder(),
    c.CloseOrder(REASON),
    REPRICED,
    replace(REPRICED, total_after=TOTAL),
)


class Answer(NamedTuple):
    """What a command does to an order: the refusal or the events, and the order after it."""

    before: Order
    command: c.Command
    refusal: Refusal | None
    events: tuple[OrderEvent, ...]
    after: Order


def timeless(order: Order) -> Order:
    """The order without what every event changes."""
    return replace(order, version=0)


def obey(order: Order, command: c.Command) -> Answer:
    """Do what an adapter does; an event that cannot happen raises here."""
    decision = decide(order, command)
    if isinstance(decision, Refusal):
        return Answer(order, command, decision, (), order)
    after = evolve_all(note(order, command), decision, AT)
    assert after.version == order.version + len(decision)
    return Answer(order, command, None, decision, timeless(after))


def fingerprint(order: Order) -> bytes:
    """The same for orders that are the same."""
    return msgspec.json.encode(order)


@cache
def answers() -> list[Answer]:
    """The answer of each reachable order to each command."""
    told: dict[bytes, list[Answer]] = {}
    waiting = [timeless(placed()), timeless(free())]
    while waiting:
        order = waiting.pop()
        if fingerprint(order) not in told:
            told[fingerprint(order)] = [obey(order, command) for command in COMMANDS]
            waiting += [answer.after for answer in told[fingerprint(order)]]
    return [answer for each in told.values() for answer in each]


@cache
def reachable() -> list[Order]:
    """Each reachable order once."""
    return list({fingerprint(answer.before): answer.before for answer in answers()}.values())


def test_the_commands_of_this_list_are_all_there_are():
    """A new command is not forgotten here."""
    assert {type(command) for command in COMMANDS} == set(c.Command.__args__)


def test_every_status_is_reached_but_the_one_nothing_leads_to():
    """The walk is not blind to a part of the domain."""
    assert {order.status for order in reachable()} == set(Status) - {Status.ACTION_REQUIRED}
    assert len(reachable()) > 500


@pytest.mark.parametrize("command", COMMANDS, ids=repr)
def test_an_order_that_needs_action_answers_every_command(command: c.Command):
    """Nothing leads there yet, but an order that got there by hand gives answers and no errors."""
    for order in reachable():
        obey(replace(order, status=Status.ACTION_REQUIRED), command)


def test_refusals_can_be_read_by_programs_and_people():
    """A slug and a sentence."""
    refusals = {answer.refusal for answer in answers() if answer.refusal}
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", refusal.code) for refusal in refusals)
    assert all(refusal.detail.endswith(".") for refusal in refusals)


def test_doing_it_twice_is_doing_it_once():
    """What was granted is granted again, and nothing happens."""
    for answer in answers():
        if answer.refusal is None:
            again = obey(answer.after, answer.command)
            assert (again.refusal, again.events) == (None, ()), answer
            assert again.after == answer.after, answer


def test_final_means_settled():
    """At the end nothing is reserved, held, or under way, and nobody has the customer's money unduly."""
    for order in reachable():
        if order.status in FINAL:
            assert order.stock is not StockStatus.RESERVED
            assert order.payment.authorized == 0
            assert order.payment.status is not PaymentStatus.AUTHORIZED
            assert not (order.payment.status is PaymentStatus.PENDING and order.payment.intent)
            if order.status is Status.COMPLETED:
                assert (order.payment.captured, order.payment.refunded) == (order.total, 0)
                assert order.stock is StockStatus.SHIPPED
                assert order.all_fulfilments(FulfilmentStatus.DELIVERED)
            else:
                assert order.payment.captured == order.payment.refunded
                allowed = {FulfilmentStatus.PLANNED, FulfilmentStatus.CANCELLED}
                assert {parcel.status for parcel in order.fulfilments} <= allowed


def test_nothing_but_another_price_happens_after_the_end():
    """An order that is final answers, and stays what it is."""
    for answer in answers():
        if answer.before.status in FINAL:
            assert answer.events == () or answer.command is REPRICED
            assert answer.after.status is answer.before.status


def test_a_wrong_price_can_be_mended_whatever_the_status_and_changes_nothing_else():
    """Once, from and to what was shown; what was agreed, what is held and what is under way stay."""
    for answer in answers():
        if answer.command is REPRICED and answer.before.total == TOTAL:
            assert answer.refusal is None
            assert [type(event) for event in answer.events] == [OrderRepriced] * (
                not answer.before.adjustments
            )
            assert replace(answer.after, adjustments=()) == replace(answer.before, adjustments=())
            assert answer.after.adjusted_total == TOTAL - 100


def test_only_repricing_adjusts():
    """No step of an order's way adds an adjustment, or loses one."""
    for answer in answers():
        if answer.command is not REPRICED:
            assert answer.after.adjustments == answer.before.adjustments


def test_what_the_domain_draws_itself_is_never_late():
    """No order waits for a confirmation or a completion whose conditions are all met."""
    for order in reachable():
        confirmed = (
            order.stock is StockStatus.RESERVED
            and order.payment.status in {PaymentStatus.AUTHORIZED, PaymentStatus.NOT_REQUIRED}
            and order.all_fulfilments(FulfilmentStatus.BOOKED)
        )
        assert confirmed == (order.status is Status.CONFIRMED) or order.status is Status.CANCELLING, order
        if order.status is Status.DISPATCHED:
            delivered = order.all_fulfilments(FulfilmentStatus.DELIVERED)
            assert not (delivered and order.payment.status is not PaymentStatus.AUTHORIZED), order


def test_stock_leaves_with_the_order_that_is_dispatched_and_with_no_other():
    """Dispatched and cancelled exclude each other, for goods as for words."""
    for order in reachable():
        gone = order.status in {Status.DISPATCHED, Status.COMPLETED}
        assert gone == (order.stock is StockStatus.SHIPPED), order


def test_a_cancellation_is_granted_until_dispatch_and_refused_from_then_on():
    """One point of no return."""
    answered = {
        Status.ACCEPTED: Status.CANCELLING,
        Status.CONFIRMED: Status.CANCELLING,
        Status.CANCELLING: Status.CANCELLING,
        Status.CANCELLED: Status.CANCELLED,
        Status.DISPATCHED: "too-late",
        Status.COMPLETED: "too-late",
        Status.REJECTED: "not-cancellable",
    }
    for order in reachable():
        answer = obey(order, c.CancelOrder())
        assert (answer.refusal.code if answer.refusal else answer.after.status) == answered[order.status]


def test_no_order_is_stuck():
    """From everywhere some commands lead to an end: no refusal is for ever on every way."""
    before: dict[bytes, set[bytes]] = {}
    for answer in answers():
        before.setdefault(fingerprint(answer.after), set()).add(fingerprint(answer.before))
    ends = {fingerprint(order) for order in reachable() if order.status in FINAL}
    leads_to_an_end, waiting = set(ends), list(ends)
    while waiting:
        new = before.get(waiting.pop(), set()) - leads_to_an_end
        leads_to_an_end |= new
        waiting += new
    assert [order for order in reachable() if fingerprint(order) not in leads_to_an_end] == []


def test_the_books_say_what_the_payment_says():
    """What each step moves in the ledger is what it changes of the sums that the order shows."""
    for answer in answers():
        moved: Counter[Account] = Counter()
        for event in answer.events:
            for transfer in transfers(event):
                assert transfer.amount > 0
                moved[transfer.debit] += transfer.amount
                moved[transfer.credit] -= transfer.amount
        was, now = answer.before.payment, answer.after.payment
        assert sum(moved.values()) == 0
        assert moved[Account.AUTHORIZATIONS] == now.authorized - was.authorized, answer
        assert moved[Account.AUTHORIZATIONS_CONTRA] == -moved[Account.AUTHORIZATIONS]
        assert moved[Account.PROVIDER_BALANCE] == now.captured - now.refunded - was.captured + was.refunded
        assert moved[Account.REVENUE] == -moved[Account.PROVIDER_BALANCE]


def test_sums_stay_between_nothing_and_the_total():
    """No more is held or taken than the order costs, and no more given back than was taken."""
    for order in reachable():
        payment = order.payment
        assert 0 <= payment.refunded <= payment.captured <= order.total
        assert 0 <= payment.authorized <= order.total


def test_an_order_that_costs_nothing_moves_no_money():
    """Nothing is authorized, captured or given back for it."""
    for order in reachable():
        if order.total == 0:
            assert order.payment.status is PaymentStatus.NOT_REQUIRED
            assert (order.payment.authorized, order.payment.captured, order.payment.refunded) == (0, 0, 0)


def test_lines_and_totals_never_change():
    """What was accepted is what is carried out."""
    for answer in answers():
        assert (answer.after.lines, answer.after.total) == (answer.before.lines, answer.before.total)


def test_a_step_forward_is_refused_while_the_order_is_being_cancelled():
    """A step that comes too late neither reserves nor lets go."""
    for order in reachable():
        if order.status is Status.CANCELLING:
            assert obey(order, c.ReleaseOrder()).refusal
            assert order.stock is not StockStatus.NONE or obey(order, c.RecordReservation(PLANS)).refusal


def test_nothing_can_be_charged_once_an_order_is_given_up():
    """An intent that is not stored before the cancellation is not stored after it, so nobody confirms it."""
    for order in reachable():
        if order.status is not Status.ACCEPTED:
            assert obey(order, c.RecordIntent("pi_late")).after.payment.intent == order.payment.intent


def test_a_worn_out_key_is_replaced_once():
    """Two tries that met the same stored failure move on to the same next key."""
    for order in reachable():
        answer = obey(order, c.WearOutKey(order.payment.key_number))
        assert answer.after.payment.key_number == order.payment.key_number + 1
        assert obey(answer.after, c.WearOutKey(order.payment.key_number)).after == answer.after
