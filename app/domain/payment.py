"""The money of one order: what is held, taken and given back, kept apart from the order's status.

Amounts are minor units of the order's currency.
"""

from enum import StrEnum

import msgspec


class PaymentStatus(StrEnum):
    """Where the order's payment stands."""

    PENDING = "pending"
    NOT_REQUIRED = "not_required"
    AUTHORIZED = "authorized"
    CAPTURED = "captured"
    VOIDED = "voided"
    REFUNDED = "refunded"
    DECLINED = "declined"


class Decline(msgspec.Struct, frozen=True):
    """The provider's refusal in its own words."""

    code: str
    decline_code: str | None
    detail: str


class Payment(msgspec.Struct, frozen=True):
    """Three sums that never mix: what is held now, what was taken, what was given back.

    `intent` is the provider's id, stored before anything can be charged.
    `key_number` ends the provider's idempotency keys (`pay:<order>:<operation>:<n>`); it grows only when
    the provider itself has worn a key out, never with an attempt of ours.
    """

    status: PaymentStatus
    authorized: int = 0
    captured: int = 0
    refunded: int = 0
    intent: str | None = None
    key_number: int = 1
    decline: Decline | None = None

    @property
    def may_hold_money(self) -> bool:
        """Whether the provider holds or has money of the customer that was not given back, or may have.

        From the moment its intent is stored a pending payment may be charged without our knowing.
        """
        return self.status in {PaymentStatus.AUTHORIZED, PaymentStatus.CAPTURED} or (
            self.status is PaymentStatus.PENDING and self.intent is not None
        )


def idempotency_key(order: str, operation: str, number: int) -> str:
    """The provider's key for one operation on an order; the same however often it is tried."""
    return f"pay:{order}:{operation}:{number}"
