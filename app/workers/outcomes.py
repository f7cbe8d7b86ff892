"""How an activity's failures look to Temporal: an outage is no defect, so it is told quietly."""

from typing import Any

from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from app.domain.errors import Unavailable
from app.observability.logging import logger

log = logger("activities")


class QuietOutages(Interceptor):
    """Turns `Unavailable` into a failure without a stack trace; everything else stays loud."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Wrap every activity."""
        return _Inbound(next)


class _Inbound(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: ANN401 - as the activity
        try:
            return await self.next.execute_activity(input)
        except Unavailable as error:
            log.info("step_waits", service=error.service, error=str(error))
            raise ApplicationError(
                str(error), type="unavailable", category=ApplicationErrorCategory.BENIGN
            ) from None
