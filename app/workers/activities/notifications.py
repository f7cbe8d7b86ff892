"""Notifications: tell people. Today: the operator, when a step failed for good."""

from temporalio import activity

from app.contracts import temporal as t
from app.observability import metrics
from app.observability.logging import bind_correlation, logger
from app.workers import policies

log = logger("notifications")

for _step in policies.STEPS:
    metrics.OPERATOR_ALERTS.labels(_step)  # so that the first alert is an increase


class NotificationActivities:
    """Steps on the `notifications` queue."""

    @activity.defn(name=t.ALERT_OPERATOR)
    async def alert_operator(self, alert: t.Alert) -> None:
        """Say loudly which step of which order failed for good, and what makes it go on."""
        bind_correlation(alert.correlation_id, order_id=alert.order_id)
        metrics.OPERATOR_ALERTS.labels(alert.step).inc()
        mend = (
            f"temporal workflow signal --workflow-id {t.workflow_id(alert.order_id)} --name {t.SIGNAL_RETRY}"
        )
        log.critical("operator_needed", step=alert.step, error=alert.error, after_mending=mend)
