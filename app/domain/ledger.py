"""The double-entry ledger: every movement of money is a transfer with a debit and a credit of one amount.

A transfer cannot be unbalanced, so for every currency debits equal credits by construction.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Final

import msgspec

from app.domain.events import OrderEvent, PaymentAuthorized, PaymentCaptured, PaymentRefunded, PaymentVoided


class Account(StrEnum):
    """What the provider holds for us and against whom; what we have taken and for what."""

    AUTHORIZATIONS = "authorizations"
    AUTHORIZATIONS_CONTRA = "authorizations_contra"
    PROVIDER_BALANCE = "provider_balance"
    REVENUE = "revenue"


class Transfer(msgspec.Struct, frozen=True):
    """`amount` minor units, more than zero, from `credit` to `debit`."""

    debit: Account
    credit: Account
    amount: int


def _authorized(amount: int) -> tuple[Transfer, ...]:
    return (Transfer(Account.AUTHORIZATIONS, Account.AUTHORIZATIONS_CONTRA, amount),)


def _voided(amount: int) -> tuple[Transfer, ...]:
    return (Transfer(Account.AUTHORIZATIONS_CONTRA, Account.AUTHORIZATIONS, amount),)


def _captured(amount: int) -> tuple[Transfer, ...]:
    return (*_voided(amount), Transfer(Account.PROVIDER_BALANCE, Account.REVENUE, amount))


def _refunded(amount: int) -> tuple[Transfer, ...]:
    return (Transfer(Account.REVENUE, Account.PROVIDER_BALANCE, amount),)


_TRANSFERS: Final[dict[type, Callable[[int], tuple[Transfer, ...]]]] = {
    PaymentAuthorized: _authorized,
    PaymentVoided: _voided,
    PaymentCaptured: _captured,
    PaymentRefunded: _refunded,
}


def transfers(event: OrderEvent) -> tuple[Transfer, ...]:
    """The movements of money that an event stands for; most stand for none."""
    if not isinstance(event, PaymentAuthorized | PaymentVoided | PaymentCaptured | PaymentRefunded):
        return ()
    amount = event.amount.amount
    return _TRANSFERS[type(event)](amount) if amount else ()
