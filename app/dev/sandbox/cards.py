"""Stripe's test payment methods: which of them pay, which are declined and how, which ask the customer.

One table; the names, codes and messages are Stripe's (https://docs.stripe.com/testing). Pure data. A few
names are accepted beside Stripe's own, because they are what one would guess (`pm_card_chargeDeclined…` for
those that Stripe spells `pm_card_visa_chargeDeclined…`).
"""

from typing import NamedTuple


class Approved(NamedTuple):
    """The card pays."""


class Declined(NamedTuple):
    """The card says no: the error's `code`, its finer `decline_code`, and the words for people."""

    code: str
    decline_code: str | None
    message: str


class AsksCustomer(NamedTuple):
    """The card wants its holder to authenticate (3-D Secure)."""


Outcome = Approved | Declined | AsksCustomer

AUTHENTICATION_REQUIRED = Declined(
    "authentication_required",
    "authentication_required",
    "Your card was declined. This transaction requires authentication.",
)
_SAYS_NO = "Your card was declined."


def _declined(decline_code: str, message: str = _SAYS_NO) -> Declined:
    return Declined("card_declined", decline_code, message)


_DECLINES: dict[str, Declined] = {
    "": _declined("generic_decline"),
    "InsufficientFunds": _declined("insufficient_funds", "Your card has insufficient funds."),
    "LostCard": _declined("lost_card"),
    "StolenCard": _declined("stolen_card"),
    "Fraudulent": _declined("fraudulent"),
    "VelocityLimitExceeded": _declined("card_velocity_exceeded"),
    "ExpiredCard": Declined("expired_card", None, "Your card has expired."),
    "IncorrectCvc": Declined("incorrect_cvc", None, "Your card's security code is incorrect."),
    "ProcessingError": Declined(
        "processing_error", None, "An error occurred while processing your card. Try again in a little bit."
    ),
}
_BRANDS = (
    "visa", "visa_debit", "mastercard", "mastercard_debit", "mastercard_prepaid", "amex", "discover",
    "diners", "jcb", "unionpay",
)  # fmt: skip

PAYMENT_METHODS: dict[str, Outcome] = {
    **{f"pm_card_{brand}": Approved() for brand in _BRANDS},
    **{f"pm_card_chargeDeclined{why}": outcome for why, outcome in _DECLINES.items()},
    **{f"pm_card_visa_chargeDeclined{why}": outcome for why, outcome in _DECLINES.items()},
    "pm_card_radarBlock": _DECLINES["Fraudulent"],
    "pm_card_chargeCustomerFail": _DECLINES[""],
    "pm_card_authenticationRequired": AsksCustomer(),
    "pm_card_authenticationRequiredOnSetup": AsksCustomer(),
    "pm_card_threeDSecure2Required": AsksCustomer(),
}
