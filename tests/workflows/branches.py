"""Every branch of an order's way, each as a short story; the replay tests keep their histories."""

from collections.abc import Awaitable, Callable

from app.contracts.temporal import SIGNAL_RETRY
from app.domain.errors import Refusal, Refused
from app.domain.payment import PaymentStatus
from app.domain.ports import Address, ShipmentStatus
from tests.workflows.world import World

Branch = Callable[[World], Awaitable[str]]
"""Plays a branch in a world whose workers run; the order's id."""


async def completed(world: World) -> str:
    """Reserved, paid, booked, released, delivered."""
    order = await world.start("tea")
    await world.until(lambda: world.order(order).payment.status is PaymentStatus.CAPTURED)
    await world.deliver(order)
    return order


async def completed_from_two_warehouses(world: World) -> str:
    """Two parcels; it is not over with the first."""
    order = await world.start("tea", "cup")
    await world.until(lambda: world.order(order).payment.status is PaymentStatus.CAPTURED)
    await world.deliver(order)
    return order


async def completed_for_nothing(world: World) -> str:
    """What costs nothing needs no payment."""
    order = await world.start("tea", price=0)
    await world.until(lambda: world.order(order).status == "dispatched")
    await world.deliver(order)
    return order


async def completed_unheard(world: World) -> str:
    """The carrier delivers and says nothing: the workflow asks."""
    order = await world.start("tea")
    await world.until(lambda: world.order(order).payment.status is PaymentStatus.CAPTURED)
    for fulfilment in world.order(order).fulfilments:
        world.carrier.provider.move(fulfilment.id, ShipmentStatus.DELIVERED)
    return order


async def completed_after_an_outage(world: World) -> str:
    """Payments are down for a while: the order says that it waits, and goes on by itself."""
    world.payments.is_down = True
    order = await world.start("tea")
    await world.until(lambda: world.order(order).waiting_on == "payments")
    world.payments.is_down = False
    await world.until(lambda: world.order(order).payment.status is PaymentStatus.CAPTURED)
    await world.deliver(order)
    return order


async def completed_after_the_carrier_was_away(world: World) -> str:
    """The same with the carrier."""
    world.carrier.is_down = True
    order = await world.start("tea")
    await world.until(lambda: world.order(order).waiting_on == "shipping")
    world.carrier.is_down = False
    await world.until(lambda: world.order(order).payment.status is PaymentStatus.CAPTURED)
    await world.deliver(order)
    return order


async def completed_with_the_operators_help(world: World) -> str:
    """The provider refuses to capture for good; somebody mends it and says so."""
    world.payments.faults["capture"] = [Refused(Refusal("expired", "The authorization has expired."))]
    order = await world.start("tea")
    await world.until(lambda: world.order(order).waiting_on == "operator")
    await world.handle(order).signal(SIGNAL_RETRY)
    await world.until(lambda: world.order(order).payment.status is PaymentStatus.CAPTURED)
    await world.deliver(order)
    return order


async def rejected_out_of_stock(world: World) -> str:
    """Eleven wanted, ten there."""
    return await world.start("tea", quantity=11)


async def rejected_declined(world: World) -> str:
    """The card is declined; the stock is free again."""
    return await world.start("tea", method="pm_card_chargeDeclined")


async def rejected_undeliverable(world: World) -> str:
    """The carrier will not go there; payment and stock are undone."""
    world.payments.is_down = True
    order = await world.start("tea")
    world.orders.addresses[order] = Address("Nobody", "Nowhere 1", "Nowhere", "0", "XX")
    world.payments.is_down = False
    return order


async def cancelled_at_once(world: World) -> str:
    """Cancelled before anything was done."""
    world.payments.is_down = True
    order = await world.start("tea")
    await world.cancel(order)
    world.payments.is_down = False
    return order


async def cancelled_while_it_waits(world: World) -> str:
    """Cancelled while payments are down."""
    world.payments.is_down = True
    order = await world.start("tea")
    await world.until(lambda: world.order(order).waiting_on == "payments")
    await world.cancel(order)
    world.payments.is_down = False
    return order


async def cancelled_after_paying(world: World) -> str:
    """Cancelled while the carrier is down: the hold on the money is given up."""
    world.carrier.is_down = True
    order = await world.start("tea")
    await world.until(lambda: world.order(order).waiting_on == "shipping")
    await world.cancel(order)
    world.carrier.is_down = False
    return order


async def cancelled_through_temporal(world: World) -> str:
    """Somebody cancels the workflow: the order is cancelled, nothing is left behind."""
    world.payments.is_down = True
    order = await world.start("tea")
    await world.until(lambda: world.order(order).waiting_on == "payments")
    await world.handle(order).cancel()
    await world.until(lambda: world.order(order).status in {"cancelling", "cancelled"})
    world.payments.is_down = False
    return order


async def completed_though_cancelled_too_late(world: World) -> str:
    """Somebody cancels the workflow of an order that is on its way: it goes on."""
    order = await world.start("tea")
    await world.until(lambda: world.order(order).payment.status is PaymentStatus.CAPTURED)
    await world.handle(order).cancel()
    await world.deliver(order)
    return order


BRANCHES: dict[str, tuple[Branch, str]] = {
    branch.__name__: (branch, branch.__name__.split("_")[0])
    for branch in (
        completed,
        completed_from_two_warehouses,
        completed_for_nothing,
        completed_unheard,
        completed_after_an_outage,
        completed_after_the_carrier_was_away,
        completed_with_the_operators_help,
        rejected_out_of_stock,
        rejected_declined,
        rejected_undeliverable,
        cancelled_at_once,
        cancelled_while_it_waits,
        cancelled_after_paying,
        cancelled_through_temporal,
        completed_though_cancelled_too_late,
    )
}
"""Name → how it is played, and the order's final status."""
