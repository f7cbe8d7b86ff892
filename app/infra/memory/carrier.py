"""`InMemoryCarrier`: the port `Carrier` with a dictionary for a carrier.

For tests and experiments in one process. A parcel moves when a test says so (`move`), and calls can be told
to fail before or after the work. Everything is forgotten when the process dies.
"""

from collections import Counter
from itertools import count
from typing import NamedTuple

from msgspec.structs import replace

from app.domain.errors import Refusal, Refused
from app.domain.fulfilment import FulfilmentPlan
from app.domain.ports import Address, Shipment, ShipmentStatus

UNDELIVERABLE_COUNTRY = "XX"


class Booked(NamedTuple):
    """What `book` was told."""

    plan: FulfilmentPlan
    address: Address | None
    correlation_id: str


class _Fault(NamedTuple):
    operation: str
    error: Exception
    after_work: bool


class InMemoryCarrier:
    """Fulfils the port `Carrier`."""

    def __init__(self) -> None:
        """Begin with no parcels."""
        self.shipments: dict[str, Shipment] = {}
        self.booked: dict[str, Booked] = {}
        self.calls: Counter[str] = Counter()
        self._faults: list[_Fault] = []
        self._numbers = count(1)

    def fail(self, operation: str, error: Exception, *, after_work: bool = False) -> None:
        """Raise `error` from the next call of `operation` that has not been told to fail yet."""
        self._faults.append(_Fault(operation, error, after_work))

    def move(self, reference: str, status: ShipmentStatus) -> Shipment:
        """Let a parcel come to `status`, as the carrier's drivers would."""
        return self._keep(replace(self.shipments[reference], status=status))

    async def book(self, plan: FulfilmentPlan, *, address: Address | None, correlation_id: str) -> Shipment:
        """Promise a parcel."""
        self._count("book", after_work=False)
        if address is not None and address.country == UNDELIVERABLE_COUNTRY:
            raise Refused(Refusal("undeliverable-address", "We do not deliver to this country."))
        known = self.shipments.get(plan.id)
        if known is None:
            number = next(self._numbers)
            self.booked[plan.id] = Booked(plan, address, correlation_id)
            known = self._keep(Shipment(f"shp_{number}", plan.id, ShipmentStatus.BOOKED, f"MEM{number:08}"))
        elif known.status is ShipmentStatus.CANCELLED:
            raise Refused(Refusal("cancelled", "This shipment was cancelled."))
        elif _content(self.booked[plan.id].plan) != _content(plan):
            raise Refused(Refusal("booked-otherwise", "This reference was booked with another content."))
        self._count("book", after_work=True)
        return known

    async def release(self, reference: str) -> Shipment:
        """Take it along."""
        self._count("release", after_work=False)
        known = self.shipments.get(reference)
        if known is None:
            raise Refused(Refusal("unknown-shipment", "No shipment has this reference."))
        if known.status is ShipmentStatus.CANCELLED:
            raise Refused(Refusal("cancelled", "This shipment was cancelled."))
        if known.status is ShipmentStatus.BOOKED:
            known = self._keep(replace(known, status=ShipmentStatus.RELEASED))
        self._count("release", after_work=True)
        return known

    async def cancel(self, reference: str) -> Shipment | None:
        """Call it off."""
        self._count("cancel", after_work=False)
        known = self.shipments.get(reference)
        if known is None:
            return None
        if known.status not in {ShipmentStatus.BOOKED, ShipmentStatus.CANCELLED}:
            raise Refused(Refusal("already-released", f"This shipment is {known.status}."))
        known = self._keep(replace(known, status=ShipmentStatus.CANCELLED))
        self._count("cancel", after_work=True)
        return known

    async def track(self, reference: str) -> Shipment | None:
        """Where it is."""
        self._count("track", after_work=False)
        return self.shipments.get(reference)

    def _keep(self, shipment: Shipment) -> Shipment:
        self.shipments[shipment.reference] = shipment
        return shipment

    def _count(self, operation: str, *, after_work: bool) -> None:
        """Count a call, and fail it where a test said so."""
        if not after_work:
            self.calls[operation] += 1
        for fault in self._faults:
            if fault.operation == operation and fault.after_work == after_work:
                self._faults.remove(fault)
                raise fault.error


def _content(plan: FulfilmentPlan) -> tuple[str, list[tuple[str, int]]]:
    """What makes two bookings the same one."""
    return plan.warehouse, sorted((line.sku, line.quantity) for line in plan.lines)
