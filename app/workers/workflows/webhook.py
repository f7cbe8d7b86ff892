"""WebhookDeliveryWorkflow: one event to one endpoint, tried for days.

Each attempt is an activity that also puts on record what came of it; here is decided when the next one is.
An endpoint that fails again and again is left alone for a while, which costs its deliveries no attempt. The
whole state is in PostgreSQL: a workflow that is lost is begun anew from there.
"""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from msgspec.structs import replace

    from app.contracts import temporal as t
    from app.domain.webhooks import DeliveryState
    from app.workers import policies


@workflow.defn(name=t.WEBHOOK_WORKFLOW)
class WebhookDeliveryWorkflow:
    """One delivery, from its event to its end."""

    @workflow.run
    async def run(self, delivery: t.WebhookDelivery) -> str:
        """Send until the receiver has it or the waits are used up; the delivery's state then."""
        waits = policies.WEBHOOK_WAITS_S if delivery.waits_s is None else delivery.waits_s
        began = workflow.time() if delivery.began is None else delivery.began
        ends = began + sum(waits) * policies.WEBHOOK_GRACE + policies.WEBHOOK_GRACE_S
        failures = delivery.failures
        while True:
            wait_s = _jittered(waits[failures]) if failures < len(waits) else None
            outcome = await self._attempt(
                t.WebhookAttempt(delivery.delivery_id, delivery.round, wait_s, workflow.time() < ends)
            )
            if outcome.state != DeliveryState.PENDING:
                return outcome.state
            failures += outcome.was_sent
            await workflow.sleep(outcome.again_in_s)
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(replace(delivery, failures=failures, began=began))

    async def _attempt(self, attempt: t.WebhookAttempt) -> t.WebhookOutcome:
        outcome: t.WebhookOutcome = await workflow.execute_activity(
            t.SEND_WEBHOOK,
            attempt,
            task_queue=t.QUEUE_NOTIFICATIONS,
            result_type=t.WebhookOutcome,
            start_to_close_timeout=policies.WEBHOOK_TIMEOUT,
            heartbeat_timeout=policies.HEARTBEAT_TIMEOUT,
            retry_policy=policies.RETRY,
        )
        return outcome


def _jittered(wait_s: float) -> float:
    """A wait and a little more."""
    return wait_s * (1 + policies.WEBHOOK_JITTER * workflow.random().random())
