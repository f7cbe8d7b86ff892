"""A shop on a database: products on shelves, and orders that are placed and taken through their steps."""

import asyncio
import itertools
import os
import time
from collections.abc import Awaitable, Iterable
from datetime import UTC, datetime
from typing import TypeVar

from msgspec.structs import replace

from app.contracts.documents import encode_order
from app.domain import commands as c
from app.domain.errors import Refusal
from app.domain.events import OrderAccepted, Reason
from app.domain.ids import order_id
from app.domain.money import Money
from app.domain.order import Order, Status, StockStatus
from app.domain.place import place
from app.infra.postgres.catalogue import Adjustment, Cause, PostgresCatalogue
from app.infra.postgres.intake import Answer, Intake, Request
from app.infra.postgres.orders import PostgresOrders
from app.infra.postgres.pool import Database

R = TypeVar("R")

CONNECTIONS = 20
INTENT = "pi_1"
REASON = Reason("payment_declined", "Declined.")


class Shop:
    """What gateway and worker do, without HTTP and without Temporal."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.catalogue = PostgresCatalogue(database)
        self.intake = Intake(database)
        self.orders = PostgresOrders(database)
        self._numbers = itertools.count(1)

    async def stock(self, sku: str, price: int = 700, **pieces: int) -> None:
        """A product, and how many pieces of it are in each warehouse."""
        await self.catalogue.put(sku, sku.title(), Money(price, "USD"), Cause("cor_stock"))
        for warehouse, delta in pieces.items():
            await self.adjust(sku, warehouse, delta)

    async def adjust(self, sku: str, warehouse: str, delta: int) -> None:
        """Somebody counts, receives or writes off."""
        request = self.request(f"POST /v1/inventory/{sku}/adjustments")
        wanted = Adjustment(sku, warehouse, delta, "counted")
        await self.catalogue.adjust(request, wanted, Cause("cor_stock"), lambda _: b"{}")

    def request(self, route: str = "POST /v1/orders", key: str | None = None, body: bytes = b"") -> Request:
        """A request under a key of its own, unless one is given."""
        return Request("key_1", route, key or f"key-{next(self._numbers)}", body)

    async def placed(self, *lines: tuple[str, int]) -> tuple[Order, OrderAccepted]:
        """An order that nobody has stored yet."""
        wanted = tuple(c.WantedLine(*line) for line in lines)
        products = await self.catalogue.products(line.sku for line in wanted)
        # Whether it can be had is not asked here: that is found out when it is reserved.
        products = {sku: replace(product, available=1) for sku, product in products.items()}
        name = order_id(time.time_ns() // 1_000_000, os.urandom(10))
        command = c.PlaceOrder("cus_1", "USD", wanted, "pm_card_visa", None)
        answer = place(command, name, products, f"cor_{name}", datetime.now(UTC))
        assert not isinstance(answer, Refusal), answer
        return answer

    async def accept(self, *lines: tuple[str, int]) -> Order:
        """An order that is ours."""
        order, event = await self.placed(*lines)
        await self.intake.accept(
            self.request(), order, event, self.answer(order), address=None, traceparent=None
        )
        return order

    def answer(self, order: Order) -> Answer:
        """What the gateway says to whoever placed it."""
        return Answer(202, f"/v1/orders/{order.id}", encode_order(order))

    async def record(self, order_id: str, *commands: c.Command) -> Order:
        """Commands that are all granted."""
        assert commands
        for command in commands:
            answer = await self.orders.record(order_id, command)
            assert not isinstance(answer, Refusal), (command, answer)
        return answer

    async def reserved(self, *lines: tuple[str, int]) -> Order:
        """An order with its stock."""
        order = await self.accept(*lines)
        answer = await self.orders.reserve(order.id)
        assert not isinstance(answer, Refusal)
        assert answer.stock is StockStatus.RESERVED
        return answer

    async def confirmed(self, *lines: tuple[str, int]) -> Order:
        """An order that is ready to go."""
        order = await self.reserved(*lines)
        return await self.record(order.id, *to_confirm(order))

    async def shelf(self, sku: str, warehouse: str) -> tuple[int, int]:
        """Pieces on hand, and how many of them are reserved."""
        statement = "SELECT on_hand, reserved FROM stock WHERE sku = $1 AND warehouse = $2"
        (row,) = await self.database.fetch(statement, sku, warehouse)
        return row["on_hand"], row["reserved"]

    async def count(self, table: str) -> int:
        """Rows of a table."""
        (row,) = await self.database.fetch(f"SELECT count(*) FROM {table}")
        return row["count"]


def to_confirm(order: Order) -> tuple[c.Command, ...]:
    """What confirms a reserved order."""
    paid = (c.RecordIntent(INTENT), c.RecordAuthorization(INTENT, order.total)) if order.total else ()
    return (*paid, *(c.RecordBooking(f.id, f"shp_{f.id}", "T1") for f in order.fulfilments))


def to_complete(order: Order) -> tuple[c.Command, ...]:
    """What completes a confirmed order."""
    return (
        c.ReleaseOrder(),
        *(c.RecordDispatch(f.id) for f in order.fulfilments),
        *([c.RecordCapture(order.total)] if order.total else []),
        *(c.RecordDelivery(f.id) for f in order.fulfilments),
    )


def to_undo(order: Order) -> tuple[c.Command, ...]:
    """What settles an order that is being given up."""
    reason = None if order.status is Status.CANCELLING else REASON
    cancelled = (c.RecordShipmentCancelled(f.id) for f in order.fulfilments)
    return (*cancelled, c.RecordVoid(), c.ReleaseStock(), c.CloseOrder(reason))


async def at_once(work: Iterable[Awaitable[R]]) -> list[R | BaseException]:
    """As much of it together as there are connections; what each came to, errors too.

    More would wait for a connection and not for one another, and be turned away where the machine is slow.
    """
    places = asyncio.Semaphore(CONNECTIONS)

    async def one(something: Awaitable[R]) -> R:
        async with places:
            return await something

    return await asyncio.gather(*map(one, work), return_exceptions=True)
