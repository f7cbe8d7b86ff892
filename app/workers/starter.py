"""The starter: tells Temporal what the workflow outbox holds, and looks after orders that nobody carries.

An order's row and its outbox row are one transaction, so an accepted order is always found here. Calls go out
many at a time; one that does not get through is given back. If the process dies after Temporal's answer and
before the row is deleted, Temporal is told twice, which it refuses by the workflow's id.
"""

import asyncio
from typing import Any, Final, Protocol

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
from app.observability.logging import logger
from app.workers import policies

BATCH_MAX: Final = 64
LEASE_S: Final = 15.0
POLL_S: Final = 1.0
PAUSE_S: Final = 1.0
CHECK_INTERVAL_S: Final = 30.0
IDLE_S: Final = 300.0
CHECK_MAX: Final = 100

log = logger("starter")


class Hint(Protocol):
    """Wakes a waiter early; it may never come."""

    async def wait(self, timeout_s: float) -> bool:
        """Wait for a hint, at most `timeout_s` seconds."""
        ...


class Starter:
    """Runs until it is cancelled; two of them at once share the work."""

    def __init__(self, outbox: WorkflowOutbox, client: Client, hint: Hint) -> None:
        """Take calls from `outbox` to `client`; look at once when `hint` says so."""
        self._outbox = outbox
        self._client = client
        self._hint = hint
        self._is_away = False

    async def run(self) -> None:
        """Tell Temporal everything, for ever."""
        while True:
            try:
                told = await self.tell()
                self._note_away(away=False)
            except (Unavailable, RPCError) as error:
                self._note_away(away=True, error=str(error))
                await self._hint.wait(POLL_S)
                continue
            if told < BATCH_MAX:
                await self._hint.wait(POLL_S)

    async def look_after(self) -> None:
        """Every half minute, start the workflows of open orders that nobody carries, for ever."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            try:
                for order in await self._outbox.idle_orders(IDLE_S, CHECK_MAX):
                    await self.revive(order)
            except (Unavailable, RPCError) as error:
                log.warning("check_skipped", error=str(error))

    async def tell(self) -> int:
        """Claim one batch and tell Temporal; how many calls it was. Raises RPCError when none got through."""
        calls = await self._outbox.claim(BATCH_MAX, LEASE_S)
        if not calls:
            return 0
        outcomes = await asyncio.gather(*(self._call(call) for call in calls), return_exceptions=True)
        done = [call.id for call, outcome in zip(calls, outcomes, strict=True) if outcome is None]
        failed = [(call, o) for call, o in zip(calls, outcomes, strict=True) if o is not None]
        if done:
            await self._outbox.done(done)
        if failed:
            await self._outbox.give_back([call.id for call, _ in failed], PAUSE_S)
            for _, error in failed:
                if not isinstance(error, RPCError):
                    raise error
            if not done:
                raise failed[0][1]
        return len(calls)

    async def _call(self, call: Call) -> None:
        kind: dict[str, Any] = {"request_eager_start": True}
        if call.kind == "cancel":
            kind = {"start_signal": t.SIGNAL_CANCEL}
        elif call.kind == "delivered":
            kind = {"start_signal": t.SIGNAL_DELIVERED, "start_signal_args": [t.Delivered(call.detail or "")]}
        begun = await self._start(call, WorkflowIDReusePolicy.REJECT_DUPLICATE, **kind)
        ids = {"order_id": call.order_id, "correlation_id": call.correlation_id}
        log.info("workflow_told" if begun else "workflow_had_ended", kind=call.kind, **ids)
        if not begun and call.status not in FINAL:  # somebody ended it: nobody would carry the order on
            await self.revive(call)

    async def revive(self, order: Call | OpenOrder) -> None:
        """Start an order's workflow unless it runs; one that failed or was terminated is started again."""
        kind = {"start_signal": t.SIGNAL_CANCEL} if order.status == Status.CANCELLING else {}
        if not await self._start(order, WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY, **kind):
            log.error("workflow_ended_order_open", order_id=order.order_id, status=order.status)

    async def _start(self, order: Call | OpenOrder, reuse: WorkflowIDReusePolicy, **kind: Any) -> bool:  # noqa: ANN401
        """Have the order's workflow run (and be signalled); False when it has ended already."""
        try:
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

    def _note_away(self, *, away: bool, error: str = "") -> None:
        """One line when Temporal or PostgreSQL goes away, one when it is back."""
        if away != self._is_away:
            self._is_away = away
            if away:
                log.warning("orders_wait_to_be_started", error=error)
            else:
                log.info("orders_are_started_again")


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
