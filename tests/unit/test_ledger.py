"""The ledger: each movement has two sides, and the accounts say what the payments say."""

from collections import Counter

import hypothesis.strategies as st
import pytest
from hypothesis import given

from app.domain import events as e
from app.domain.ledger import Account, transfers
from app.domain.money import AMOUNT_MAX
from tests.unit import orders as o
from tests.unit.orders import INTENT, TOTAL, obeyed, placed, usd

AMOUNTS = st.integers(1, AMOUNT_MAX)
KINDS = [e.PaymentAuthorized, e.PaymentVoided, e.PaymentCaptured, e.PaymentRefunded]


def balances(events: list[e.OrderEvent]) -> Counter[Account]:
    """Debits less credits of each account."""
    sums: Counter[Account] = Counter()
    for event in events:
        for transfer in transfers(event):
            sums[transfer.debit] += transfer.amount
            sums[transfer.credit] -= transfer.amount
    return sums


def whole_way(commands) -> list[e.OrderEvent]:
    """All events of an order that goes this way."""
    order, events = placed(), []
    for command in commands:
        order, more = obeyed(order, command)
        events += more
    return events


@given(st.lists(st.builds(lambda kind, amount: kind(INTENT, usd(amount)), st.sampled_from(KINDS), AMOUNTS)))
def test_debits_equal_credits_whatever_happens(events):
    """No sequence of events can unbalance the books."""
    assert sum(balances(events).values()) == 0


@given(st.sampled_from(KINDS), AMOUNTS)
def test_each_movement_is_of_the_whole_amount_between_two_accounts(kind, amount):
    """No fees, no roundings, nothing from an account to itself."""
    for transfer in transfers(kind(INTENT, usd(amount))):
        assert transfer.amount == amount
        assert transfer.debit is not transfer.credit


def test_completed_is_revenue_at_the_provider_and_nothing_held():
    """The money is ours, and it is at the provider."""
    sums = balances(whole_way(o.COMPLETED))
    assert sums[Account.PROVIDER_BALANCE] == -sums[Account.REVENUE] == TOTAL
    assert sums[Account.AUTHORIZATIONS] == sums[Account.AUTHORIZATIONS_CONTRA] == 0


def test_confirmed_is_held_and_not_ours():
    """A hold is no revenue."""
    sums = balances(whole_way(o.CONFIRMED))
    assert sums[Account.AUTHORIZATIONS] == -sums[Account.AUTHORIZATIONS_CONTRA] == TOTAL
    assert sums[Account.PROVIDER_BALANCE] == sums[Account.REVENUE] == 0


@pytest.mark.parametrize("way", [o.CANCELLED, o.REJECTED])
def test_what_is_undone_leaves_nothing_behind(way):
    """Every account is where it was."""
    assert not any(balances(whole_way(way)).values())


def test_nothing_is_moved_by_nothing():
    """A void of a payment that was never held is no transfer of zero."""
    assert transfers(e.PaymentVoided(INTENT, usd(0))) == ()


def test_only_payments_move_money():
    """Goods and words do not."""
    assert transfers(e.OrderConfirmed()) == transfers(e.InventoryShipped(o.PLANS)) == ()
    assert transfers(e.OrderAccepted("cus_1", "USD", (), usd(100))) == ()
    assert transfers(e.PaymentDeclined("card_declined", None, "")) == ()
