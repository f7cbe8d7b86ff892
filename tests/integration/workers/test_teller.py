"""The teller: what the table of workflow jobs holds reaches Temporal, once, whatever dies."""

import asyncio
import os
from contextlib import suppress

import pytest
from temporalio.client import Client, WorkflowExecutionStatus

from app.contracts import temporal as t
from app.domain.order import Status
from app.infra.postgres import workflow_jobs
from app.infra.postgres.pool import Database
from app.infra.postgres.workflow_jobs import WorkflowJob, WorkflowJobs
from app.workers.teller import Teller
from tests.integration.workers.accepted import accept
from tests.integration.workers.poll import Poll

WAIT_S = 20.0
GIVEN = t.StatusAnswer(Status.ACCEPTED, None, "operator")
"""Some struct: nothing here serves the queue, so nobody looks at it but the tests."""


@pytest.fixture
def teller(database: Database, client: Client) -> Teller:
    """A teller that only polls."""
    return Teller(WorkflowJobs(database, t.JOBS), client, Poll())


def job(*, kind: str = t.JOB_WEBHOOK, signal: str | None = None) -> WorkflowJob:
    """A job for a workflow that nobody has named before."""
    return WorkflowJob(kind, f"test/{os.urandom(8).hex()}", GIVEN, signal)


async def add(database: Database, *jobs: WorkflowJob) -> None:
    """Put jobs in the table, as whoever needs them does."""
    async with database.transaction() as connection:
        await workflow_jobs.add(connection, jobs)


async def rows(database: Database) -> int:
    """How many jobs wait."""
    return (await database.fetch("SELECT count(*) AS n FROM workflow_jobs"))[0]["n"]


async def test_a_job_starts_the_workflow_of_its_kind_and_is_gone(
    database: Database, client: Client, teller: Teller
) -> None:
    """Type, queue, id and argument are the job's."""
    wanted = job()
    await add(database, wanted)
    assert await teller.tell() == 1
    assert await rows(database) == 0
    handle = client.get_workflow_handle(wanted.workflow_id)
    described = await handle.describe()
    assert described.workflow_type == t.JOBS[wanted.kind].workflow
    assert described.task_queue == t.JOBS[wanted.kind].queue
    begun = (await handle.fetch_history()).events[0].workflow_execution_started_event_attributes
    values = await client.data_converter.decode(begun.input.payloads, [t.StatusAnswer])
    assert values == [GIVEN]


async def test_a_job_of_a_transaction_that_was_undone_is_none(database: Database) -> None:
    """Jobs are written with the change that needs them."""
    with suppress(ZeroDivisionError):
        async with database.transaction() as connection:
            await workflow_jobs.add(connection, [job()])
            raise ZeroDivisionError
    assert await rows(database) == 0


async def test_replays_go_before_webhooks_and_orders_before_both(database: Database) -> None:
    """However many webhooks wait; and while orders wait to be started, little else is."""
    jobs = WorkflowJobs(database, t.JOBS)
    await add(database, *(job() for _ in range(40)), job(kind=t.JOB_REPLAY))
    await accept(database)
    await database.execute("UPDATE workflow_outbox SET created_at = now() - interval '5 seconds'")
    claimed = await jobs.claim(20, 0.0)
    assert [one.kind for one in claimed] == [t.JOB_REPLAY, *[t.JOB_WEBHOOK] * 7]
    stuck = "UPDATE workflow_outbox SET created_at = now() - interval '2 minutes'"
    await database.execute(stuck)  # Temporal refuses it again and again: nothing else waits for that
    assert len(await jobs.claim(20, 0.0)) == 20
    await database.execute("DELETE FROM workflow_outbox")
    assert len(await jobs.claim(20, 10.0)) == 20


async def test_a_job_that_is_told_twice_starts_once(
    database: Database, client: Client, teller: Teller
) -> None:
    """Somebody died between Temporal's answer and the deletion; meanwhile the workflow may have ended."""
    wanted = job()
    await add(database, wanted, wanted)
    assert await teller.tell() == 2
    first = await client.get_workflow_handle(wanted.workflow_id).describe()
    await client.get_workflow_handle(wanted.workflow_id).terminate()
    await add(database, wanted)
    assert await teller.tell() == 1
    then = await client.get_workflow_handle(wanted.workflow_id).describe()
    assert (then.run_id, then.status) == (first.run_id, WorkflowExecutionStatus.TERMINATED)


async def test_a_job_with_a_signal_wakes_the_workflow_or_starts_it(
    database: Database, client: Client, teller: Teller
) -> None:
    """The signal is heard whichever comes first."""
    wanted = job(signal="look")
    await add(database, wanted, wanted)
    assert await teller.tell() == 2
    history = await client.get_workflow_handle(wanted.workflow_id).fetch_history()
    signals = [e for e in history.events if e.HasField("workflow_execution_signaled_event_attributes")]
    assert len(signals) == 2


async def test_what_one_teller_has_claimed_another_leaves_alone_until_the_claim_runs_out(
    database: Database, teller: Teller
) -> None:
    """A teller that died while it told Temporal is replaced."""
    await add(database, job())
    jobs = WorkflowJobs(database, t.JOBS)
    assert len(await jobs.claim(10, 0.3)) == 1
    assert await jobs.claim(10, 0.3) == []
    async with asyncio.timeout(WAIT_S):
        while await teller.tell() == 0:
            await asyncio.sleep(0.05)
    assert await rows(database) == 0


async def test_a_job_of_a_kind_that_is_not_known_here_is_left_to_a_newer_release(
    database: Database, teller: Teller
) -> None:
    """It keeps nobody waiting."""
    await add(database, job(kind="of tomorrow"), job())
    assert await teller.tell() == 1
    assert await rows(database) == 1
