"""Takes orders through their life as the worker does, so that the gateway has something to show."""

from app.domain.commands import Command, RecordAuthorization, RecordBooking, RecordIntent, ReleaseOrder
from app.domain.errors import Refusal
from app.domain.order import Order
from tests.integration.gateway.served import Gateway


async def record(gateway: Gateway, order_id: str, command: Command) -> Order:
    """Put a step on record."""
    order = await gateway.services.orders.record(order_id, command)
    assert not isinstance(order, Refusal), order
    return order


async def confirm(gateway: Gateway, order_id: str) -> Order:
    """Reserve, authorize, book."""
    order = await gateway.services.orders.reserve(order_id)
    assert not isinstance(order, Refusal), order
    if order.total:
        await record(gateway, order_id, RecordIntent("pi_test"))
        order = await record(gateway, order_id, RecordAuthorization("pi_test", order.total))
    for fulfilment in order.fulfilments:
        booking = RecordBooking(fulfilment.id, f"shp_{fulfilment.id}", "TRK1")
        order = await record(gateway, order_id, booking)
    assert order.status == "confirmed"
    return order


async def dispatch(gateway: Gateway, order_id: str) -> Order:
    """Confirm, then release."""
    await confirm(gateway, order_id)
    return await record(gateway, order_id, ReleaseOrder())
