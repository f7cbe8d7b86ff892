"""Orders that were sold at a wrong price: what they should have come to, and how that is recorded."""

import json

import hypothesis.strategies as st
import pytest
from hypothesis import given
from msgspec.structs import replace

from app.contracts.documents import encode_order, etag
from app.domain import events as e
from app.domain.decide import decide
from app.domain.errors import Refusal
from app.domain.ledger import transfers
from app.domain.money import AMOUNT_MAX, Money
from app.domain.reprice import Repricing, reprice
from tests.unit import orders as o
from tests.unit.orders import ID, PRICES, REPRICED, TOTAL, after, line, obeyed, placed, usd

CUPS = e.RepricedLine("cup", 2, usd(700), usd(650))


def refusal(order, command) -> str:
    """The code of the refusal that a command meets."""
    decision = decide(order, command)
    assert isinstance(decision, Refusal), decision
    return decision.code


def test_an_order_is_reckoned_with_the_prices_of_the_list_and_its_own_where_the_list_is_silent():
    """Cups are on the list, spoons are not; what else is on it does not matter."""
    assert reprice(placed(), PRICES) == Repricing(TOTAL, TOTAL - 100, (CUPS,))


def test_an_order_without_a_wrong_price_has_no_line_that_differs():
    """Neither one with nothing from the list, nor one that was sold at its price."""
    assert reprice(placed(("spoon", 3)), PRICES) == Repricing(150, 150, ())
    assert reprice(placed(), {"cup": usd(700)}) == Repricing(TOTAL, TOTAL, ())


def test_the_event_says_everything_that_refunding_needs():
    """What it came to, what it comes to, what differs and why: no other row has to be read."""
    _, events = obeyed(placed(), REPRICED)
    assert events == (
        e.OrderRepriced(
            f"adj_{ID[4:]}_1", "rpl_1", "march", usd(TOTAL), usd(TOTAL - 100), usd(-100), (CUPS,)
        ),
    )


@pytest.mark.parametrize("way", [(), o.CONFIRMED, o.COMPLETED, o.CANCELLED, o.REJECTED])
def test_what_was_agreed_and_charged_stays(way):
    """Totals, payment and status are what they were; the adjustment stands beside them."""
    order = after(placed(), *way)
    adjusted = after(order, REPRICED)
    assert replace(adjusted, adjustments=()) == replace(
        order, version=order.version + 1, updated_at=adjusted.updated_at
    )
    assert (adjusted.total, adjusted.adjusted_total) == (TOTAL, TOTAL - 100)


def test_an_adjustment_moves_no_money():
    """The ledger hears of it when the difference is given back."""
    _, events = obeyed(after(placed(), *o.COMPLETED), REPRICED)
    assert transfers(events[0]) == ()


def test_a_step_under_way_goes_on_as_if_nothing_had_happened():
    """The version moved from outside; what is authorized, captured and delivered is what was agreed."""
    order = placed()
    for number, command in enumerate(o.COMPLETED):
        order = after(order, replace(REPRICED, replay=f"rpl_{number}", total_before=order.adjusted_total,
                                     total_after=order.adjusted_total - 2,
                                     prices={"cup": usd(699 - number)}), command)  # fmt: skip
    assert (order.status, order.payment.captured) == ("completed", TOTAL)
    assert len(order.adjustments) == len(o.COMPLETED)


def test_the_same_replay_adjusts_an_order_once():
    """Asked again, nothing happens; asked for another total, it is refused."""
    order = after(placed(), REPRICED)
    assert decide(order, REPRICED) == ()
    other = replace(REPRICED, total_before=TOTAL - 100, total_after=TOTAL - 200, prices={"cup": usd(600)})
    assert refusal(order, other) == "already-adjusted"


def test_another_replay_of_the_same_prices_finds_nothing_to_adjust():
    """It reckons from what the order comes to now."""
    order = after(placed(), REPRICED)
    assert reprice(order, PRICES) == Repricing(TOTAL - 100, TOTAL - 100, ())
    again = replace(REPRICED, replay="rpl_2", total_before=TOTAL - 100)
    assert decide(order, again) == ()


def test_a_second_list_is_reckoned_on_top_of_the_first():
    """Only what differs from the mended price is recorded."""
    order = after(placed(), REPRICED)
    second = replace(
        REPRICED,
        replay="rpl_2",
        prices={"cup": usd(650), "spoon": usd(60)},
        total_before=TOTAL - 100,
        total_after=TOTAL - 100 + 3 * 10,
    )
    order, (event,) = obeyed(order, second)
    assert event.lines == (e.RepricedLine("spoon", 3, usd(50), usd(60)),)
    assert [made.id for made in order.adjustments] == [f"adj_{ID[4:]}_1", f"adj_{ID[4:]}_2"]
    assert order.adjusted_total == TOTAL - 70


def test_an_order_is_adjusted_to_what_was_shown_or_not_at_all():
    """Whoever was shown other totals, before or after, has to look again."""
    for shown in ({"total_before": TOTAL + 1}, {"total_after": TOTAL}, {"prices": {"cup": usd(640)}}):
        assert refusal(placed(), replace(REPRICED, **shown)) == "total-moved"


def test_a_price_in_another_currency_is_refused():
    """Nothing is converted."""
    assert refusal(placed(), replace(REPRICED, prices={"cup": Money(650, "EUR")})) == "currency-differs"


def test_a_total_that_no_order_may_have_is_refused():
    """Not even a correction makes an order larger than can be paid at once."""
    assert refusal(placed(), replace(REPRICED, prices={"cup": usd(AMOUNT_MAX)})) == "total-too-large"
    most = replace(REPRICED, prices={"cup": usd(0), "spoon": usd(AMOUNT_MAX // 3)})
    assert after(placed(), replace(most, total_after=AMOUNT_MAX)).adjusted_total == AMOUNT_MAX


def test_an_order_that_waits_goes_on_waiting():
    """Being repriced is no move."""
    waiting = replace(placed(), waiting_on="payments")
    assert after(waiting, REPRICED).waiting_on == "payments"


def test_differences_that_cancel_each_other_are_still_recorded():
    """The sum is the same, the lines are not."""
    prices = {"cup": usd(685), "spoon": usd(60)}
    order, (event,) = obeyed(placed(), replace(REPRICED, prices=prices, total_after=TOTAL))
    assert (event.difference, len(event.lines), order.adjusted_total) == (usd(0), 2, TOTAL)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), min_size=1, max_size=6),
    st.lists(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 999).map(usd)), max_size=5),
)
def test_whatever_the_lists_say_the_last_total_is_that_of_the_last_prices(lines, lists):
    """Adjustments follow one another without a gap, and their differences add up."""
    order = replace(
        placed(), lines=tuple(line(*each) for each in lines), total=sum(n * 100 for _, n in lines)
    )
    prices = {"a": 100, "b": 100, "c": 100}
    for number, listed in enumerate(lists):
        found = reprice(order, listed)
        shown = (found.before, found.after)
        order = after(order, replace(REPRICED, replay=f"rpl_{number}", prices=listed,
                                     total_before=shown[0], total_after=shown[1]))  # fmt: skip
        prices |= {sku: price.amount for sku, price in listed.items()}
    assert order.adjusted_total == sum(n * prices[sku] for sku, n in lines)
    assert order.adjusted_total == order.total + sum(made.difference for made in order.adjustments)
    assert all(a.after == b.before for a, b in zip(order.adjustments, order.adjustments[1:], strict=False))


def test_readers_see_the_adjustments_beside_what_was_agreed():
    """And those of orders without any see the bytes that they have always seen."""
    order = after(placed(), *o.COMPLETED)
    shown = json.loads(encode_order(after(order, REPRICED)))
    assert shown.pop("price_adjustments") == [
        {
            "id": f"adj_{ID[4:]}_1",
            "price_list": "march",
            "replay": "rpl_1",
            "total_before": {"amount": TOTAL, "currency": "USD"},
            "total_after": {"amount": TOTAL - 100, "currency": "USD"},
            "difference": {"amount": -100, "currency": "USD"},
            "lines": [
                {
                    "sku": "cup",
                    "quantity": 2,
                    "unit_price_before": {"amount": 700, "currency": "USD"},
                    "unit_price_after": {"amount": 650, "currency": "USD"},
                }
            ],
            "created_at": "2026-03-01T12:00:05.250000Z",
        }
    ]
    assert shown == json.loads(encode_order(order)) | {"version": order.version + 1}
    assert b"price_adjustments" not in encode_order(order)
    assert etag(order.version + 1, None) != etag(order.version, None)
