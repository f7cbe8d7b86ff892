"""The starter: tells Temporal what the workflow outbox holds, and looks after orders that nobody carries.

An order's row and its outbox row are one transaction, so an accepted order is always found here. Calls go out
many at a time; one that does not get through is given back. If the process dies after Temporal's answer and
before the row is deleted, Temporal is told twice, which it refuses by the workflow's id.
"""

import asyncio
from typing import Any, Final

from temporalio.client import Client
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from app.contracts import temporal as t
from app.domain.errors import Unavailable
from app.domain.order import FINAL, Status
from app.infra.postgres.workflow_outbox import Call, OpenOrder, WorkflowOutbox
from app.observability import tracing
from app.observability.logging import logger
from app.workers import policies
from app.workers.telling import Hint, Telling

CHECK_INTERVAL_S: Final = 30.0
IDLE_S: Final = 300.0
CHECK_MAX: Final = 100

log = logger("starter")


class Starter:
    """Runs until it is cancelled; two of them at once share the work."""

    def __init__(self, outbox: WorkflowOutbox, client: Client, hint: Hint, *, is_eager: bool = True) -> None:
        """Take calls from `outbox` to `client`; look at once when `hint` says so.

        `is_eager` has the worker beside it carry what it starts, whatever version that is of.
        """
        self._outbox = outbox
        self._is_eager = is_eager
        self._client = client
        self._telling = Telling("orders", outbox, self._call, hint)
        self.run = self._telling.run
        self.tell = self._telling.tell

    async def look_after(self) -> None:
        """Every half minute, start the workflows of open orders that nobody carries, for ever."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            try:
                for order in await self._outbox.idle_orders(IDLE_S, CHECK_MAX):
                    await self.revive(order)
            except (Unavailable, RPCError) as error:
                log.warning("check_skipped", error=str(error))

    async def _call(self, call: Call) -> None:
        kind: dict[str, Any] = {"request_eager_start": self._is_eager}
        if call.kind == "cancel":
            kind = {"start_signal": t.SIGNAL_CANCEL}
        elif call.kind == "delivered":
            kind = {"start_signal": t.SIGNAL_DELIVERED, "start_signal_args": [t.Delivered(call.detail or "")]}
        begun = await self._start(call, WorkflowIDReusePolicy.REJECT_DUPLICATE, **kind)
        ids = {"order_id": call.order_id, "correlation_id": call.correlation_id}
        event = "workflow_told" if begun else "workflow_had_ended"
        log.info(event, kind=call.kind, **ids, **tracing.named(call.traceparent))
        if not begun and call.status not in FINAL:  # somebody ended it: nobody would carry the order on
            await self.revive(call)

    async def revive(self, order: Call | OpenOrder) -> None:
        """Start an order's workflow unless it runs; one that failed or was terminated is started again."""
        kind = {"start_signal": t.SIGNAL_CANCEL} if order.status == Status.CANCELLING else {}
        if not await self._start(order, WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY, **kind):
            log.error("workflow_ended_order_open", order_id=order.order_id, status=order.status)

    async def _start(self, order: Call | OpenOrder, reuse: WorkflowIDReusePolicy, **kind: Any) -> bool:  # noqa: ANN401
        """Have the order's workflow run (and be signalled); False when it has ended already."""
        name = f"{'signal' if 'start_signal' in kind else 'start'} {t.ORDER_WORKFLOW}"
        ids: tracing.Attributes = {
            "holdfast.order_id": order.order_id,
            "holdfast.correlation_id": order.correlation_id,
        }
        try:
            with tracing.step(name, "producer", order.traceparent, ids):
                await self._client.start_workflow(
                    t.ORDER_WORKFLOW,
                    t.OrderInput(order.order_id, order.customer_id, order.correlation_id),
                    id=t.workflow_id(order.order_id),
                    task_queue=t.QUEUE_ORDERS,
                    id_reuse_policy=reuse,
                    id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                    task_timeout=policies.WORKFLOW_TASK_TIMEOUT,
                    search_attributes=_attributes(order),
                    **kind,
                    rpc_timeout=policies.RPC_TIMEOUT,
                )
        except WorkflowAlreadyStartedError:
            return False
        return True


def _attributes(order: Call | OpenOrder) -> TypedSearchAttributes:
    values = {
        "OrderId": order.order_id,
        "CustomerId": order.customer_id,
        "OrderStatus": Status.ACCEPTED,
        "CorrelationId": order.correlation_id,
    }
    return TypedSearchAttributes(
        [
            SearchAttributePair(SearchAttributeKey.for_keyword(name), str(value))
            for name, value in values.items()
        ]
    )
