"""`InMemoryOrders`: the port `Orders` with the real domain behind it and a dictionary for a database.

For tests and experiments in one process: it decides like the real one, keeps the events, and forgets
everything when the process dies.
"""

from collections import Counter
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from app.domain import events as e
from app.domain.commands import Command, RecordReservation, RejectOrder
from app.domain.decide import decide, evolve_all, note
from app.domain.errors import Refusal
from app.domain.order import Order, Status, StockStatus
from app.domain.ports import Address
from app.domain.stock import Shortage, allocate


class InMemoryOrders:
    """Fulfils the port `Orders`."""

    def __init__(self, stock: dict[tuple[str, str], int] | None = None) -> None:
        """Begin with `stock`: (SKU, warehouse) → pieces."""
        self.orders: dict[str, Order] = {}
        self.events: dict[str, list[e.OrderEvent]] = {}
        self.addresses: dict[str, Address] = {}
        self.available = Counter(stock or {})

    def add(self, order: Order, event: e.OrderAccepted) -> None:
        """Take a placed order."""
        self.orders[order.id] = order
        self.events[order.id] = [event]

    async def load(self, order_id: str) -> Order:
        """One order. Raises LookupError."""
        return self.orders[order_id]

    async def address(self, order_id: str) -> Address | None:
        """Where it goes, if a test said so in `addresses`."""
        return self.addresses.get(order_id)

    async def record(self, order_id: str, command: Command) -> Order | Refusal:
        """Decide and keep what follows."""
        order = self.orders[order_id]
        decision = decide(order, command)
        if isinstance(decision, Refusal):
            return decision
        after = evolve_all(note(order, command), decision, datetime.now(UTC))
        self.orders[order_id] = after
        self.events[order_id].extend(decision)
        for event in decision:
            self._move_stock(event)
        return after

    async def reserve(self, order_id: str) -> Order | Refusal:
        """Reserve stock, or reject naming what is short."""
        order = self.orders[order_id]
        if order.stock is not StockStatus.NONE or order.status is not Status.ACCEPTED:
            return await self.record(order_id, RecordReservation(()))
        shelves: dict[str, list[tuple[str, int]]] = {}
        for (sku, warehouse), pieces in sorted(self.available.items()):
            shelves.setdefault(sku, []).append((warehouse, pieces))
        plans = allocate(order.id, order.lines, shelves)
        if isinstance(plans, Shortage):
            detail = "Not enough in stock of " + ", ".join(plans.skus) + "."
            return await self.record(order_id, RejectOrder(e.Reason("out_of_stock", detail, skus=plans.skus)))
        return await self.record(order_id, RecordReservation(plans))

    async def set_waiting(self, order_id: str, waiting_on: str) -> bool:
        """Say what an open order waits for, unless it moved within the last second."""
        order = self.orders[order_id]
        if order.is_final or order.updated_at > datetime.now(UTC) - timedelta(seconds=1):
            return False
        self.orders[order_id] = replace(order, waiting_on=waiting_on)
        return True

    def _move_stock(self, event: e.OrderEvent) -> None:
        sign = {e.InventoryReserved: -1, e.InventoryReleased: 1}.get(type(event), 0)
        for plan in getattr(event, "fulfilments", ()):
            for line in plan.lines:
                self.available[line.sku, plan.warehouse] += sign * line.quantity
