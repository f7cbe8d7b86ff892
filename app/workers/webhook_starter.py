"""The webhook starter: begins the workflows of deliveries in their turn, gives up those whose time is over.

Whose turn it is, PostgreSQL says (`WaitingDeliveries`). Few are begun at once, and whoever begins them then
rests as long as that took: orders share Temporal's server and go first. If the process dies after Temporal's
answer and before that is on record, the same workflow is begun again, which Temporal refuses by its id.
"""

import asyncio
from typing import Final

from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from app.contracts import temporal as t
from app.domain.errors import Unavailable
from app.infra.postgres.webhook_waiting import WaitingDeliveries, WaitingDelivery
from app.observability import metrics
from app.observability.logging import logger
from app.workers import policies
from app.workers.telling import Hint, Telling

AT_ONCE_MAX: Final = 8
SWEEP_INTERVAL_S: Final = 5.0
SWEPT_MAX: Final = 1000

log = logger("webhooks")


class WebhookStarter:
    """Runs until it is cancelled; two of them at once share the work."""

    def __init__(
        self,
        waiting: WaitingDeliveries,
        client: Client,
        hint: Hint,
        *,
        waits_s: tuple[float, ...] | None = None,
        is_eager: bool = True,
    ) -> None:
        """Take deliveries from `waiting` to `client`; look at once when `hint` says so.

        `waits_s` are the seconds between attempts where they are not the usual ones; `is_eager` is as in
        `Starter`.
        """
        self._is_eager = is_eager
        self._waiting = waiting
        self._client = client
        self._waits_s = waits_s
        self._telling = Telling("webhooks", waiting, self._call, hint, batch_max=AT_ONCE_MAX, rests=True)
        self.run = self._telling.run
        self.tell = self._telling.tell

    async def give_up(self) -> None:
        """Every few seconds, for ever, fail those that nobody wants any more or that waited too long."""
        while True:
            try:
                while given_up := await self._waiting.give_up(policies.WEBHOOK_ENDS_S, SWEPT_MAX):
                    metrics.WEBHOOK_ATTEMPTS.labels("given_up").inc(given_up)
                    log.warning("webhooks_given_up", deliveries=given_up)
            except Unavailable as error:
                log.warning("webhooks_sweep_skipped", error=str(error))
            await asyncio.sleep(SWEEP_INTERVAL_S)

    async def _call(self, one: WaitingDelivery) -> None:
        workflow_id = t.webhook_workflow_id(one.delivery_id, one.round)
        kind = t.JOBS[t.JOB_WEBHOOK]
        told = "workflow_told"
        try:
            await self._client.start_workflow(
                kind.workflow,
                t.WebhookDelivery(
                    one.delivery_id,
                    one.round,
                    waits_s=self._waits_s,
                    failures=one.failures,
                    began=one.since,
                    is_begun_here=True,
                ),
                id=workflow_id,
                task_queue=kind.queue,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                task_timeout=policies.WORKFLOW_TASK_TIMEOUT,
                request_eager_start=self._is_eager,
                rpc_timeout=policies.RPC_TIMEOUT,
            )
        except WorkflowAlreadyStartedError:
            told = "workflow_had_ended"
        log.debug(told, kind=t.JOB_WEBHOOK, workflow_id=workflow_id)
