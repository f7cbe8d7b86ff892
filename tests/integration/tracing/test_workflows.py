"""A trace goes with a workflow wherever it goes: into its steps, and into what it continues as."""

import asyncio
import uuid
from datetime import timedelta

import pytest
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from app.infra.temporal.client import connect
from app.observability import tracing
from app.workers.traces import Headers
from tests.otlp import Collector, target
from tests.stack import Temporal

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SOON = timedelta(seconds=60)


@activity.defn
async def look(fails: bool) -> str | None:
    """What its trace is; or it fails with what nobody may read."""
    if fails:
        raise ApplicationError("Cora Canary", type="not-found", non_retryable=True)
    return tracing.here()


@workflow.defn
class Twice:
    """Looks, here and elsewhere, and does it all once more."""

    @workflow.run
    async def run(self, left: int) -> str:
        """Look."""
        await workflow.execute_local_activity(look, False, start_to_close_timeout=SOON)
        await workflow.execute_activity(look, left == 0, start_to_close_timeout=SOON)
        workflow.continue_as_new(left - 1)


async def carried(temporal: Temporal, parent: str | None) -> Collector:
    """The workflow, begun under a span or not, until it has failed; the collector with what came of it."""
    queue = f"traces-{uuid.uuid4()}"
    with Collector() as collector, tracing.started(target(collector.url)):
        traces = tracing.active()
        assert traces is not None
        client: Client = await connect(
            temporal.address,
            temporal.namespace,
            tls_cert=None,
            tls_key=None,
            api_key=None,
            interceptors=[Headers(traces)],
        )
        worker = Worker(
            client,
            task_queue=queue,
            workflows=[Twice],
            activities=[look],
            workflow_runner=UnsandboxedWorkflowRunner(),
        )
        async with worker:
            with tracing.step("begin", "producer", parent, {}):
                handle = await client.start_workflow(Twice.run, 1, id=queue, task_queue=queue)
            with pytest.raises(WorkflowFailureError):
                await handle.result()
        await asyncio.sleep(0)  # the loop's turn in which it is told of the last span
    return collector


async def test_every_run_is_under_the_same_span_and_has_its_own_steps(temporal_server: Temporal):
    """Two runs, two steps each, one of them local."""
    collector = await carried(temporal_server, PARENT)
    assert {span.trace for span in collector.spans} == {PARENT[3:35]}
    (begin,) = collector.named("begin")
    runs = {span.id: span.parent for span in collector.named("run Twice")}
    assert list(runs.values()) == [begin.id] * 2
    steps = [span.parent for span in collector.named("look")]
    assert set(steps) == set(runs)
    assert len(steps) >= 4


async def test_what_fails_is_told_by_its_kind(temporal_server: Temporal):
    """A step by the kind of its refusal, the workflow by that of its error; nothing of what they say."""
    collector = await carried(temporal_server, PARENT)
    failed = {span.name: span.attributes["error.type"] for span in collector.spans if span.failed}
    assert failed == {"look": "not-found", "end Twice": "ActivityError"}
    assert collector.named("continue Twice as new")
    assert not any(b"Canary" in body for body in collector.bodies)


async def test_a_workflow_that_was_begun_without_a_trace_has_none(temporal_server: Temporal):
    """Nor do its steps: there would be nothing to find them by."""
    assert (await carried(temporal_server, None)).spans == []
