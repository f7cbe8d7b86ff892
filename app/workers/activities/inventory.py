"""Inventory: reserve stock for an order, or give it back. One transaction each; twice is the same as once."""

from temporalio import activity

from app.contracts import temporal as t
from app.domain.commands import ReleaseStock
from app.domain.errors import Refusal
from app.domain.ports import Orders
from app.workers.activities.progress import begin, granted, progress


class InventoryActivities:
    """Steps on the `inventory` queue."""

    def __init__(self, orders: Orders) -> None:
        """Work on these orders."""
        self._orders = orders

    @activity.defn(name=t.RESERVE_STOCK)
    async def reserve_stock(self, step: t.Step) -> t.Progress:
        """Hold stock for every line; an order that falls short is rejected in the same transaction."""
        order_id = begin(step)
        answer = await self._orders.reserve(order_id)
        if isinstance(answer, Refusal):  # it is being cancelled, or it is over: its status says so
            answer = await self._orders.load(order_id)
        return progress(answer)

    @activity.defn(name=t.RELEASE_STOCK)
    async def release_stock(self, step: t.Step) -> t.Progress:
        """Make what was held free again."""
        return progress(granted(await self._orders.record(begin(step), ReleaseStock())))
