"""An order whose price is mended again and again while its workflow carries it: no step fails for it."""

import pytest
from temporalio.client import Client

from app.domain.commands import Command, RepriceOrder
from app.domain.errors import Refusal
from app.domain.money import Money
from app.domain.order import Order
from app.domain.reprice import Repricing, reprice
from app.infra.memory.orders import InMemoryOrders
from tests.workflows.branches import BRANCHES
from tests.workflows.world import World, connect


class Repriced(InMemoryOrders):
    """Orders of which each is repriced before anything is read or written of it."""

    async def load(self, order_id: str) -> Order:
        """One order, repriced."""
        await self._reprice(order_id)
        return await super().load(order_id)

    async def record(self, order_id: str, command: Command) -> Order | Refusal:
        """Decide on the order, repriced."""
        await self._reprice(order_id)
        return await super().record(order_id, command)

    async def _reprice(self, order_id: str) -> None:
        order = self.orders[order_id]
        number = len(order.adjustments)
        prices = {line.sku: Money(1 + number, order.currency) for line in order.lines}
        found = reprice(order, prices)
        assert isinstance(found, Repricing)
        command = RepriceOrder(f"rpl_{number}", "list", prices, found.before, found.after)
        assert isinstance(await super().record(order_id, command), Order)


@pytest.mark.parametrize("name", ["completed_from_two_warehouses", "cancelled_at_once", "rejected_declined"])
async def test_an_order_is_carried_to_its_end_under_the_price_that_was_agreed(
    temporal_address: str, temporal_namespace: str, name: str
):
    """The version moves before every step; what is charged, or given back, is what was agreed."""
    client: Client = await connect(temporal_address, temporal_namespace)
    world = World(client)
    world.orders = Repriced({("tea", "east"): 10, ("cup", "west"): 10})
    async with world.workers():
        play, status = BRANCHES[name]
        order_id = await play(world)
        assert await world.ends(order_id) == status
    order = world.order(order_id)
    assert order.status == status
    assert order.payment.captured == (order.total if status == "completed" else 0)
    assert len(order.adjustments) >= 3
    assert world.history(order_id).count("order.repriced") == len(order.adjustments)
