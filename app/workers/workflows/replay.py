"""ReplayWorkflow: has a replay carried on, a few seconds a step, until it has ended.

It knows an id and counts; everything else is in PostgreSQL, where each piece of work is committed together
with how far the replay is. So the workflow may be started again, or twice, and begins anew with an empty
history after some hundred steps.
"""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from app.contracts import temporal as t
    from app.workers import policies


@workflow.defn(name=t.REPLAY_WORKFLOW)
class ReplayWorkflow:
    """One replay, from being asked for until it is shown, applied or given up."""

    @workflow.init
    def __init__(self, asked: t.ReplayInput) -> None:
        """Nothing is known yet."""
        self._asked = asked
        self._progress: t.ReplayProgress | None = None

    @workflow.run
    async def run(self, _: t.ReplayInput) -> str:
        """Carry the replay on; the state in which it ended."""
        steps = 0
        while True:
            if steps == policies.REPLAY_STEPS_MAX:
                workflow.continue_as_new(self._asked)
            steps += 1
            self._progress = await workflow.execute_activity(
                t.CARRY_REPLAY,
                self._asked,
                result_type=t.ReplayProgress,
                start_to_close_timeout=policies.REPLAY_TIMEOUT,
                heartbeat_timeout=policies.REPLAY_HEARTBEAT_TIMEOUT,
                retry_policy=policies.RETRY,
            )
            if self._progress.is_over:
                return self._progress.state

    @workflow.query(name=t.QUERY_STATUS)
    def status(self) -> t.ReplayProgress | None:
        """How far the replay is, as far as the workflow knows."""
        return self._progress
