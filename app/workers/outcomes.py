"""What comes of every step: a line in the log; in an outage the order says whom it waits for."""

from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from app.contracts.temporal import Progress, Step
from app.domain.errors import Unavailable
from app.domain.ports import Orders
from app.observability.logging import logger
from app.workers import policies

log = logger("activities")


class Outcomes(Interceptor):
    """Logs what comes of every step. `Unavailable` becomes a failure without a stack trace."""

    def __init__(self, orders: Orders) -> None:
        """Put on record there what an order waits for."""
        self._orders = orders
        self._away: set[str] = set()

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Wrap every activity."""
        return _Inbound(next, self._orders, self._away)


class _Inbound(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, orders: Orders, away: set[str]) -> None:
        super().__init__(next)
        self._orders = orders
        self._away = away  # services that failed the last step that needed them

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: ANN401 - as the activity
        info = activity.info()
        try:
            answer = await self.next.execute_activity(input)
        except Unavailable as error:
            log.info("step_waits", step=info.activity_type, attempt=info.attempt, error=str(error))
            self._note_away(error.service, str(error))
            if isinstance(step := input.args[0], Step) and error.service in policies.WAITS_FOR:
                await self._say_waiting(step.order_id, error.service)
            raise ApplicationError(
                str(error), type="unavailable", category=ApplicationErrorCategory.BENIGN
            ) from None
        status = answer.status if isinstance(answer, Progress) else None
        log.info("step_done", step=info.activity_type, attempt=info.attempt, status=status)
        for service in self._away & {info.task_queue, "postgres"}:
            self._away.discard(service)
            log.warning("service_is_back", service=service)
        return answer

    def _note_away(self, service: str, error: str) -> None:
        """One warning when a service goes away, however many orders wait for it."""
        if service not in self._away:
            self._away.add(service)
            log.warning("service_is_away", service=service, error=error)

    async def _say_waiting(self, order_id: str, service: str) -> None:
        try:
            await self._orders.set_waiting(order_id, service)
        except Unavailable:
            log.info("waiting_not_on_record", service=service)
