"""Ports: what the platform needs from the world, named by role. Adapters in `app.infra` fulfil them.

Every method is bounded in time by its adapter and raises `Unavailable` when the service did not answer:
what was asked may then have been done, so everything here is safe to ask again.
"""

from enum import StrEnum
from typing import Protocol

import msgspec

from app.domain.commands import Command
from app.domain.errors import Refusal
from app.domain.fulfilment import FulfilmentPlan
from app.domain.order import Order


class IntentStatus(StrEnum):
    """Where the provider stands with a payment."""

    UNCONFIRMED = "unconfirmed"
    PROCESSING = "processing"
    ACTION_REQUIRED = "action_required"
    AUTHORIZED = "authorized"
    CAPTURED = "captured"
    VOIDED = "voided"
    DECLINED = "declined"


class Intent(msgspec.Struct, frozen=True):
    """A payment as the provider tells it. Amounts are minor units; the codes are set when it is declined."""

    id: str
    status: IntentStatus
    amount: int
    captured: int = 0
    refunded: int = 0
    code: str | None = None
    decline_code: str | None = None
    message: str = ""


class Payments(Protocol):
    """The payment provider.

    Every method may raise `Unavailable` (unknown outcome: retrieve, then try again with the same key) and
    `KeyWornOut` (the provider replays a failure it stored under this key: take the next key).
    """

    async def create(
        self, *, order_id: str, amount: int, currency: str, payment_method: str, correlation_id: str, key: str
    ) -> Intent:
        """Tell the provider of a payment without charging anything. Raises Declined for a useless method."""
        ...

    async def confirm(self, intent: str, *, key: str) -> Intent:
        """Authorize it. Raises Declined."""
        ...

    async def capture(self, intent: str, *, amount: int, key: str) -> Intent:
        """Take the money that is held; an intent that is captured already is simply returned."""
        ...

    async def void(self, intent: str, *, key: str) -> Intent:
        """Give up the hold; an intent that is captured or voided already is returned as it is."""
        ...

    async def refund(self, intent: str, *, amount: int, key: str) -> Intent:
        """Give captured money back."""
        ...

    async def retrieve(self, intent: str) -> Intent:
        """What the provider knows of it now. Refused when it does not know it."""
        ...


class ShipmentStatus(StrEnum):
    """Where the carrier stands with a parcel."""

    BOOKED = "booked"
    RELEASED = "released"
    PICKED_UP = "picked_up"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"


class Shipment(msgspec.Struct, frozen=True):
    """A parcel as the carrier tells it; `reference` is our fulfilment's id."""

    id: str
    reference: str
    status: ShipmentStatus
    tracking_number: str | None = None


class Address(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a parcel goes. Personal data: it lives in PostgreSQL and goes to the carrier, nowhere else.

    `email`, where the customer is told what becomes of the order, does not even go to the carrier.
    """

    name: str
    line1: str
    city: str
    postal_code: str
    country: str
    line2: str | None = None
    phone: str | None = None
    email: str | None = None


class Carrier(Protocol):
    """The carrier. All methods are idempotent by our fulfilment's id; all may raise `Unavailable`."""

    async def book(self, plan: FulfilmentPlan, *, address: Address | None, correlation_id: str) -> Shipment:
        """Have a parcel promised. Raises Refused when the carrier will not take it, or it was cancelled."""
        ...

    async def release(self, reference: str) -> Shipment:
        """Let the carrier take it. Raises Refused when it was cancelled."""
        ...

    async def cancel(self, reference: str) -> Shipment | None:
        """Call it off; None when the carrier has never heard of it. Raises Refused when it was released."""
        ...

    async def track(self, reference: str) -> Shipment | None:
        """Where it is; None when the carrier has never heard of it."""
        ...


class Orders(Protocol):
    """The orders of record. Each method is one transaction; all may raise `Unavailable`."""

    async def load(self, order_id: str) -> Order:
        """One order. Raises LookupError when there is none."""
        ...

    async def address(self, order_id: str) -> Address | None:
        """Where its parcels go, if anybody said."""
        ...

    async def record(self, order_id: str, command: Command) -> Order | Refusal:
        """Lock the order, decide, write state, events, stock and ledger, commit; the order as it then is."""
        ...

    async def reserve(self, order_id: str) -> Order | Refusal:
        """Reserve stock for every line, or reject the order naming what is short."""
        ...

    async def set_waiting(self, order_id: str, waiting_on: str) -> bool:
        """Say what an open order waits for, unless it moved within the last second; whether it was said."""
        ...
