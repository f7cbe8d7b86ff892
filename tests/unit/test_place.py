"""Taking an order: prices from the catalogue, every fault named at once, nothing half taken."""

import hypothesis.strategies as st
import pytest
from hypothesis import given
from msgspec.structs import replace

from app.domain.catalogue import Product
from app.domain.errors import Fault, Refusal
from app.domain.events import AcceptedLine, Line, OrderAccepted
from app.domain.money import AMOUNT_MAX, Money
from app.domain.order import Order, Status, StockStatus
from app.domain.payment import Payment, PaymentStatus
from app.domain.place import LINES_MAX, QUANTITY_MAX, place
from tests.unit.orders import AT, CATALOGUE, ID, usd, wanted


def taken(command, catalogue=CATALOGUE):
    """What comes of a command."""
    return place(command, ID, catalogue, "cor_1", AT)


def refused(command, catalogue=CATALOGUE) -> Refusal:
    """The refusal that a command meets."""
    answer = taken(command, catalogue)
    assert isinstance(answer, Refusal)
    return answer


def test_an_order_is_accepted_at_the_catalogues_prices():
    """Version 1, with the event that says so."""
    order, event = taken(wanted(("cup", 2), ("spoon", 3)))
    lines = (Line("cup", 2, 700, 1400), Line("spoon", 3, 50, 150))
    assert order == Order(
        id=ID,
        customer_id="cus_1",
        status=Status.ACCEPTED,
        currency="USD",
        lines=lines,
        total=1550,
        payment=Payment(PaymentStatus.PENDING),
        payment_method="pm_card_visa",
        correlation_id="cor_1",
        created_at=AT,
        updated_at=AT,
        stock=StockStatus.NONE,
        version=1,
    )
    said = (AcceptedLine("cup", 2, usd(700), usd(1400)), AcceptedLine("spoon", 3, usd(50), usd(150)))
    assert event == OrderAccepted("cus_1", "USD", said, usd(1550))


def test_an_accepted_order_says_its_money_in_its_own_currency():
    """The total and each line; nothing falls back to another one."""
    _, event = taken(wanted(("tasse", 2), currency="EUR"))
    assert event.total == event.lines[0].amount == Money(1600, "EUR")
    assert event.lines[0].unit_price == Money(800, "EUR")


def test_an_order_that_costs_nothing_needs_no_payment():
    """No method is asked for, nothing will be authorized."""
    order, event = taken(wanted(("leaflet", 3), method=None))
    assert (order.payment.status, order.total, event.total) == (PaymentStatus.NOT_REQUIRED, 0, usd(0))


def test_what_costs_something_needs_a_payment_method():
    """And the field is named."""
    refusal = refused(wanted(("cup", 1), method=None))
    assert refusal.code == "invalid-request"
    assert [fault.pointer for fault in refusal.faults] == ["/payment_method"]


def test_every_fault_is_named_at_once():
    """So a caller mends a request in one go."""
    refusal = refused(wanted(("cup", 1), ("ghost", 1), ("tasse", 1), ("spoon", 0)))
    assert refusal.code == "invalid-request"
    assert refusal.faults == (
        Fault("/lines/1/sku", "There is no product with the SKU ghost."),
        Fault("/currency", "tasse is priced in EUR, not in USD."),
        Fault("/lines/3/quantity", f"A line has 1 to {QUANTITY_MAX} pieces."),
    )


@pytest.mark.parametrize("quantity", [-1, 0, QUANTITY_MAX + 1, 2**63, -(2**70)])
def test_a_quantity_that_is_no_quantity_is_refused(quantity: int):
    """Nobody buys less than one piece, or more than there are."""
    assert [fault.pointer for fault in refused(wanted(("leaflet", quantity))).faults] == ["/lines/0/quantity"]


@pytest.mark.parametrize("count", [0, LINES_MAX + 1])
def test_an_order_has_some_lines_and_not_too_many(count: int):
    """An order of nothing would have nothing to reserve and never move."""
    refusal = refused(wanted(*[("leaflet", 1)] * count))
    assert [fault.pointer for fault in refusal.faults] == ["/lines"]


def test_a_thousand_lines_are_taken():
    """The limit itself is allowed."""
    order, _ = taken(wanted(*[("leaflet", 1)] * LINES_MAX))
    assert len(order.lines) == LINES_MAX


def test_a_total_that_cannot_be_paid_at_once_is_refused():
    """The provider takes eight digits."""
    catalogue = {"house": Product("house", "House", Money(AMOUNT_MAX, "USD"), available=9), **CATALOGUE}
    assert taken(wanted(("house", 1)), catalogue)[0].total == AMOUNT_MAX
    refusal = refused(wanted(("house", 1), ("spoon", 1)), catalogue)
    assert (refusal.code, refusal.faults[0].pointer) == ("invalid-request", "/lines")
    assert refused(wanted(("house", QUANTITY_MAX)), catalogue).code == "invalid-request"


def test_a_price_that_moved_is_not_charged():
    """The caller said what he expects to pay."""
    assert not isinstance(taken(wanted(("cup", 2), total=1400)), Refusal)
    refusal = refused(wanted(("cup", 2), total=1399))
    assert (refusal.code, refusal.faults[0].pointer) == ("price-changed", "/expected_total")
    assert refused(wanted(("leaflet", 1), total=1)).code == "price-changed"


def test_a_sku_that_is_sold_out_is_refused_by_name():
    """Only what nobody can have; too little for this order is found out when it is reserved."""
    refusal = refused(wanted(("cup", 1), ("relic", 1)))
    assert refusal.code == "sold-out"
    assert refusal.faults == (Fault("/lines/1/sku", "There is not enough of relic left."),)
    assert not isinstance(taken(wanted(("cup", 11))), Refusal)


def test_what_is_wrong_is_said_before_what_is_sold_out():
    """A request that could never work is not blamed on the stock."""
    assert refused(wanted(("relic", 1), ("ghost", 1))).code == "invalid-request"
    assert refused(wanted(("relic", 1), total=1)).code == "price-changed"


skus = st.sampled_from(["cup", "spoon", "leaflet"])


@given(st.lists(st.tuples(skus, st.integers(1, 50)), min_size=1, max_size=20))
def test_amounts_add_up(lines):
    """Each line is its quantity times its price; the total is all lines; nothing is rounded."""
    order, event = taken(wanted(*lines))
    assert [(x.sku, x.quantity) for x in order.lines] == lines
    for x in order.lines:
        assert x.unit_price == CATALOGUE[x.sku].price.amount
        assert x.amount == x.quantity * x.unit_price
    assert order.total == event.total.amount == sum(x.amount for x in order.lines)
    assert [(x.sku, x.quantity, x.unit_price.amount, x.amount.amount) for x in event.lines] == [
        (x.sku, x.quantity, x.unit_price, x.amount) for x in order.lines
    ]
    assert (order.payment.status is PaymentStatus.NOT_REQUIRED) == (order.total == 0)


@given(
    st.lists(st.tuples(st.sampled_from([*CATALOGUE, "ghost"]), st.integers(-2, 3)), max_size=5), st.booleans()
)
def test_an_answer_is_an_order_or_a_refusal_with_pointers_into_the_request(lines, pays):
    """Whatever is asked, nothing is raised."""
    command = wanted(*lines, method="pm_card_visa" if pays else None)
    answer = taken(command)
    if isinstance(answer, Refusal):
        assert answer.faults
        known = {"/lines", "/currency", "/payment_method", "/expected_total"}
        known |= {f"/lines/{n}/{field}" for n in range(len(lines)) for field in ("sku", "quantity")}
        assert {fault.pointer for fault in answer.faults} <= known


def test_the_caller_brings_clock_and_dice():
    """The domain adds neither: the same question has the same answer."""
    command = wanted(("cup", 1))
    assert taken(command) == taken(replace(command))
