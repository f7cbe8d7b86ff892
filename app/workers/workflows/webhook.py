"""WebhookDeliveryWorkflow: one event to one endpoint, tried for days.

Each attempt is an activity that also puts on record what came of it; here is decided when the next one is.
The first one is made by whichever worker begins the workflow (a local activity): nearly all receivers take
what they are sent at once, and their deliveries cost Temporal less than half so.
A delivery that is to be tried much later, or whose endpoint is left alone, waits in PostgreSQL, and this
workflow ends: another one is begun in its turn. The whole state is there: a lost workflow is begun anew, too.
"""

from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception

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
        """Send until the receiver has it or the waits are used up, or it waits; the delivery's state then."""
        waits = policies.WEBHOOK_WAITS_S if delivery.waits_s is None else delivery.waits_s
        began = workflow.time() if delivery.began is None else delivery.began
        ends = began + sum(waits) * policies.WEBHOOK_GRACE + policies.WEBHOOK_GRACE_S
        failures, is_first = delivery.failures, delivery.began is None or delivery.is_begun_here
        while True:
            wait_s = _jittered(waits[failures]) if failures < len(waits) else None
            attempt = t.WebhookAttempt(delivery.delivery_id, delivery.round, wait_s, workflow.time() < ends)
            outcome = (await self._first(attempt) if is_first else None) or await self._attempt(attempt)
            is_first = False
            if outcome.state != DeliveryState.PENDING:
                return outcome.state
            failures += outcome.was_sent
            await workflow.sleep(outcome.again_in_s)
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(
                    replace(delivery, failures=failures, began=began, is_begun_here=False)
                )

    async def _first(self, attempt: t.WebhookAttempt) -> t.WebhookOutcome | None:
        """The attempt, made on the spot; None where nothing of it is on record."""
        try:
            outcome: t.WebhookOutcome = await workflow.execute_local_activity(
                t.SEND_WEBHOOK,
                attempt,
                result_type=t.WebhookOutcome,
                start_to_close_timeout=policies.WEBHOOK_TIMEOUT,
                retry_policy=policies.ONCE,
            )
        except FailureError as error:  # a local activity's failure comes as it is, not as an ActivityError
            if is_cancelled_exception(error):
                raise
            return None
        return outcome

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
