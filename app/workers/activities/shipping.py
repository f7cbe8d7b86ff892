"""Shipping: book parcels, let them go, follow them, call them off. The carrier knows them by our ids.

Releasing commits the point of no return first and tells the carrier then: if the process dies between the
two, the next try tells it again. Cancelling leaves a parcel that no late booking can bring back.
"""

from temporalio import activity

from app.contracts import temporal as t
from app.domain import commands as c
from app.domain.decide import live
from app.domain.errors import Refusal, Refused
from app.domain.events import Reason
from app.domain.fulfilment import Fulfilment, FulfilmentStatus
from app.domain.order import Order, Status
from app.domain.ports import Carrier, Orders, ShipmentStatus
from app.workers.activities.progress import begin, final, granted, may_be_undone, progress


class ShippingActivities:
    """Steps on the `shipping` queue."""

    def __init__(self, orders: Orders, carrier: Carrier) -> None:
        """Work on these orders with this carrier."""
        self._orders = orders
        self._carrier = carrier

    @activity.defn(name=t.BOOK_SHIPMENTS)
    async def book_shipments(self, step: t.Step) -> t.Progress:
        """Have every parcel promised; the last one confirms the order."""
        order = await self._orders.load(begin(step))
        planned = [f for f in order.fulfilments if f.status is FulfilmentStatus.PLANNED]
        address = await self._orders.address(order.id) if planned else None
        for parcel in planned:
            if order.status is not Status.ACCEPTED:
                break
            try:
                shipment = await self._carrier.book(
                    parcel.plan, address=address, correlation_id=step.correlation_id
                )
            except Refused as refused:
                detail = refused.refusal.detail
                return progress(order, Reason("undeliverable", detail, provider_code=refused.refusal.code))
            command = c.RecordBooking(parcel.id, shipment.id, shipment.tracking_number)
            order = granted(await self._orders.record(order.id, command))
        return progress(order)

    @activity.defn(name=t.RELEASE_SHIPMENTS)
    async def release_shipments(self, step: t.Step) -> t.Progress:
        """Pass the point of no return unless a cancellation was first; let the carrier have the parcels."""
        order_id = begin(step)
        answer = await self._orders.record(order_id, c.ReleaseOrder())
        if isinstance(answer, Refusal):
            return progress(await self._orders.load(order_id))
        order = answer
        for parcel in order.fulfilments:
            if parcel.status is FulfilmentStatus.BOOKED:
                await self._released(parcel)
                order = granted(await self._orders.record(order_id, c.RecordDispatch(parcel.id)))
        return progress(order)

    @activity.defn(name=t.TRACK_SHIPMENTS)
    async def track_shipments(self, step: t.Step) -> t.Progress:
        """Ask the carrier about every parcel on its way, and put deliveries on record."""
        order = await self._orders.load(begin(step))
        for parcel in live(order):
            shipment = await self._carrier.track(parcel.id)
            if shipment is None or shipment.status is ShipmentStatus.CANCELLED:
                known = "cancelled it" if shipment else "does not know it"
                raise final(Refusal("shipment-lost", f"{parcel.id} was released, but the carrier {known}."))
            if shipment.status is ShipmentStatus.DELIVERED:
                order = granted(await self._orders.record(order.id, c.RecordDelivery(parcel.id)))
        return progress(order)

    @activity.defn(name=t.CANCEL_SHIPMENTS)
    async def cancel_shipments(self, step: t.Step) -> t.Progress:
        """Call off every parcel, also one whose booking may have happened without our knowing."""
        order = await self._orders.load(begin(step))
        may_be_undone(order)
        for parcel in live(order):
            await self._called_off(order, parcel)
            order = granted(await self._orders.record(order.id, c.RecordShipmentCancelled(parcel.id)))
        return progress(order)

    async def _released(self, parcel: Fulfilment) -> None:
        try:
            await self._carrier.release(parcel.id)
        except Refused as refused:
            raise final(refused.refusal) from refused

    async def _called_off(self, order: Order, parcel: Fulfilment) -> None:
        try:
            if await self._carrier.cancel(parcel.id) is not None:
                return
        except Refused as refused:
            raise final(refused.refusal) from refused
        # The carrier has never heard of it, but a booking of ours may still be on its way there. Booking and
        # cancelling leaves a cancelled parcel behind, which a late booking cannot bring back.
        try:
            address = await self._orders.address(order.id)
            await self._carrier.book(parcel.plan, address=address, correlation_id=order.correlation_id)
        except Refused:
            return
        await self._carrier.cancel(parcel.id)
