"""PaymentIntents: the document that Stripe answers with, and what confirm, capture and cancel do to it.

Owns the states of one intent. Pure: changes are functions of the document and the request; storing them and
the lines they write in the ledger is the caller's (`payments.py`), in one transaction.
"""

import secrets
import string
from typing import Any

import msgspec

from app.dev.sandbox import cards
from app.dev.sandbox.forms import Form
from app.dev.sandbox.refusals import StripeRefusal, card_error, invalid, no_such_object, unexpected_state

AMOUNT_MAX = 99_999_999
CONFIRMABLE = ("requires_payment_method", "requires_confirmation", "requires_action")
CANCELABLE = ("requires_payment_method", "requires_capture", "requires_confirmation", "requires_action")
CANCELLATION_REASONS = ("duplicate", "fraudulent", "requested_by_customer", "abandoned")
_LETTERS = bytes((string.ascii_letters + string.digits).encode()[byte % 62] for byte in range(256))


def new_id(prefix: str, length: int = 24) -> str:
    """A fresh id as Stripe makes them, such as `pi_…`."""
    return prefix + secrets.token_bytes(length).translate(_LETTERS).decode()


class PaymentIntent(msgspec.Struct):
    """The public document. Amounts are in minor units, times in unix seconds."""

    id: str
    amount: int
    created: int
    currency: str
    client_secret: str
    object: str = "payment_intent"
    amount_capturable: int = 0
    amount_received: int = 0
    automatic_payment_methods: dict[str, Any] | None = None
    canceled_at: int | None = None
    cancellation_reason: str | None = None
    capture_method: str = "automatic"
    confirmation_method: str = "automatic"
    customer: str | None = None
    description: str | None = None
    last_payment_error: dict[str, Any] | None = None
    latest_charge: str | None = None
    livemode: bool = False
    metadata: dict[str, str] = {}
    next_action: dict[str, Any] | None = None
    payment_method: str | None = None
    payment_method_types: list[str] = msgspec.field(default_factory=lambda: ["card"])
    receipt_email: str | None = None
    setup_future_usage: str | None = None
    shipping: dict[str, Any] | None = None
    statement_descriptor: str | None = None
    status: str = "requires_payment_method"


class LedgerLine(msgspec.Struct, frozen=True):
    """Money that moved with a change: kind is authorized, captured or voided."""

    kind: str
    amount: int


class Change(msgspec.Struct):
    """What a request made of an intent: lines for the ledger, and the decline that is answered, if any."""

    intent: PaymentIntent
    lines: list[LedgerLine] = []
    declined: StripeRefusal | None = None


def create(form: Form, now: int) -> Change:
    """A new intent; confirmed at once when the form says so. Raises StripeRefusal."""
    amount = form.required_integer("amount", 1, AMOUNT_MAX)
    currency = form.required("currency").lower()
    if not (len(currency) == 3 and currency.isascii() and currency.isalpha()):
        raise invalid(f"Invalid currency: {currency[:20]}", "invalid_currency", "currency")
    identity = new_id("pi_3")
    intent = PaymentIntent(
        id=identity,
        amount=amount,
        created=now,
        currency=currency,
        client_secret=f"{identity}_secret_{new_id('', 25)}",
        capture_method=form.choice("capture_method", ("automatic", "automatic_async", "manual"))
        or "automatic",
        description=form.text("description"),
        metadata=form.mapping("metadata"),
        receipt_email=form.text("receipt_email"),
        statement_descriptor=form.text("statement_descriptor", length_max=22),
    )
    _take_method_types(form, intent)
    if intent.capture_method == "automatic_async":
        intent.capture_method = "automatic"
    if form.flag("confirm"):
        return confirm(intent, form)
    for name in ("off_session", "error_on_requires_action", "return_url"):
        if form.text(name) is not None:
            raise invalid(f"`{name}` can only be used together with confirm=true.", None, name)
    _take_method(form, intent)
    form.finish()
    return Change(intent)


def _take_method_types(form: Form, intent: PaymentIntent) -> None:
    types = form.items("payment_method_types")
    automatic = form.mapping("automatic_payment_methods")
    if types and automatic:
        raise invalid(
            "You may only specify one of these parameters: automatic_payment_methods, payment_method_types."
        )
    if any(kind != "card" for kind in types):
        raise invalid(
            "The payment method type provided is invalid: only card is here.", None, "payment_method_types"
        )
    if automatic:
        redirects = automatic.get("allow_redirects", "always")
        intent.automatic_payment_methods = {
            "allow_redirects": redirects,
            "enabled": automatic.get("enabled") == "true",
        }


def _take_method(form: Form, intent: PaymentIntent) -> None:
    method = form.text("payment_method")
    if method is None:
        return
    if method not in cards.PAYMENT_METHODS:
        raise no_such_object("PaymentMethod", method, "payment_method", in_path=False)
    intent.payment_method = method
    intent.status = "requires_confirmation"


def confirm(intent: PaymentIntent, form: Form) -> Change:
    """Ask the card. Raises StripeRefusal when the intent is not waiting for that."""
    if intent.status not in CONFIRMABLE:
        raise unexpected_state("confirmed", msgspec.to_builtins(intent), CONFIRMABLE)
    _take_method(form, intent)
    may_ask_customer = not (form.flag("off_session") | form.flag("error_on_requires_action"))
    return_url = form.text("return_url")
    form.finish()
    if intent.payment_method is None:
        raise invalid(
            "You cannot confirm this PaymentIntent because it's missing a payment method.",
            "payment_intent_unexpected_state",
            "payment_method",
        )
    redirects = (intent.automatic_payment_methods or {}).get("allow_redirects")
    if redirects == "always" and return_url is None:
        raise invalid(
            "This PaymentIntent accepts payment methods that may redirect: confirm it with a `return_url`, "
            "or create it with automatic_payment_methods[allow_redirects]=never or payment_method_types.",
            None,
            "return_url",
        )
    outcome = cards.PAYMENT_METHODS[intent.payment_method]
    if isinstance(outcome, cards.AsksCustomer):
        if may_ask_customer:
            intent.status = "requires_action"
            intent.next_action = {"type": "use_stripe_sdk", "use_stripe_sdk": {}}
            return Change(intent)
        outcome = cards.AUTHENTICATION_REQUIRED
    intent.next_action = None
    intent.latest_charge = new_id("ch_3")
    if isinstance(outcome, cards.Declined):
        return _decline(intent, outcome)
    return _authorize(intent)


def _decline(intent: PaymentIntent, outcome: cards.Declined) -> Change:
    refusal = card_error(outcome.code, outcome.decline_code, outcome.message, intent.latest_charge)
    method = {"id": intent.payment_method, "object": "payment_method", "type": "card"}
    intent.status = "requires_payment_method"
    intent.payment_method = None
    intent.last_payment_error = {**refusal.error, "payment_method": method}
    refusal.error["payment_method"] = method
    refusal.error["payment_intent"] = msgspec.to_builtins(intent)
    return Change(intent, declined=refusal)


def _authorize(intent: PaymentIntent) -> Change:
    lines = [LedgerLine("authorized", intent.amount)]
    intent.last_payment_error = None
    if intent.capture_method == "manual":
        intent.status = "requires_capture"
        intent.amount_capturable = intent.amount
    else:
        intent.status = "succeeded"
        intent.amount_received = intent.amount
        lines.append(LedgerLine("captured", intent.amount))
    return Change(intent, lines)


def capture(intent: PaymentIntent, form: Form) -> Change:
    """Take the authorized money, or a part of it; the rest is let go, as at Stripe."""
    if intent.status != "requires_capture":
        raise unexpected_state("captured", msgspec.to_builtins(intent), ("requires_capture",))
    amount = form.integer("amount_to_capture", 1, AMOUNT_MAX)
    intent.metadata = intent.metadata | form.mapping("metadata")
    form.finish()
    if amount is None:
        amount = intent.amount_capturable
    if amount > intent.amount_capturable:
        raise invalid(
            f"The requested capture amount is greater than what is authorized ({intent.amount_capturable}).",
            "amount_too_large",
            "amount_to_capture",
        )
    lines = [LedgerLine("captured", amount)]
    if amount < intent.amount_capturable:
        lines.append(LedgerLine("voided", intent.amount_capturable - amount))
    intent.status = "succeeded"
    intent.amount_received = amount
    intent.amount_capturable = 0
    return Change(intent, lines)


def cancel(intent: PaymentIntent, form: Form, now: int) -> Change:
    """Give the intent up; what was authorized is let go."""
    if intent.status not in CANCELABLE:
        raise unexpected_state("canceled", msgspec.to_builtins(intent), CANCELABLE)
    reason = form.choice("cancellation_reason", CANCELLATION_REASONS)
    form.finish()
    lines = [LedgerLine("voided", intent.amount_capturable)] if intent.amount_capturable else []
    intent.status = "canceled"
    intent.canceled_at = now
    intent.cancellation_reason = reason
    intent.next_action = None
    intent.amount_capturable = 0
    return Change(intent, lines)
