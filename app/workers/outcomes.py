"""How an outage looks: the order says whom it waits for, and Temporal is told quietly and tries again."""

from typing import Any

from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from app.contracts.temporal import Step
from app.domain.errors import Unavailable
from app.domain.ports import Orders
from app.observability.logging import logger
from app.workers import policies

log = logger("activities")


class Outages(Interceptor):
    """Turns `Unavailable` into a failure without a stack trace; everything else stays loud."""

    def __init__(self, orders: Orders) -> None:
        """Put on record there what an order waits for."""
        self._orders = orders

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Wrap every activity."""
        return _Inbound(next, self._orders)


class _Inbound(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, orders: Orders) -> None:
        super().__init__(next)
        self._orders = orders

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: ANN401 - as the activity
        try:
            return await self.next.execute_activity(input)
        except Unavailable as error:
            log.info("step_waits", service=error.service, error=str(error))
            if isinstance(step := input.args[0], Step) and error.service in policies.WAITS_FOR:
                await self._say_waiting(step.order_id, error.service)
            raise ApplicationError(
                str(error), type="unavailable", category=ApplicationErrorCategory.BENIGN
            ) from None

    async def _say_waiting(self, order_id: str, service: str) -> None:
        try:
            await self._orders.set_waiting(order_id, service)
        except Unavailable:
            log.info("what the order waits for could not be put on record")
