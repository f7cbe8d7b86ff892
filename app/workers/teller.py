"""The teller: starts, or wakes, the workflows that are not orders', from the table of workflow jobs.

Which type a job's kind starts, and on which queue, is the table `contracts.temporal.JOBS`. If the process
dies after Temporal's answer and before the row is deleted, Temporal is told twice: it refuses the second
start by the workflow's id, and signals say only "look".
"""

from typing import Any

import msgspec
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from app.contracts import temporal as t
from app.infra.postgres.workflow_jobs import ClaimedJob, WorkflowJobs
from app.observability.logging import logger
from app.workers import policies
from app.workers.telling import Hint, Telling

log = logger("teller")


class Teller:
    """Runs until it is cancelled; two of them at once share the work."""

    def __init__(self, jobs: WorkflowJobs, client: Client, hint: Hint, *, is_eager: bool = True) -> None:
        """Take `jobs` to `client`; look at once when `hint` says so. `is_eager` is as in `Starter`."""
        self._is_eager = is_eager
        self._client = client
        self._telling = Telling("jobs", jobs, self._call, hint)
        self.run = self._telling.run
        self.tell = self._telling.tell

    async def _call(self, job: ClaimedJob) -> None:
        kind = t.JOBS[job.kind]
        signal: dict[str, Any] = {"start_signal": job.signal} if job.signal else {}
        told = "workflow_told"
        try:
            await self._client.start_workflow(
                kind.workflow,
                msgspec.Raw(job.argument.encode()),
                id=job.workflow_id,
                task_queue=kind.queue,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                task_timeout=policies.WORKFLOW_TASK_TIMEOUT,
                **signal,
                request_eager_start=self._is_eager and not job.signal,
                rpc_timeout=policies.RPC_TIMEOUT,
            )
        except WorkflowAlreadyStartedError:
            told = "workflow_had_ended"
        log.debug(told, kind=job.kind, workflow_id=job.workflow_id, signal=job.signal)
