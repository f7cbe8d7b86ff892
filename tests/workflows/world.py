"""A world for one workflow: real domain, real activities, real Temporal; orders and providers in memory."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from app.contracts import temporal as t
from app.domain.catalogue import Product
from app.domain.commands import CancelOrder, PlaceOrder, RecordDelivery, WantedLine
from app.domain.errors import Declined, Refusal, Unavailable
from app.domain.events import TYPES
from app.domain.ids import order_id
from app.domain.money import Money
from app.domain.order import Order
from app.domain.place import place
from app.infra.memory.carrier import InMemoryCarrier
from app.infra.memory.orders import InMemoryOrders
from app.infra.memory.payments import InMemoryPayments
from app.infra.temporal.converter import DATA_CONVERTER
from app.workers.activities.inventory import InventoryActivities
from app.workers.activities.notifications import NotificationActivities
from app.workers.activities.orders import OrderActivities
from app.workers.activities.payments import PaymentActivities
from app.workers.activities.shipping import ShippingActivities
from app.workers.heartbeats import Heartbeats
from app.workers.outcomes import Outcomes
from app.workers.workflows.order import OrderWorkflow

SANDBOX = SandboxedWorkflowRunner(
    restrictions=SandboxRestrictions.default.with_passthrough_modules(
        "app.contracts", "app.domain", "app.workers.policies", "msgspec"
    )
)
DECLINES = {"pm_card_chargeDeclined": Declined("card_declined", "generic_decline", "Your card was declined.")}
WAIT_S = 30.0


class Switched:
    """A provider that can be switched off; whose methods can fail on request."""

    def __init__(self, provider: Any, service: str) -> None:
        self.provider = provider
        self.service = service
        self.is_down = False
        self.faults: dict[str, list[Exception]] = {}
        self.calls: dict[str, int] = {}

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any, **named: Any) -> Any:
            self.calls[name] = self.calls.get(name, 0) + 1
            if self.is_down:
                raise Unavailable(self.service, "switched off")
            if self.faults.get(name):
                raise self.faults[name].pop(0)
            return await getattr(self.provider, name)(*arguments, **named)

        return call


class World:
    """Everything one order meets."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.orders = InMemoryOrders({("tea", "east"): 10, ("cup", "west"): 10})
        self.payments = Switched(InMemoryPayments(DECLINES), "payments")
        self.carrier = Switched(InMemoryCarrier(), "shipping")

    async def start(
        self, *skus: str, quantity: int = 1, price: int = 500, method: str = "pm_card_visa"
    ) -> str:
        """Place an order and start its workflow; the order's id."""
        prices = {sku: Product(sku, sku, Money(price, "USD"), 10) for sku in skus}
        lines = tuple(WantedLine(sku, quantity) for sku in skus)
        placed = place(
            PlaceOrder("customer", "USD", lines, method, None),
            order_id(time.time_ns() // 1_000_000, os.urandom(10)),
            prices,
            "correlation",
            datetime.now(UTC),
        )
        assert not isinstance(placed, Refusal)
        self.orders.add(*placed)
        await self.client.start_workflow(
            t.ORDER_WORKFLOW,
            t.OrderInput(placed[0].id, "customer", "correlation"),
            id=t.workflow_id(placed[0].id),
            task_queue=t.QUEUE_ORDERS,
        )
        return placed[0].id

    def handle(self, order: str) -> WorkflowHandle[Any, str]:
        """An order's workflow."""
        return self.client.get_workflow_handle(t.workflow_id(order), result_type=str)

    def order(self, order: str) -> Order:
        """An order as it is now."""
        return self.orders.orders[order]

    def history(self, order: str) -> list[str]:
        """The types of an order's events."""
        return [TYPES[type(event)].removesuffix(".v1") for event in self.orders.events[order]]

    async def until(self, condition: Callable[[], object], timeout_s: float = WAIT_S) -> None:
        """Wait for something to be true."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.01)

    async def deliver(self, order: str) -> None:
        """Every parcel is delivered, on record and told."""
        for fulfilment in self.order(order).fulfilments:
            await self.orders.record(order, RecordDelivery(fulfilment.id))
            await self.handle(order).signal(t.SIGNAL_DELIVERED, t.Delivered(fulfilment.id))

    async def cancel(self, order: str) -> None:
        """Cancel on record and tell, as the gateway and the starter do."""
        answer = await self.orders.record(order, CancelOrder())
        assert isinstance(answer, Order)
        await self.handle(order).signal(t.SIGNAL_CANCEL)

    async def ends(self, order: str) -> str:
        """Wait for the workflow's end; what it says."""
        async with asyncio.timeout(WAIT_S):
            return await self.handle(order).result()

    @asynccontextmanager
    async def workers(self, *queues: str) -> AsyncIterator[None]:
        """Serve these queues (all of them by default), workflows in the sandbox."""
        own = OrderActivities(self.orders)
        stock = InventoryActivities(self.orders)
        paying = PaymentActivities(self.orders, self.payments)  # type: ignore[arg-type]
        shipping = ShippingActivities(self.orders, self.carrier)  # type: ignore[arg-type]
        activities: dict[str, list[Callable[..., Any]]] = {
            t.QUEUE_ORDERS: [own.cancel_order, own.close_order, own.set_waiting],
            t.QUEUE_INVENTORY: [stock.reserve_stock, stock.release_stock],
            t.QUEUE_PAYMENTS: [paying.authorize_payment, paying.capture_payment, paying.void_payment],
            t.QUEUE_SHIPPING: [
                shipping.book_shipments,
                shipping.release_shipments,
                shipping.track_shipments,
                shipping.cancel_shipments,
            ],
            t.QUEUE_NOTIFICATIONS: [NotificationActivities().alert_operator],
        }
        workers = [
            Worker(
                self.client,
                task_queue=queue,
                workflows=[OrderWorkflow] if queue == t.QUEUE_ORDERS else [],
                activities=activities[queue],
                workflow_runner=SANDBOX,
                interceptors=[Heartbeats(), Outcomes(self.orders)],
            )
            for queue in queues or t.QUEUES
        ]
        running = [asyncio.create_task(worker.run()) for worker in workers]
        try:
            yield
        finally:
            await asyncio.gather(*(worker.shutdown() for worker in workers))
            await asyncio.gather(*running)


async def connect(address: str, namespace: str) -> Client:
    """A client as the worker has it."""
    return await Client.connect(address, namespace=namespace, data_converter=DATA_CONVERTER)
