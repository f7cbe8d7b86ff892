"""A fulfilment: one parcel of an order, from one warehouse, and what the carrier has done with it."""

from enum import StrEnum

import msgspec


class FulfilmentStatus(StrEnum):
    """`planned` → `booked` → `dispatched` → `delivered`; `cancelled` from the first two."""

    PLANNED = "planned"
    BOOKED = "booked"
    DISPATCHED = "dispatched"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"


class FulfilmentLine(msgspec.Struct, frozen=True):
    """`quantity` pieces of one SKU in a parcel."""

    sku: str
    quantity: int


class FulfilmentPlan(msgspec.Struct, frozen=True):
    """What one warehouse will send: decided when the stock is reserved."""

    id: str
    warehouse: str
    lines: tuple[FulfilmentLine, ...]


class Fulfilment(msgspec.Struct, frozen=True):
    """A plan and how far it came; `shipment` is the carrier's id."""

    id: str
    warehouse: str
    lines: tuple[FulfilmentLine, ...]
    status: FulfilmentStatus = FulfilmentStatus.PLANNED
    shipment: str | None = None
    tracking_number: str | None = None

    @property
    def plan(self) -> FulfilmentPlan:
        """The part that was decided with the reservation."""
        return FulfilmentPlan(self.id, self.warehouse, self.lines)
