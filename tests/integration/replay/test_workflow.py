"""A replay as Temporal carries it: from the row that asks for it to its end, begun anew where it is long."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from temporalio.client import Client
from temporalio.worker import Replayer, Worker

from app.contracts import temporal as t
from app.infra.postgres.replays import ask_to_apply
from app.infra.postgres.workflow_jobs import WorkflowJobs
from app.infra.temporal.client import connect
from app.infra.temporal.converter import DATA_CONVERTER
from app.workers import policies
from app.workers.activities import replay as steps
from app.workers.activities.replay import ReplayActivities
from app.workers.heartbeats import Heartbeats
from app.workers.teller import Teller
from app.workers.workflows.replay import ReplayWorkflow
from tests.integration.replay.past import Past
from tests.integration.workers.poll import Poll
from tests.workflows.world import SANDBOX

HISTORY = Path(__file__).parents[2] / "replay" / "replays" / "applied_in_many_steps.json"
WAIT_S = 60.0


@pytest.fixture
async def client(temporal_address: str, temporal_namespace: str) -> Client:
    """A client of the shared Temporal."""
    return await connect(temporal_address, temporal_namespace, tls_cert=None, tls_key=None, api_key=None)


@asynccontextmanager
async def working(client: Client, past: Past) -> AsyncIterator[None]:
    """A worker for replays, and a teller that polls."""
    worker = Worker(
        client,
        task_queue=t.QUEUE_ORDERS,
        workflows=[ReplayWorkflow],
        activities=[ReplayActivities(past.engine).carry_replay],
        workflow_runner=SANDBOX,
        interceptors=[Heartbeats()],
    )
    teller = Teller(WorkflowJobs(past.database, t.JOBS), client, Poll())
    telling, running = asyncio.create_task(teller.run()), asyncio.create_task(worker.run())
    try:
        yield
    finally:
        telling.cancel()
        await worker.shutdown()
        await asyncio.gather(telling, running, return_exceptions=True)


async def ended(client: Client, workflow_id: str) -> str:
    """What a workflow says when it, and all that it began anew, is over."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await client.get_workflow_handle(workflow_id, result_type=str).result()
            except Exception as missing:
                if "not found" not in str(missing):
                    raise
                await asyncio.sleep(0.1)


async def test_what_is_asked_for_is_carried_to_its_end_and_applied_later(past: Past, client: Client):
    """Shown by one workflow, applied by another, both told by the table of jobs."""
    await past.happens(4)
    await past.consume()
    right = await past.live("daily_summary")
    await past.database.execute("UPDATE daily_summary SET captured = 0")
    async with working(client, past):
        replay = await past.ask("daily_summary")
        assert await ended(client, f"replay/{replay}") == "shown"
        async with past.database.transaction() as connection:
            await ask_to_apply(connection, replay)
        assert await ended(client, f"replay/{replay}/apply") == "applied"
    assert await past.live("daily_summary") == right


async def test_a_long_replay_begins_new_histories(past: Past, client: Client, monkeypatch):
    """After so many steps the workflow continues as new; the replay does not begin again."""
    monkeypatch.setattr(policies, "REPLAY_STEPS_MAX", 4)
    monkeypatch.setattr(steps, "SLICE_S", 0.0)
    await past.happens(4)
    await past.consume()
    await past.database.execute("DELETE FROM analytics_minutes")
    async with working(client, past):
        replay = await past.ask("analytics", is_applied=True)
        assert await ended(client, f"replay/{replay}") == "applied"
    after = await past.one(replay)
    assert (after.done, after.applied) == (after.total, after.changes)
    handle = client.get_workflow_handle(f"replay/{replay}")
    history = await handle.fetch_history()
    begun = history.events[0].workflow_execution_started_event_attributes
    assert begun.continued_execution_run_id
    replayer = Replayer(workflows=[ReplayWorkflow], data_converter=DATA_CONVERTER, workflow_runner=SANDBOX)
    await replayer.replay_workflow(history)
    if os.environ.get("HOLDFAST_RECORD_HISTORIES"):
        HISTORY.parent.mkdir(exist_ok=True)
        HISTORY.write_text(history.to_json())
