"""Orders: the workflow's own bookkeeping on the order's row."""

from temporalio import activity

from app.contracts import temporal as t
from app.domain.commands import CancelOrder, CloseOrder
from app.domain.decide import UNSETTLED
from app.domain.errors import Refusal
from app.domain.ports import Orders
from app.observability.logging import bind_correlation
from app.workers.activities.progress import begin, granted, progress


class OrderActivities:
    """Steps on the `orders` queue."""

    def __init__(self, orders: Orders) -> None:
        """Work on these orders."""
        self._orders = orders

    @activity.defn(name=t.CANCEL_ORDER)
    async def cancel_order(self, step: t.Step) -> t.Progress:
        """Cancel it, if it is not too late: the status says which."""
        order_id = begin(step)
        answer = await self._orders.record(order_id, CancelOrder())
        return progress(await self._orders.load(order_id) if isinstance(answer, Refusal) else answer)

    @activity.defn(name=t.CLOSE_ORDER)
    async def close_order(self, step: t.Step) -> t.Progress:
        """Say that it is cancelled, or rejected and why; its status says whether something is still held."""
        order_id = begin(step)
        answer = await self._orders.record(order_id, CloseOrder(step.reason))
        if isinstance(answer, Refusal) and answer.code == UNSETTLED:
            return progress(await self._orders.load(order_id))
        return progress(granted(answer))

    @activity.defn(name=t.SET_WAITING)
    async def set_waiting(self, waiting: t.Waiting) -> bool:
        """Put on record what it waits for, unless it has moved meanwhile."""
        bind_correlation(waiting.correlation_id, order_id=waiting.order_id)
        return await self._orders.set_waiting(waiting.order_id, waiting.waiting_on)
