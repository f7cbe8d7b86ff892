"""Webhooks: one attempt to send one delivery, with what came of it put on record.

An attempt whose outcome was not put on record (PostgreSQL away, the process killed) is made again: the
receiver tells by the id. A receiver that is slow has only so many attempts of this process for itself.
"""

from collections import Counter
from typing import Final

from temporalio import activity

from app.contracts import temporal as t
from app.domain.webhooks import Deliveries, DeliveryState, Outcome, Post, Sender
from app.observability import metrics, tracing
from app.observability.logging import logger

AT_ONCE_MAX: Final = 200
"""Attempts of one process at once, of all that its queue may run: others need their places, too."""
OF_ONE_ENDPOINT_MAX: Final = 8
_MILLISECONDS: Final = 3

log = logger("webhooks")


class WebhookActivities:
    """Steps on the `notifications` queue."""

    def __init__(self, deliveries: Deliveries, sender: Sender) -> None:
        """Send by `sender` what is on record in `deliveries`."""
        self._deliveries = deliveries
        self._sender = sender
        self._under_way: Counter[str] = Counter()

    @activity.defn(name=t.SEND_WEBHOOK)
    async def send_webhook(self, attempt: t.WebhookAttempt) -> t.WebhookOutcome:
        """Make an attempt, unless there is none to be made, or not now."""
        post = await self._deliveries.begin(attempt.delivery_id, attempt.round, may_wait=attempt.may_wait)
        if isinstance(post, Outcome):
            if post.state is DeliveryState.FAILED:
                _note("given_up", attempt)
            return _told(post)
        if self._is_full(post):
            return _told(await self._deliveries.wait(post))
        self._under_way[post.endpoint_id] += 1
        try:
            return await self._send(post, attempt)
        finally:
            self._under_way[post.endpoint_id] -= 1
            self._under_way += Counter()  # forget those that are at nothing

    async def _send(self, post: Post, attempt: t.WebhookAttempt) -> t.WebhookOutcome:
        ids: tracing.Attributes = {
            "holdfast.delivery_id": post.delivery_id,
            "holdfast.endpoint_id": post.endpoint_id,
        }
        with tracing.step("send webhook", "client", post.traceparent, ids) as span:
            receipt = await self._sender.send(post)
            if receipt.status is not None:
                span.set("http.response.status_code", receipt.status)
            if not receipt.is_good:
                span.fail("no_answer" if receipt.status is None else str(receipt.status))
        outcome = await self._deliveries.end(post, attempt.round, receipt, attempt.wait_s)
        said = {"endpoint_id": post.endpoint_id, "status": receipt.status, "error": receipt.error}
        if outcome.state is DeliveryState.DELIVERED:
            _note("delivered", attempt, **said)
        elif outcome.state is DeliveryState.FAILED:
            _note("given_up", attempt, **said)
        else:
            _note("failed", attempt, again_in_s=round(outcome.again_in_s, _MILLISECONDS), **said)
        return _told(outcome)

    def _is_full(self, post: Post) -> bool:
        own = self._under_way[post.endpoint_id]
        return own >= OF_ONE_ENDPOINT_MAX or self._under_way.total() >= AT_ONCE_MAX


def _note(outcome: str, attempt: t.WebhookAttempt, **said: object) -> None:
    """Count an attempt and write it down: its ids, never what was sent."""
    metrics.WEBHOOK_ATTEMPTS.labels(outcome).inc()
    say = log.info if outcome == "delivered" else log.warning
    say(f"webhook_{outcome}", delivery_id=attempt.delivery_id, round=attempt.round, **said)


def _told(outcome: Outcome) -> t.WebhookOutcome:
    state = "superseded" if outcome.state is None else "waiting" if outcome.waits else outcome.state
    return t.WebhookOutcome(state, outcome.was_sent, outcome.again_in_s)
