"""Accepts orders as the gateway does, for tests of what comes after."""

import os
import time
from datetime import UTC, datetime

from app.contracts.documents import encode_order
from app.domain.catalogue import Product
from app.domain.commands import PlaceOrder, WantedLine
from app.domain.errors import Refusal
from app.domain.ids import order_id
from app.domain.money import Money
from app.domain.order import Order
from app.domain.place import place
from app.infra.postgres.intake import Answer, Intake, Request
from app.infra.postgres.pool import Database

TEA = Product("tea", "Tea", Money(500, "USD"), 10)


async def accept(database: Database, quantity: int = 1) -> Order:
    """One accepted order of some tea."""
    new_id = order_id(time.time_ns() // 1_000_000, os.urandom(10))
    command = PlaceOrder("customer", "USD", (WantedLine("tea", quantity),), "pm_card_visa", None)
    placed = place(command, new_id, {"tea": TEA}, "correlation", datetime.now(UTC))
    assert not isinstance(placed, Refusal)
    order, event = placed
    request = Request("caller", "POST /v1/orders", new_id, b"hash")
    answer = Answer(202, f"/v1/orders/{new_id}", encode_order(order))
    await Intake(database).accept(request, order, event, answer, address=None, traceparent=None)
    return order
